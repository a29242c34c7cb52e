"""Watching one process alone, from some moment of its life to another."""

from __future__ import annotations

import _thread
import contextlib
import contextvars
import functools
import gc
import multiprocessing.queues
import os
import pickle
import queue
import sys
import threading
import types
import weakref
from multiprocessing import reduction

import pytest
from opentelemetry import context as context_api

from otel_concurrency._observer import flows, item_hooks, live, observer, state, wire

WAIT = 60

posix = pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")


@pytest.fixture
def events():
    """Watch this process alone, and return what is seen."""
    seen = []
    observer.start_alone(seen.append, library=False)
    yield seen
    observer.stop()


def hand_offs(events):
    """Return the calls that handed work off."""
    return [each["hand_off"]["call"] for each in events if each["event"] == "hand_off"]


def double(number):
    """Work that can be pickled."""
    return 2 * number


def test_what_is_patched_is_put_back():
    """No patch and no import hook stays, by identity."""
    finders, start, simple = list(sys.meta_path), vars(threading.Thread)["start"], queue.SimpleQueue
    observer.start_alone(lambda _: None, library=False)
    assert vars(threading.Thread)["start"] is not start
    observer.stop()
    assert vars(threading.Thread)["start"] is start
    assert queue.SimpleQueue is simple
    assert len(sys.meta_path) == len(finders)
    assert all(map(lambda one, other: one is other, sys.meta_path, finders))


def test_a_module_that_is_imported_meanwhile(events, monkeypatch):
    """It is watched from the next look on."""
    module = types.ModuleType("sched")

    class scheduler:
        def enterabs(self, time, priority, action, argument=(), kwargs=None):
            return action

    module.scheduler = scheduler
    plain = vars(scheduler)["enterabs"]
    observer.stop()
    observer._layers.pop("sched", None)
    monkeypatch.delitem(sys.modules, "sched", raising=False)
    observer.start_alone(events.append, library=False)
    monkeypatch.setitem(sys.modules, "sched", module)
    observer.look_again()
    try:
        assert vars(scheduler)["enterabs"] is not plain
        observer.stop()
        assert vars(scheduler)["enterabs"] is plain
    finally:
        observer._layers.pop("sched", None)


@pytest.mark.skipif(
    sys.implementation.name != "cpython", reason="on PyPy gevent has no classes in C"
)
def test_a_class_in_c_in_the_place_of_one_in_python(monkeypatch):
    """It cannot be patched, as gevent's; the rest of its module is watched all the same."""
    monkeypatch.delitem(observer._layers, "threading", raising=False)
    monkeypatch.setattr(threading, "Event", int)
    start = vars(threading.Thread)["start"]
    observer.start_alone(lambda _: None, library=False)
    try:
        assert vars(threading.Thread)["start"] is not start
    finally:
        observer.stop()
        observer._layers.pop("threading")


def test_work_for_other_processes_takes_nothing_along(events):
    """What is pickled there needs no module of this library; the hand-off is seen all the same."""
    record = flows.hand_off("multiprocessing", "Pool.apply_async", double)
    sent = pickle.loads(pickle.dumps(flows.observed(double, record)))
    assert type(sent) is functools.partial
    assert sent(2) == 4
    assert hand_offs(events) == ["Pool.apply_async"]


@posix
def test_an_item_for_another_process_is_the_programs_own(events):
    """The bytes that are sent are those of the item alone."""
    items = multiprocessing.get_context("fork").SimpleQueue()
    items.put([1])
    received = items._reader.recv_bytes()
    items.close()
    assert received == bytes(reduction.ForkingPickler.dumps([1]))
    assert hand_offs(events) == ["multiprocessing.SimpleQueue.put"]


def test_no_item_and_no_context_is_kept_afterwards(events):
    """What waits in a queue, or is attached, when watching ends, only the program keeps alive."""

    class Item:
        pass

    items, item = queue.Queue(), Item()
    items.put(item)
    gone = weakref.ref(item)
    value = weakref.ref(attached := Item())
    record = flows.hand_off("threading", "Thread.start", always=True)
    flow = flows.begin(record)
    token = context_api.attach(context_api.set_value("key", attached))
    assert flow.attached
    observer.stop()
    context_api.detach(token)
    del item, token, attached
    items.get()
    gc.collect()
    assert (gone(), value(), item_hooks._queues) == (None, None, {})


def test_a_flow_ends_with_the_watching_in_which_it_began(events):
    """What its thread did until it was watched again is unknown, and none of its work."""
    flow = flows.begin(flows.hand_off("queue", "Queue.put", always=True), source=object())
    assert flows.current() is flow
    for change in (observer.stop, lambda: observer.start_alone(events.append, library=False)):
        other = threading.Thread(target=change)  # as in a process that is looked into
        other.start()
        other.join()
    assert flows.current() is None


