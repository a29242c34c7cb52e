"""tornado: its queues, for consumers and producers that wait and such that do not."""

from __future__ import annotations

import asyncio
import contextvars
import datetime
import gc
import weakref

import greenlet
import pytest
import tornado.queues
from opentelemetry import baggage, context, trace
from opentelemetry.context import Context
from suite import IN_BOTH_ORDERS, WAIT, Items, check_undo, run_program
from tornado import gen

from otel_concurrency import ConcurrencyInstrumentor

KINDS = ("Queue", "LifoQueue", "PriorityQueue")
SOON = datetime.timedelta(milliseconds=1)


class TestQueue(Items):
    setting = "asyncio"
    kind = "Queue"

    def make(self, size=0):
        return getattr(tornado.queues, self.kind)(size)

    def put(self, queue, item):
        queue.put_nowait(item)

    def get(self, queue):
        return queue.get_nowait()

    def run(self, *flows):
        async def run():
            return [flow() for flow in flows]

        return asyncio.run(run())


class TestPut(TestQueue):
    def put(self, queue, item):
        assert queue.put(item).done()


class TestLifoQueue(TestQueue):
    kind = "LifoQueue"

    def put_in_spans(self, queue, tracer, items):
        return super().put_in_spans(queue, tracer, items[::-1])[::-1]


class TestPriorityQueue(TestQueue):
    kind = "PriorityQueue"


async def settle():
    """Have every task go on as far as it can."""
    for _ in range(10):
        await asyncio.sleep(0)


def ids(pairs):
    """Return items and spans as what can be compared."""
    return sorted((item, span.get_span_context().span_id) for item, span in pairs)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [0, 1])
@pytest.mark.parametrize("consumers", [1, 3])
@pytest.mark.parametrize("consumer_first", [True, False])
def test_consumers_and_producers_that_wait(
    kind, size, consumers, consumer_first, instrument, tracer
):
    """Each item is handled in its putter's context, whoever waits for whom."""
    instrument()
    seen, expected = [], []

    async def main():
        queue = getattr(tornado.queues, kind)(size)

        async def consume():
            async for item in queue:
                before = trace.get_current_span()
                await asyncio.sleep(0)
                assert trace.get_current_span() is before
                seen.append((item, before))
                queue.task_done()
                assert not context.get_current()

        async def produce(item):
            with tracer.start_as_current_span("put", context=Context()) as span:
                expected.append((item, span))
                await queue.put(item)

        def start():
            return [asyncio.create_task(consume()) for _ in range(consumers)]

        tasks = start() if consumer_first else []
        await asyncio.sleep(0)
        producers = [asyncio.create_task(produce(item)) for item in (1, 2, 2, 3, 1)]
        await asyncio.sleep(0)
        tasks = tasks or start()
        await asyncio.wait_for(asyncio.gather(*producers), WAIT)
        await queue.join(datetime.timedelta(seconds=WAIT))
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)

    asyncio.run(main())
    assert ids(seen) == ids(expected)


def test_items_without_context_between_others(instrument, tracer):
    """A waiting consumer has let go, and handles each in what it was put in."""
    instrument()
    seen = []

    async def main():
        queue = tornado.queues.Queue()

        async def consume():
            while (await queue.get()) is not None:
                span = trace.get_current_span()
                seen.append((getattr(span, "name", None), baggage.get_baggage("tenant")))

        def put(name):
            token = context.attach(baggage.set_baggage("tenant", name))
            with tracer.start_as_current_span(name):
                queue.put_nowait(1)
            context.detach(token)

        task = asyncio.create_task(consume())
        await asyncio.sleep(0)
        put("first")
        await settle()
        queue.put_nowait(1)
        put("second")
        queue.put_nowait(1)
        await settle()
        queue.put_nowait(1)
        queue.put_nowait(None)
        await asyncio.wait_for(task, WAIT)

    asyncio.run(main())
    assert seen == [(name, name) for name in ("first", None, "second", None, None)]


def test_a_put_that_times_out_or_is_cancelled_leaves_nothing(instrument, tracer):
    """Nor is its context another item's, be it an equal one."""
    instrument()

    async def main():
        queue = tornado.queues.Queue(1)
        with tracer.start_as_current_span("fills it", context=Context()):
            queue.put_nowait(1)
        with tracer.start_as_current_span("refused", context=Context()) as span:
            with pytest.raises(gen.TimeoutError):
                await queue.put(1, SOON)
            waiting = queue.put(1)
            with pytest.raises(tornado.queues.QueueFull):
                queue.put_nowait(1)
        waiting.cancel()
        await asyncio.sleep(0)
        reference = weakref.ref(span)
        del span, waiting
        await asyncio.sleep(0)
        gc.collect()
        assert reference() is None
        assert queue.get_nowait() == 1
        assert trace.get_current_span().name == "fills it"
        queue.task_done()
        queue.put_nowait(1)
        assert queue.get_nowait() == 1
        assert not context.get_current()

    asyncio.run(main())


