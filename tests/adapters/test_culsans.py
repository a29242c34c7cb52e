"""culsans: items of either side, got on either side."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref

import culsans
import pytest
from opentelemetry import context, trace
from opentelemetry.context import Context
from suite import IN_BOTH_ORDERS, WAIT, Items, check_undo, run_program

KINDS = ("Queue", "LifoQueue", "PriorityQueue")


class TestSync(Items):
    kind = "Queue"

    def make(self, size=0):
        return getattr(culsans, self.kind)(size)

    def put(self, queue, item):
        queue.sync_q.put(item)

    def get(self, queue):
        return queue.sync_q.get(timeout=WAIT)

    def get_nowait(self, queue):
        return queue.sync_q.get_nowait()


class TestNoWait(TestSync):
    def put(self, queue, item):
        queue.async_q.put_nowait(item)

    def get(self, queue):
        return queue.async_q.get_nowait()


class TestPriority(TestSync):
    kind = "PriorityQueue"


class TestLifo(TestSync):
    kind = "LifoQueue"

    def put_in_spans(self, queue, tracer, items):
        return super().put_in_spans(queue, tracer, items[::-1])[::-1]


class Boxing(culsans.Queue):
    """A queue that stores another item than the one that was put."""

    def _put(self, item):
        super()._put([item])

    def _get(self):
        return super()._get()[0]


class TestSubclass(TestSync):
    def make(self, size=0):
        return Boxing(size)


@pytest.mark.parametrize("size", [0, 1])
@pytest.mark.parametrize("kind", KINDS)
def test_across_the_sides(kind, size, instrument, tracer):
    """What tasks put a thread gets, and the other way, whoever waits for whom."""
    instrument()

    async def main():
        there, back = getattr(culsans, kind)(size), getattr(culsans, kind)(size)
        seen, put, got = [], [], []

        def thread():
            for _ in range(4):
                item = there.sync_q.get(timeout=WAIT)
                seen.append((item, trace.get_current_span()))
                back.sync_q.put(item)
                there.sync_q.task_done()
                assert not context.get_current()

        async def produce(number):
            with tracer.start_as_current_span("put", context=Context()) as span:
                put.append((number, span))
                await there.async_q.put(number)

        async def consume():
            for _ in range(4):
                item = await back.async_q.get()
                got.append((item, trace.get_current_span()))
                back.async_q.task_done()
                assert not context.get_current()

        consumer = asyncio.create_task(consume())
        producers = [asyncio.create_task(produce(number)) for number in (1, 2, 3, 2)]
        await asyncio.sleep(0)
        worker = threading.Thread(target=thread)
        worker.start()
        await asyncio.wait_for(asyncio.gather(consumer, *producers), WAIT)
        await asyncio.to_thread(worker.join)

        def ids(pairs):
            return sorted((item, span.get_span_context().span_id) for item, span in pairs)

        assert ids(put) == ids(seen) == ids(got)

    asyncio.run(main())


def test_a_consumer_that_waits_has_let_go(instrument, tracer):
    """Asked for the next item, it is in its own context again, before that is there."""
    instrument()
    queue = culsans.Queue()
    with tracer.start_as_current_span("put", context=Context()):
        queue.sync_q.put(1)
    queue.sync_q.get()
    assert context.get_current()
    with pytest.raises(culsans.SyncQueueEmpty):
        queue.sync_q.get(timeout=0.001)
    assert not context.get_current()


def test_what_is_cleared_and_shut_down_is_nobodys(instrument, tracer):
    """Neither its context nor its span is anywhere afterwards."""
    instrument()
    queue = culsans.Queue()
    with tracer.start_as_current_span("put", context=Context()) as span:
        queue.put_nowait(1)
        queue.put_nowait(2)
    reference = weakref.ref(span)
    del span
    queue.clear()
    queue.put_nowait(2)
    queue.get_nowait()
    assert not context.get_current()
    gc.collect()
    assert reference() is None
    with tracer.start_as_current_span("put", context=Context()):
        queue.put_nowait(3)
    queue.shutdown(immediate=True)
    assert not context.get_current()


def test_undo_is_exact():
    """Every attribute that was replaced is what it was, by identity."""
    check_undo(*(getattr(culsans, name) for name in KINDS))


@IN_BOTH_ORDERS
def test_it_does_not_matter_which_is_first(first):
    """Imported before the library is switched on, or after it."""
    program = """
import asyncio
from opentelemetry import context
async def main():
    queue = culsans.Queue()
    token = context.attach(context.set_value("key", "carried"))
    await queue.async_q.put(1)
    context.detach(token)
    await queue.async_q.get()
    print(context.get_value("key"))
asyncio.run(main())
"""
    assert run_program(first.format(module="culsans") + program) == "carried\n"
