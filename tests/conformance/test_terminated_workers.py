"""Workers export what they have recorded before ``terminate_workers()`` ends them (3.14)."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
import threading
from concurrent.futures import Future, ProcessPoolExecutor

import pool_work
import pytest
from item_forms import eventually

from otel_concurrency import ConcurrencyInstrumentor

PATIENCE = 60
METHODS = pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])


def opened(method, path, workers=2, pause=0.0):
    """Return an executor whose workers export what they record when they are flushed."""
    context = multiprocessing.get_context(method)
    return ProcessPoolExecutor(
        workers, context, initializer=pool_work.export_to, initargs=(path, pause)
    )


def lines(path):
    """Return the lines of a file, sorted; none if it is not there."""
    return sorted(path.read_text(encoding="utf-8").split("\n")[:-1]) if path.exists() else []


def workers_of(executor):
    """Return the processes of an executor, which forgets them."""
    return list(executor._processes.values())


def exit_codes(workers):
    """Wait for the workers' ends; return how each ended.

    The executor's own thread waits for them, too: where it has been told first, `join()` of ours
    returns before the exit code is there.
    """
    assert eventually(lambda: all(worker.exitcode is not None for worker in workers))
    return [worker.exitcode for worker in workers]


@METHODS
def test_idle_workers_leave_by_themselves_and_export_what_they_have(method, instrumented, tmp_path):
    """As with `shutdown`; the executor takes no work any more, and can be shut down again."""
    path = tmp_path / "spans"
    with opened(method, path) as executor:
        list(executor.map(pool_work.record, range(10)))
        workers = workers_of(executor)
        executor.terminate_workers()
        with pytest.raises(RuntimeError):
            executor.submit(pool_work.pid)
        executor.terminate_workers()
    assert set(exit_codes(workers)) == {0}
    assert lines(path) == sorted(f"work {number}" for number in range(10))


def test_an_executor_that_was_never_used_is_terminated(instrumented, tmp_path):
    """It has no workers."""
    opened("fork", tmp_path / "spans").terminate_workers()


def test_outstanding_work_is_terminated_as_before(tmp_path):
    """It is not waited for, however long it might be."""
    instrumentor = ConcurrencyInstrumentor()
    instrumentor.instrument(flush_timeout=600_000)
    try:
        started = tmp_path / "started"
        executor = opened("fork", tmp_path / "spans", workers=1)
        executor.submit(pool_work.record_and_wait, started, 1)
        assert eventually(started.exists)
        workers = workers_of(executor)
        terminating = threading.Thread(target=executor.terminate_workers, daemon=True)
        terminating.start()
        terminating.join(PATIENCE)
        assert not terminating.is_alive()
        assert exit_codes(workers) == [-signal.SIGTERM]
    finally:
        instrumentor.uninstrument()


def test_an_exporter_that_hangs_is_terminated_with_its_worker(tmp_path):
    """The setting bounds how long workers are waited for."""
    instrumentor = ConcurrencyInstrumentor()
    instrumentor.instrument(flush_timeout=200)
    try:
        path = tmp_path / "spans"
        executor = opened("fork", path, pause=600.0)
        list(executor.map(pool_work.record, range(4)))
        workers = workers_of(executor)
        executor.terminate_workers()
        ends = exit_codes(workers)
        assert -signal.SIGTERM in ends  # one that has done no work leaves by itself
        assert set(ends) <= {0, -signal.SIGTERM}
        assert lines(path) == []
    finally:
        instrumentor.uninstrument()


def test_a_callback_may_terminate_the_workers(instrumented, tmp_path):
    """It is called on the executor's own thread, which cannot wait for itself."""
    terminated = Future()
    executor = opened("fork", tmp_path / "spans", workers=1)
    workers = []

    def terminate(_):
        workers.extend(workers_of(executor))
        terminated.set_result(executor.terminate_workers())

    executor.submit(os.getpid).add_done_callback(terminate)
    assert terminated.result(PATIENCE) is None
    for worker in workers:
        worker.join(PATIENCE)
    executor.shutdown()


class Counting(ProcessPoolExecutor):
    """An executor that counts how often it is shut down."""

    times = 0

    def shutdown(self, *args, **kwargs):
        self.times += 1
        super().shutdown(*args, **kwargs)


def test_a_shutdown_that_a_subclass_overrides_is_called_as_before(instrumented):
    """Once, by the standard library."""
    executor = Counting(1, multiprocessing.get_context("fork"))
    executor.submit(os.getpid).result(PATIENCE)
    executor.terminate_workers()
    assert executor.times == 1


def test_without_anything_to_export_workers_are_terminated_as_before(tmp_path):
    """Where the setting says that children are not flushed, and where the library is off."""
    instrumentor = ConcurrencyInstrumentor()
    instrumentor.instrument(flush_timeout=0)
    try:
        executor = opened("fork", tmp_path / "spans")
        list(executor.map(pool_work.record, range(4)))
        executor.terminate_workers()
    finally:
        instrumentor.uninstrument()
    assert lines(tmp_path / "spans") == []


def test_a_program_that_terminates_its_workers_ends(tmp_path):
    """Nothing is printed, and no span is lost."""
    program = f"""
        import multiprocessing, sys
        from concurrent.futures import ProcessPoolExecutor
        sys.path.insert(0, {os.path.dirname(pool_work.__file__)!r})
        import pool_work
        from otel_concurrency import ConcurrencyInstrumentor

        ConcurrencyInstrumentor().instrument()
        executor = ProcessPoolExecutor(
            2,
            multiprocessing.get_context("fork"),
            initializer=pool_work.export_to,
            initargs=(sys.argv[1],),
        )
        list(executor.map(pool_work.record, range(4)))
        executor.terminate_workers()
    """
    path = tmp_path / "spans"
    ended = subprocess.run(
        [sys.executable, "-Wignore", "-c", textwrap.dedent(program), path],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    assert lines(path) == [f"work {number}" for number in range(4)]