def test_an_item_that_is_put_while_watching_ends(events, monkeypatch):
    """It is not kept alive."""
    items = queue.Queue()
    records_of = item_hooks.records_of

    def ending(owner):
        monkeypatch.undo()
        observer.stop()
        return records_of(owner)

    monkeypatch.setattr(item_hooks, "records_of", ending)
    items.put([1])
    assert (item_hooks._queues, items.get()) == ({}, [1])


@posix
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_process_is_not_watched(tmp_path):
    """It has no patch, and neither writes to a file nor has one open."""
    start = vars(threading.Thread)["start"]
    writer = wire.Writer(tmp_path, follow_forks=False)
    (file,) = tmp_path.iterdir()
    observer.start_alone(writer.emit, library=False)
    pid = os.fork()
    if pid == 0:
        is_open = writer._file is not None
        is_watched = state.emit is not None or vars(threading.Thread)["start"] is not start
        os._exit(is_open or is_watched)
    observer.stop()
    writer.close()
    assert os.waitpid(pid, 0)[1] == 0
    assert list(tmp_path.iterdir()) == [file]


def test_a_closed_writer_writes_no_more(tmp_path):
    """Its file is closed, and an event that comes late is dropped."""
    writer = wire.Writer(tmp_path)
    writer.emit({"event": "first"})
    descriptor = writer._file
    writer.close()
    writer.emit({"event": "second"})
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)
    (file,) = tmp_path.iterdir()
    assert file.read_text() == '{"event":"first"}\n'


def test_events_wait_to_be_written(monkeypatch):
    """They are written in their order, with a rest now and then; what had no room is counted."""
    monkeypatch.setattr(live, "_MOST", 40)
    written, rests = [], []
    waiting = live._Waiting(written.append)
    for number in range(42):
        waiting.keep({"event": "test", "number": number})
    assert written == []
    waiting.write(lambda: rests.append(len(written)))
    assert [each.get("number") for each in written] == [*range(40), None]
    assert (written[-1]["event"], written[-1]["count"]) == (wire.LOST, 2)
    assert rests == [16, 32]


@posix
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_child_that_is_forked_during_a_look_is_watched_by_nobody(tmp_path, monkeypatch):
    """It keeps no event of its parent, and can be looked into itself."""

    class Waiting(live._Waiting):
        def __init__(self, emit):
            super().__init__(emit)
            made.append(self)

        def write(self, rest=None):
            pass

    def look(name):
        directory = tmp_path / name
        directory.mkdir()
        (directory / live.REQUEST).write_text('{"what": "trace", "seconds": 60}')
        live.look(str(directory), _thread)
        return (directory / live.ANSWER).read_text()

    def is_waited_for(_):
        if not begun.is_set():  # in the child its lock may be held for ever
            begun.set()
        return not over

    made, begun, over = [], threading.Event(), []
    monkeypatch.setattr(live, "_Waiting", Waiting)
    monkeypatch.setattr(live, "_is_waited_for", is_waited_for)
    thread = threading.Thread(target=look, args=("parent",))
    thread.start()
    try:
        assert begun.wait(WAIT)
        assert made[0]._events
        pid = os.fork()
        if pid == 0:
            result = 1
            with contextlib.suppress(BaseException):
                over.append(True)
                is_empty = not made[0]._events
                result = 0 if is_empty and look("child") == '{"trace": {"library": false}}' else 2
            os._exit(result)
        _, status = os.waitpid(pid, 0)
    finally:
        over.append(True)
        thread.join(WAIT)
    assert os.waitstatus_to_exitcode(status) == 0


@pytest.mark.skipif(
    sys.implementation.name != "cpython", reason="only CPython runs scripts of other processes"
)
def test_the_script_leaves_the_context_alone_that_it_runs_in(tmp_path):
    """Its thread starts in an empty context, and sets nothing in that of the main thread."""
    (tmp_path / live.REQUEST).write_text('{"what": "trace", "seconds": 0.01}')
    variable = contextvars.ContextVar("of_the_program", default=None)
    context = contextvars.Context()
    context.run(variable.set, "here")
    context.run(exec, live.script(tmp_path), {})
    answer = tmp_path / live.ANSWER
    for _ in range(6000):
        if answer.exists():
            break
        threading.Event().wait(0.01)
    assert answer.read_text() == '{"trace": {"library": false}}'
    assert list(context.items()) == [(variable, "here")]
