"""multiprocess: its processes, pools and queues; and pathos' pools, which are made of these."""

from __future__ import annotations

import multiprocess.managers
import multiprocess.pool
import multiprocess.process
import multiprocess.queues
import pytest
from pathos.pools import ThreadPool
from suite import (
    WAIT,
    Calls,
    check_processes,
    check_processes_off,
    check_processes_under_link,
    check_undo,
    spans_of,
)

PROCESS = """
import multiprocess
from opentelemetry import baggage, context
ways = multiprocess.get_context("{method}")
def put(queue, function):
    queue.put(function())
def hand_off(function):
    queue = ways.SimpleQueue()
    process = ways.Process(target=put, args=(queue, function))
    process.start()
    process.join(60)
    return queue.get()
def close():
    pass
"""
POOL = """
import multiprocess
from opentelemetry import baggage, context
token = context.attach(baggage.set_baggage("maker", "of the pool"))
pool = multiprocess.get_context("{method}").Pool(1)
context.detach(token)
def hand_off(function):
    {call}
def close():
    pool.close()
    pool.join()
"""
APPLY = "return pool.apply_async(lambda: function()).get(60)"
MAP = "return pool.map(function, [1])[0]"
PATHOS = """
from pathos.pools import ProcessPool
pool = ProcessPool(1)
def hand_off(function):
    return pool.{call}(function, [1])
def close():
    pool.close()
    pool.join()
    pool.clear()
"""
WAYS = {
    "process, fork": PROCESS.format(method="fork"),
    "process, spawn": PROCESS.format(method="spawn"),
    "pool, fork": POOL.format(method="fork", call=APPLY),
    "pool, spawn": POOL.format(method="spawn", call=MAP),
    "pathos, map": PATHOS.format(call="map").replace("[1])", "[1])[0]"),
    "pathos, pipe": PATHOS.format(call="pipe"),
}


@pytest.mark.decisive
@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_it_carries(way, tmp_path, monkeypatch):
    """Parent and baggage cross, nothing is left to the next task, and workers' spans arrive."""
    check_processes(way, tmp_path, monkeypatch)


@pytest.mark.parametrize("way", ["process, spawn", "pool, fork"])
def test_under_link(way, tmp_path, monkeypatch):
    """Work in a process is a trace of its own, linked to its origin."""
    check_processes_under_link(WAYS[way], tmp_path, monkeypatch)


@pytest.mark.parametrize("way", ["process, spawn", "pool, spawn"])
def test_switched_off(way, tmp_path, monkeypatch):
    """Nothing crosses where the adapter is left out, or the primitive."""
    check_processes_off(WAYS[way], tmp_path, monkeypatch)


class TestThreads(Calls):
    setting = "multiprocessing"

    @pytest.fixture(autouse=True)
    def worker(self):
        self.pool = multiprocess.pool.ThreadPool(1)
        yield
        self.pool.close()
        self.pool.join()

    def hand_off(self, work):
        return self.pool.apply_async(work).get(WAIT)


class TestThreadsOfPathos(TestThreads):
    @pytest.fixture(autouse=True)
    def worker(self):
        self.pool = ThreadPool(1)
        yield
        self.pool.close()
        self.pool.join()
        self.pool.clear()

    def hand_off(self, work):
        return self.pool.apipe(work).get(WAIT)


QUEUES = """
import multiprocess

def consume(there, back):
    while (item := there.get()) is not None:
        back.put((item, work()[:2]))
        if hasattr(there, "task_done"):
            there.task_done()
    assert not context.get_current(), context.get_current()

if __name__ == "__main__":
    switch_on()
    for kind in ("Queue", "JoinableQueue", "SimpleQueue"):
        make = getattr(multiprocess, kind)
        there, back = make(), make()
        with tracer.start_as_current_span("starts it"):
            process = multiprocess.Process(target=consume, args=(there, back))
            process.start()
        for tenant in ("acme", "umbrella"):
            token = context.attach(baggage.set_baggage("tenant", tenant))
            with tracer.start_as_current_span("origin") as span:
                there.put("item")
                result = back.get()
            context.detach(token)
            assert result == ("item", [span.get_span_context().span_id, tenant]), result
        there.put("item")
        assert back.get() == ("item", [0, None])
        there.put(None)
        process.join(60)
        assert process.exitcode == 0
    print("carried")
"""


def test_items_of_queues(tmp_path, monkeypatch):
    """They are handled in the context in which they were put, in another process."""
    printed, spans = spans_of(QUEUES, tmp_path, monkeypatch)
    assert printed == "carried\n"
    assert sorted(name for name, *_ in spans).count("work") == 6


FIRST = """
{first}
from opentelemetry import context, baggage
def work():
    return baggage.get_baggage("key")
if __name__ == "__main__":
    with multiprocess.Pool(1) as pool:
        context.attach(baggage.set_baggage("key", "carried"))
        print(pool.apply(work))
"""
SWITCH_ON = "from suite_work import *\nif __name__ == '__main__':\n    switch_on()"
ORDERS = [f"import multiprocess.pool\n{SWITCH_ON}", f"{SWITCH_ON}\nimport multiprocess.pool"]


@pytest.mark.parametrize("first", ORDERS, ids=["imported first", "instrumented first"])
def test_it_does_not_matter_which_is_first(first, tmp_path, monkeypatch):
    """Imported before the library is switched on, or after it."""
    assert spans_of(FIRST.format(first=first), tmp_path, monkeypatch)[0] == "carried\n"


def test_undo_is_exact():
    """Every attribute that was replaced is what it was, by identity."""
    check_undo(
        multiprocess.managers.Server,
        multiprocess.pool,
        multiprocess.pool.Pool,
        multiprocess.process.BaseProcess,
        multiprocess.queues,
        multiprocess.queues.Queue,
    )
