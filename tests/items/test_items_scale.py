"""A million items through one queue, and what it costs while they wait.

The race of the stock ``Queue`` is run in full. For the other classes it is shorter, unless
``ITEMS_AT_SCALE`` sets the number of items for all of them.
"""

from __future__ import annotations

import asyncio
import contextvars
import gc
import os
import queue
import threading

import pytest
from opentelemetry import trace
from opentelemetry.context import Context, get_current

from interpreters import measures_memory

ITEMS = {"Queue": 1_000_000, "LifoQueue": 100_000, "PriorityQueue": 100_000, "SimpleQueue": 100_000}
if "ITEMS_AT_SCALE" in os.environ:
    ITEMS = dict.fromkeys(ITEMS, int(os.environ["ITEMS_AT_SCALE"]))
PRODUCERS = CONSUMERS = 8
ITEMS_OF_A_SPAN = 100
SAMPLE = 500

WAITING = 10_000
"""So many that the few kB which stay of any number (what was taken last is noted, and a ``deque``
keeps 16 empty blocks) are less than :data:`LEFT` for each."""
LEFT = 4
"""Half of the bytes of a reference."""
BYTES = 100
"""How much more a waiting item may take than without the library."""


def living_contexts():
    """Return how many contexts there are."""
    gc.collect()
    return sum(isinstance(one, Context) for one in gc.get_objects())


@pytest.mark.scale
@pytest.mark.parametrize(("kind", "total"), ITEMS.items(), ids=ITEMS)
@pytest.mark.timeout(600)
def test_every_item_of_many_has_its_own_producer(kind, total, instrumented, tracer, exporter):
    """16 threads race on one queue; each item, one of many equal ones, brings its own span."""
    before = living_contexts()
    bounds = {} if kind == "SimpleQueue" else {"maxsize": 1000}
    items = getattr(queue, kind)(**bounds)
    got, wrong = [], []

    def produce(number):
        while number:
            # An item is the id of its producer's span: the very same object, many times over.
            with tracer.start_as_current_span("producer") as span:
                item = span.get_span_context().span_id
                for _ in range(min(number, ITEMS_OF_A_SPAN)):
                    items.put(item)
                    number -= 1

    def consume():
        number = 0
        while item := items.get():
            number += 1
            current = trace.get_current_span().get_span_context().span_id
            if current != item:
                wrong.append((item, current))
            if number % SAMPLE < 2:  # the first is a span for all items since the last one
                name = "work" if number % SAMPLE else "batch"
                with tracer.start_as_current_span(name, attributes={"producer": str(item)}):
                    pass
        got.append((number, dict(get_current())))

    producers = [
        threading.Thread(target=produce, args=(total // PRODUCERS,)) for _ in range(PRODUCERS)
    ]
    consumers = [threading.Thread(target=consume) for _ in range(CONSUMERS)]
    for thread in (*producers, *consumers):
        thread.start()
    for thread in producers:
        thread.join()
    while kind != "Queue" and items.qsize():  # the end must not come before the last item
        threading.Event().wait(0.001)
    for _ in consumers:
        items.put(0)
    for thread in consumers:
        thread.join()

    assert sum(number for number, _ in got) == total // PRODUCERS * PRODUCERS
    assert wrong == []
    assert [left for _, left in got if left] == []
    sampled = [span for span in exporter.get_finished_spans() if span.name == "work"]
    assert len(sampled) > total // SAMPLE // 2
    assert {str(span.parent.span_id) == span.attributes["producer"] for span in sampled} == {True}
    del producers, consumers, thread
    assert living_contexts() <= before


def bytes_of_waiting_items(make, tracer):
    """Return (bytes of an item while it waits, bytes that are left of it when all are drained)."""
    import tracemalloc

    items = [object.__new__(Item) for _ in range(WAITING)]
    waiting = make()
    with tracer.start_as_current_span("warm up"):
        waiting.put_nowait(items[0])
    waiting.get_nowait()
    with tracer.start_as_current_span("producer"):
        gc.collect()
        tracemalloc.start()
        try:
            before = tracemalloc.get_traced_memory()[0]
            for item in items:
                waiting.put_nowait(item)
            full = tracemalloc.get_traced_memory()[0]
            for _ in items:
                waiting.get_nowait()
            gc.collect()
            drained = tracemalloc.get_traced_memory()[0]
        finally:
            tracemalloc.stop()
    return (full - before) / WAITING, (drained - before) / WAITING


class Item:
    """An item that sorts, first in, first out."""

    __slots__ = ()

    def __lt__(self, other):
        return False


QUEUES = {
    "queue.Queue": lambda: queue.Queue(),
    "queue.LifoQueue": lambda: queue.LifoQueue(),
    "queue.PriorityQueue": lambda: queue.PriorityQueue(),
    "queue.SimpleQueue": lambda: queue.SimpleQueue(),
    "asyncio.Queue": lambda: asyncio.Queue(),
    "asyncio.LifoQueue": lambda: asyncio.LifoQueue(),
    "asyncio.PriorityQueue": lambda: asyncio.PriorityQueue(),
}


@measures_memory
@pytest.mark.parametrize("make", QUEUES.values(), ids=QUEUES)
def test_a_waiting_item_takes_little_more_than_without(make, instrumented, tracer):
    """At most 100 bytes, of which nothing is left when the queue has been drained."""
    measure = contextvars.Context().run
    with_context, left = measure(bytes_of_waiting_items, make, tracer)
    instrumented.uninstrument()
    plain, plainly_left = measure(bytes_of_waiting_items, make, tracer)

    assert 0 < with_context - plain <= BYTES
    assert left - plainly_left < LEFT
