"""The way of events from a program's processes to the command, with real processes at one end."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections import defaultdict

import pytest

from otel_concurrency._observer import wire

PRELUDE = """
import os, signal, sys, threading
from otel_concurrency._observer import wire
writer = wire.Writer(sys.argv[1])
def emit(number, **more):
    writer.emit({"event": "test", "pid": os.getpid(), "number": number, **more})
"""


@pytest.fixture
def reader(tmp_path):
    """Return a reader of what `writes` has its processes write."""
    return wire.Reader(tmp_path)


@pytest.fixture
def writes(tmp_path):
    """Return a function that runs a program which has an `emit`, and returns its exit status."""

    def run(program):
        source = PRELUDE + textwrap.dedent(program)
        command = [sys.executable, "-W", "ignore", "-c", source, str(tmp_path)]
        finished = subprocess.run(command, timeout=60, capture_output=True, text=True)
        assert finished.stderr == ""
        return finished.returncode

    return run


def numbers(reader):
    """Return the numbers of all events that the reader has not read yet, by process."""
    found = defaultdict(list)
    reader.read(lambda event: found[event["pid"]].append(event["number"]))
    return sorted(found.values())


def test_events_arrive_in_their_order_and_once(writes, reader):
    """What a process emits is read in its order, and not again."""
    writes("for number in range(1000): emit(number)")
    assert numbers(reader) == [list(range(1000))]
    assert numbers(reader) == []
    assert reader.lost == 0


def test_who_never_stops_writing_is_not_waited_for(tmp_path, reader):
    """A reader reads what there is when it is asked to, and the rest the next time."""
    writer = wire.Writer(tmp_path)
    fed = []

    def feed(event):
        fed.append(event["number"])
        assert len(fed) < 1000, "it reads what was not there when it was asked"
        writer.emit({"event": "test", "number": len(fed)})

    writer.emit({"event": "test", "number": 0})
    assert [reader.read(feed), reader.read(feed)] == [1, 1]
    assert fed == [0, 1]


@pytest.mark.parametrize("end", ["os._exit(0)", "os.kill(os.getpid(), signal.SIGKILL)"])
def test_events_of_a_process_that_leaves_at_once_arrive(writes, reader, end):
    """However a process ends, what it has emitted is there."""
    writes(f"emit(1); {end}")
    assert numbers(reader) == [[1]]


def test_forked_processes_have_files_of_their_own(writes, reader):
    """A fork goes on emitting, as does its parent, and neither waits for the other."""
    writes(
        """
        emit(1)
        child = os.fork()
        if not child:
            emit(2)
            os._exit(0)
        emit(3)
        os.waitpid(child, 0)
        """
    )
    assert numbers(reader) == [[1, 3], [2]]


def test_a_fork_can_emit_where_another_thread_was_emitting(writes, reader):
    """A fork in the middle of another thread's event does not keep the child from emitting."""
    status = writes(
        """
        def forever():
            while True:
                emit(0)
        threading.Thread(target=forever, daemon=True).start()
        for number in range(1, 101):
            child = os.fork()
            if not child:
                emit(number)
                os._exit(0)
            assert os.waitpid(child, 0)[1] == 0
        os._exit(0)
        """
    )
    assert status == 0
    assert [each for each in numbers(reader) if each[0]] == [[n] for n in range(1, 101)]


def test_events_of_many_threads_are_whole(writes, reader):
    """Threads that emit at the same time do not write into one another's events."""
    writes(
        """
        wire.SEGMENT = 100_000
        def many(first):
            for number in range(first, first + 500):
                emit(number, words="x" * (number % 700))
        threads = [threading.Thread(target=many, args=(n * 500,)) for n in range(8)]
        for thread in threads: thread.start()
        for thread in threads: thread.join()
        """
    )
    (found,) = numbers(reader)
    assert sorted(found) == list(range(4000))
    assert reader.lost == 0


def test_an_event_can_be_caused_while_one_is_emitted(writes, reader):
    """A signal handler that comes in the middle of an event can emit one too."""
    status = writes(
        """
        signal.signal(signal.SIGALRM, lambda *_: emit(-1))
        signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
        for number in range(20_000): emit(number)
        signal.setitimer(signal.ITIMER_REAL, 0)
        """
    )
    (found,) = numbers(reader)
    assert status == 0
    assert -1 in found
    assert [number for number in found if number >= 0] == list(range(20_000))


def test_files_that_were_read_are_removed(writes, reader, tmp_path):
    """Of what was read, each process keeps the file that it may still be writing."""
    writes("wire.SEGMENT = 1000\nfor number in range(500): emit(number)")
    assert len(list(tmp_path.iterdir())) > 10
    assert numbers(reader) == [list(range(500))]
    assert len(list(tmp_path.iterdir())) == 1


def test_what_nobody_reads_does_not_fill_the_disk(writes, reader, tmp_path):
    """Beyond a number of files that nobody has read, events are dropped and counted."""
    writes(
        """
        wire.SEGMENT, wire.BACKLOG, wire._RETRY = 1000, 5, 10
        for number in range(1000): emit(number)
        reader, found = wire.Reader(__import__("pathlib").Path(sys.argv[1])), []
        reader.read(lambda event: found.append(event["number"]))
        assert 50 < len(found) < 150, len(found)
        assert found == list(range(len(found)))
        for number in range(1000, 1020): emit(number)
        """
    )
    assert len(list(tmp_path.iterdir())) <= 5
    (found,) = numbers(reader)
    assert found[-1] == 1019
    assert reader.lost > 800


def test_a_program_that_closes_our_file_gets_nothing_of_ours(writes, reader, tmp_path):
    """Where the program has closed every file, its next one is not written to by us."""
    status = writes(
        """
        emit(1)
        os.closerange(3, 100)
        read, write = os.pipe()
        own = open(sys.argv[1] + "/own", "w+")
        emit(2)
        os.set_blocking(read, False)
        try:
            assert not os.read(read, 1)
        except BlockingIOError:
            pass
        assert not own.read()
        """
    )
    assert status == 0
    assert numbers(reader) == [[1, 2]]
    assert (tmp_path / "own").read_text() == ""


def test_a_program_outlives_the_command(writes, reader):
    """Where the directory is gone, emitting does nothing."""
    status = writes(
        """
        import shutil
        wire.SEGMENT = 1000
        emit(1)
        shutil.rmtree(sys.argv[1])
        for number in range(100): emit(number)
        """
    )
    assert status == 0


def test_an_event_that_was_cut_off_is_counted(reader, tmp_path):
    """A line that was not written to its end is none, and does not hurt those of others."""
    (tmp_path / "1-a.000000.jsonl").write_bytes(b'{"event": "test", "pi\n')
    (tmp_path / "2-b.000000.jsonl").write_bytes(b'{"pid": 2, "number": 1}\n{"pid": 2')
    assert numbers(reader) == [[1]]
    assert reader.lost == 1


def test_values_that_are_no_json_are_written_as_words(writes, reader):
    """Values that JSON does not have arrive as their names."""
    writes("emit([float('nan'), float('-inf'), {1, 2}, '\\ud800'])")
    assert numbers(reader) == [[["NaN", "-Infinity", "{1, 2}", "\ud800"]]]
