"""loky's executors, and joblib over each of its backends."""

from __future__ import annotations

import joblib
import joblib.externals.loky.process_executor
import loky.process_executor
import pytest
from joblib import Parallel, delayed
from suite import (
    WAIT,
    Calls,
    check_processes,
    check_processes_off,
    check_processes_under_link,
    check_undo,
    spans_of,
)

WAYS = {
    "reusable": """
import loky
def hand_off(function):
    return loky.get_reusable_executor(1).submit(function).result(timeout=60)
def close():
    loky.get_reusable_executor(1).shutdown()
""",
    "executor": """
import loky
pool = loky.ProcessPoolExecutor(1)
def hand_off(function):
    return pool.submit(function).result(timeout=60)
def close():
    pool.shutdown()
""",
    "executor, map": """
import loky
pool = loky.ProcessPoolExecutor(1)
def hand_off(function):
    (result,) = pool.map(function, [1])
    return result
def close():
    pool.shutdown()
""",
    "joblib": """
from joblib import Parallel, delayed
from joblib.externals.loky import get_reusable_executor
def hand_off(function):
    return Parallel(2)([delayed(function)()])[0]
def close():
    get_reusable_executor().shutdown()
""",
    "joblib, multiprocessing": """
from joblib import Parallel, delayed
parallel = Parallel(2, backend="multiprocessing").__enter__()
def hand_off(function):
    return parallel([delayed(function)()])[0]
def close():
    parallel.__exit__(None, None, None)
""",
}
every_way = pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)


@pytest.mark.decisive
@every_way
def test_it_carries(way, tmp_path, monkeypatch):
    """Parent and baggage cross, nothing is left to the next task, and workers' spans arrive."""
    check_processes(way, tmp_path, monkeypatch)


@every_way
def test_under_link(way, tmp_path, monkeypatch):
    """Work in a process is a trace of its own, linked to its origin."""
    check_processes_under_link(way, tmp_path, monkeypatch)


@every_way
def test_switched_off(way, tmp_path, monkeypatch):
    """Nothing crosses where the adapter is left out, or the primitive."""
    check_processes_off(way, tmp_path, monkeypatch)


def test_all_items_of_a_joblib_call_are_children(tmp_path, monkeypatch):
    """Also those that are dispatched when others are done, by whatever thread."""
    program = """
if __name__ == "__main__":
    switch_on()
    from joblib import Parallel, delayed
    with tracer.start_as_current_span("origin"):
        done = Parallel(2, batch_size=1, pre_dispatch=2)(delayed(work)() for _ in range(12))
    from joblib.externals.loky import get_reusable_executor
    get_reusable_executor().shutdown()
    print(len({parent for parent, *_ in done}))
"""
    printed, spans = spans_of(program, tmp_path, monkeypatch)
    assert printed == "1\n"
    (origin,) = (me for name, me, *_ in spans if name == "origin")
    assert [parent for name, _, parent, *_ in spans if name == "work"] == [origin] * 12


class TestThreads(Calls):
    """joblib's threads need no adapter: they are a `ThreadPool` of the standard library."""

    setting = "multiprocessing"
    needs_adapter = False

    @pytest.fixture(autouse=True)
    def worker(self):
        with Parallel(2, backend="threading", timeout=WAIT) as self.parallel:
            yield

    def hand_off(self, work):
        return self.parallel([delayed(work)()])[0]


def test_undo_is_exact():
    """Every attribute that was replaced is what it was, by identity."""
    check_undo(
        joblib._utils._TracebackCapturingWrapper,
        *(
            getattr(module, name)
            for module in (
                loky.process_executor,
                joblib.externals.loky.process_executor,
            )
            for name in ("_WorkItem", "_CallItem")
        ),
    )
