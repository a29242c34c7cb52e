"""janus: items of either side, got on either side."""

from __future__ import annotations

import asyncio
import threading

import janus
import pytest
from opentelemetry import context, trace
from opentelemetry.context import Context
from suite import IN_BOTH_ORDERS, WAIT, Items, check_undo, run_program

KINDS = ("Queue", "LifoQueue", "PriorityQueue")


class _Queues(Items):
    kind = "Queue"

    def make(self, size=0):
        return getattr(janus, self.kind)(size)

    def run(self, *flows):
        async def run():
            return [flow() for flow in flows]

        return [asyncio.run(run())[0]] if len(flows) == 1 else super().run(*flows)


class TestSync(_Queues):
    def put(self, queue, item):
        queue.sync_q.put(item)

    def get(self, queue):
        return queue.sync_q.get(timeout=WAIT)

    def get_nowait(self, queue):
        return queue.sync_q.get_nowait()


class TestNoWait(_Queues):
    def put(self, queue, item):
        queue.async_q.put_nowait(item)

    def get(self, queue):
        return queue.async_q.get_nowait()

    get_nowait = get


class TestStack(TestSync):
    kind = "LifoQueue"
    is_stack = True


class TestPriority(TestSync):
    kind = "PriorityQueue"


@pytest.mark.parametrize("kind", KINDS)
def test_across_the_sides(kind, instrument, tracer):
    """What a task puts a thread gets, and the other way, while the consumer waits."""
    instrument()

    async def main():
        there, back = getattr(janus, kind)(), getattr(janus, kind)()
        seen = []

        def thread():
            for _ in range(3):
                item = there.sync_q.get(timeout=WAIT)
                seen.append((item, trace.get_current_span()))
                back.sync_q.put(item)
                there.sync_q.task_done()
                assert not context.get_current()

        worker = threading.Thread(target=thread)
        worker.start()
        for number in range(3):
            with tracer.start_as_current_span("put", context=Context()) as span:
                await there.async_q.put(number)
            assert await back.async_q.get() == number
            assert trace.get_current_span() is span
            back.async_q.task_done()
            assert not context.get_current()
            assert seen[-1] == (number, span)
        await asyncio.to_thread(worker.join)
        await there.aclose()
        await back.aclose()

    asyncio.run(main())
    assert not context.get_current()


def test_a_consumer_that_finds_nothing_has_let_go(instrument, tracer):
    """It found twice that there is no other item, so the last one is no part of a batch."""
    instrument()

    async def main():
        queue = janus.Queue()
        with tracer.start_as_current_span("put", context=Context()):
            await queue.async_q.put(1)
        await queue.async_q.get()
        assert context.get_current()
        for _ in range(2):
            with pytest.raises(janus.AsyncQueueEmpty):
                queue.async_q.get_nowait()
        assert not context.get_current()
        await queue.aclose()

    asyncio.run(main())


def test_undo_is_exact():
    """Every attribute that was replaced is what it was, by identity."""
    check_undo(*(getattr(janus, name) for name in KINDS))


@IN_BOTH_ORDERS
def test_it_does_not_matter_which_is_first(first):
    """Imported before the library is switched on, or after it."""
    program = """
import asyncio
from opentelemetry import context
async def main():
    queue = janus.Queue()
    token = context.attach(context.set_value("key", "carried"))
    await queue.async_q.put(1)
    context.detach(token)
    await queue.async_q.get()
    print(context.get_value("key"))
    await queue.aclose()
asyncio.run(main())
"""
    assert run_program(first.format(module="janus") + program) == "carried\n"