def test_identical_items_whose_putters_wait(instrument, tracer):
    """One that was handed to `put` without a context has none, whoever waits behind it."""
    instrument()
    seen = []

    async def main():
        queue = tornado.queues.Queue(1)
        queue.put_nowait(1)
        waiting = [queue.put(1)]
        with tracer.start_as_current_span("put", context=Context()) as span:
            waiting.append(queue.put(1))
        waiting.append(queue.put(1))

        async def consume():
            for _ in range(4):
                await queue.get()
                seen.append(trace.get_current_span())
                queue.task_done()

        await contextvars.Context().run(asyncio.create_task, consume())
        await asyncio.gather(*waiting)
        return span

    span = asyncio.run(main())
    nothing = trace.INVALID_SPAN
    assert seen == [nothing, nothing, span, nothing]


def test_a_get_that_times_out_takes_nothing(instrument, tracer):
    """The next one gets the item, and what it was put in."""
    instrument()

    async def main():
        queue = tornado.queues.Queue()
        with pytest.raises(gen.TimeoutError):
            await queue.get(SOON)
        with tracer.start_as_current_span("put", context=Context()) as span:
            await queue.put(1)
        assert await queue.get() == 1
        assert trace.get_current_span() is span
        queue.task_done()

    asyncio.run(main())
    assert not context.get_current()


def test_a_greenlet_may_begin_with_any_call(instrument):
    """Nobody has called it: there is no frame below."""
    instrument()
    queue = tornado.queues.Queue()
    greenlet.greenlet(queue.put_nowait).switch(1)
    assert greenlet.greenlet(queue.get_nowait).switch() == 1


def test_a_coroutine_of_a_generator_is_left_as_it_is(instrument, tracer):
    """Where no flow awaits the future, its item is nobody's, and neither is a producer's flow."""
    instrument()
    seen = []

    @gen.coroutine
    def consume(queue):
        yield queue.get()
        seen.append(dict(context.get_current()))

    async def main():
        queue = tornado.queues.Queue()
        consumer = consume(queue)
        with tracer.start_as_current_span("put") as span:
            queue.put_nowait(1)
            assert trace.get_current_span() is span
        await consumer

    asyncio.run(main())
    assert seen == [{}]


class Transforming(tornado.queues.Queue):
    """A queue with a container of its own."""

    def _init(self):
        self._queue = {}

    def _put(self, item):
        self._queue[max(self._queue, default=0) + 1] = (item,)

    def _get(self):
        return self._queue.pop(min(self._queue))[0]


class TestSubclass(TestQueue):
    tells_twins = False

    def make(self, size=0):
        return Transforming(size)


def test_undo_is_exact():
    """Every attribute that was replaced is what it was, by identity."""
    check_undo(tornado.queues, *(getattr(tornado.queues, name) for name in KINDS))


def test_those_who_wait_while_it_is_switched_on_and_off(tracer):
    """They get their items, and nothing of it is taken for another's."""
    instrumentor = ConcurrencyInstrumentor()
    seen = []

    async def main():
        queue = tornado.queues.Queue()

        async def consume():
            async for item in queue:
                seen.append((item, bool(context.get_current())))

        def put(item):
            with tracer.start_as_current_span("put", context=Context()):
                queue.put_nowait(item)

        task = asyncio.create_task(consume())
        await asyncio.sleep(0)
        instrumentor.instrument()
        for item in (1, 2, 3):
            put(item)
            await settle()
        instrumentor.uninstrument()
        for item in (4, 5):
            put(item)
            await settle()
        task.cancel()

    asyncio.run(main())
    assert [item for item, _ in seen] == [1, 2, 3, 4, 5]
    assert [carried for _, carried in seen] == [False, True, True, False, False]


@IN_BOTH_ORDERS
def test_it_does_not_matter_which_is_first(first):
    """Imported before the library is switched on, or after it."""
    program = """
import asyncio
from opentelemetry import context
async def main():
    queue = tornado.queues.Queue()
    token = context.attach(context.set_value("key", "carried"))
    await queue.put(1)
    context.detach(token)
    await queue.get()
    print(context.get_value("key"))
asyncio.run(main())
"""
    assert run_program(first.format(module="tornado.queues") + program) == "carried\n"
