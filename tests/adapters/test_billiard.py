"""billiard: its processes, and its pools, which celery's are derived from."""

from __future__ import annotations

import billiard.pool
import billiard.process
import pytest
from suite import (
    check_processes,
    check_processes_off,
    check_processes_under_link,
    check_undo,
    spans_of,
)

PROCESS = """
import billiard
from opentelemetry import baggage, context
ways = billiard.get_context("{method}")
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
import billiard
from opentelemetry import baggage, context
token = context.attach(baggage.set_baggage("maker", "of the pool"))
pool = billiard.get_context("{method}").Pool(1)
context.detach(token)
def hand_off(function):
    {call}
def close():
    pool.{end}()
    pool.join()
"""
WAYS = {
    "process, fork": PROCESS.format(method="fork"),
    "process, spawn": PROCESS.format(method="spawn"),
    "pool, fork": POOL.format(
        method="fork", call="return pool.apply_async(function).get(60)", end="close"
    ),
    "pool, map, terminated": POOL.format(
        method="fork", call="return pool.map(function, [1])[0]", end="terminate"
    ),
    "pool, spawn": POOL.format(
        method="spawn", call="return next(pool.imap(function, [1]))", end="close"
    ),
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


def test_switched_off(tmp_path, monkeypatch):
    """Nothing crosses where the adapter is left out, or the primitive."""
    check_processes_off(WAYS["pool, spawn"], tmp_path, monkeypatch)


MANY = """
import billiard
seen = []
def note(result):
    seen.append(baggage.get_baggage("tenant"))
def fail():
    raise ValueError("the work's")

if __name__ == "__main__":
    switch_on()
    with tracer.start_as_current_span("makes the pool"):
        pool = billiard.Pool(2)
    context.attach(baggage.set_baggage("tenant", "acme"))
    with tracer.start_as_current_span("origin"):
        done = pool.map(work, range(12), chunksize=3)
        done += pool.starmap(work, [(1, 2)] * 4, chunksize=2)
        done += pool.imap_unordered(work, range(4), chunksize=2)
        pool.apply_async(work, callback=note).get(60)
        try:
            pool.apply(fail)
        except ValueError as error:
            print(error)
    pool.close()
    pool.join()
    print(len(done), {tenant for _, tenant, _ in done}, seen)
"""


def test_all_items_are_children_and_callbacks_have_their_context(tmp_path, monkeypatch):
    """In chunks, too; exceptions are the work's; a pool that is made in a span is nobody's."""
    printed, spans = spans_of(MANY, tmp_path, monkeypatch)
    assert printed.splitlines() == ["the work's", "20 {'acme'} ['acme']"]
    (origin,) = (me for name, me, *_ in spans if name == "origin")
    assert [parent for name, _, parent, *_ in spans if name == "work"] == [origin] * 21


FIRST = """
{first}
from opentelemetry import context, baggage
def work():
    return baggage.get_baggage("key")
if __name__ == "__main__":
    pool = billiard.Pool(1)
    context.attach(baggage.set_baggage("key", "carried"))
    print(pool.apply(work))
    pool.close()
    pool.join()
"""
SWITCH_ON = "from suite_work import *\nif __name__ == '__main__':\n    switch_on()"
ORDERS = [f"import billiard.pool\n{SWITCH_ON}", f"{SWITCH_ON}\nimport billiard.pool"]


@pytest.mark.parametrize("first", ORDERS, ids=["imported first", "instrumented first"])
def test_it_does_not_matter_which_is_first(first, tmp_path, monkeypatch):
    """Imported before the library is switched on, or after it."""
    assert spans_of(FIRST.format(first=first), tmp_path, monkeypatch)[0] == "carried\n"


def test_undo_is_exact():
    """Every attribute that was replaced is what it was, by identity."""
    check_undo(billiard.pool.Pool, billiard.pool.Worker, billiard.process.BaseProcess)
