"""What is expected of items in tasks that wait for them: consumers, producers, and those cancelled.

What can be said of a queue without waiting is in ``test_items.py``, for asyncio's queues as well.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import queue
import threading

import pytest
from forms import WAIT, without_context
from item_forms import STOCK
from opentelemetry.context import attach, get_current, get_value, set_value
from test_items import forms, put_in_a_context

from interpreters import weak_reference
from otel_concurrency import ConcurrencyInstrumentor

pytestmark = pytest.mark.usefixtures("instrumented")

every_queue = forms([form for form in STOCK if form.asynchronous])
QUEUE = next(form for form in STOCK if form.asynchronous)


async def settle():
    """Let every other task run until it waits."""
    for _ in range(10):
        await asyncio.sleep(0)


def run(main):
    """Run a coroutine function in an event loop, with a time limit."""

    async def limited():
        return await asyncio.wait_for(main(), WAIT)

    return asyncio.run(limited())


async def ended(*tasks):
    """Cancel tasks and wait for their end."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


@every_queue
def test_consumers_that_wait_since_start_up(form, spans):
    """Three workers handle what thirty requests put, each item under its own request."""

    async def main():
        queue, handled = form.make(), []

        async def consume():
            while True:
                item = await queue.get()
                before = spans.parent()
                await asyncio.sleep(0)
                handled.append((item, before, spans.parent()))
                queue.task_done()
                assert get_current() == {}

        async def request(n):
            with spans.current(str(n)):
                await asyncio.sleep(0)
                await queue.put((n,))

        consumers = [asyncio.create_task(consume()) for _ in range(3)]
        await settle()
        await asyncio.gather(*(request(n) for n in range(30)))
        await queue.join()
        await queue.put((99,))
        await queue.join()
        assert not any(consumer.done() for consumer in consumers)
        await ended(*consumers)
        return handled

    handled = run(main)

    assert sorted(handled) == [*(((n,), str(n), str(n)) for n in range(30)), ((99,), None, None)]


@every_queue
def test_a_consumer_that_was_created_in_a_request_lets_go_to_it_and_no_further(form, spans):
    """A task is its creator's by Python's own rule; a span that has ended holds no item off."""

    async def main():
        queue, seen = form.make(), []

        async def consume():
            seen.append(spans.parent())
            while await queue.get() != (9,):
                seen.append(spans.parent())

        with spans.current("creator"):
            consumer = asyncio.create_task(consume())
            await settle()
        for producer in ("a", "b"):
            form.put_under(spans, producer, queue, (1,))
            await settle()
        await queue.put((9,))
        await consumer
        return seen

    assert run(main) == ["creator", "a", "b"]


@every_queue
def test_a_task_with_a_live_span_keeps_it(form, spans):
    """A handler that waits for results inside its own span, or its creator's, stays there."""

    async def main():
        queue = form.make()

        async def collect():
            await queue.get()
            return spans.parent()

        with spans.current("request"):
            child = asyncio.create_task(collect())
            form.put_under(spans, "a", queue, (1,))
            in_child = await child
            form.put_under(spans, "b", queue, (1,))
            return in_child, await collect()

    assert run(main) == ("request", "request")


@every_queue
def test_a_waiting_task_holds_no_context(form, no_collector):
    """While it is suspended in ``get``, the context of the item before is gone."""

    async def main():
        queue, got = form.make(), []

        async def consume():
            while True:
                got.append(await queue.get())

        consumer = asyncio.create_task(consume())
        dead = []
        for n in range(3):
            context = put_in_a_context(form, queue, (n,))
            await settle()
            dead.append(context() is None)
        await ended(consumer)
        return got, dead

    assert run(main) == ([(0,), (1,), (2,)], [True, True, True])


@every_queue
def test_a_get_that_is_cancelled_leaves_nothing(form, spans, no_collector):
    """The one who waited is idle again; the item that comes later is the next one's."""

    async def main():
        queue, seen = form.make(), []

        async def consume():
            seen.append(((await queue.get()), spans.parent()))
            try:
                await queue.get()
            except asyncio.CancelledError:
                seen.append(get_current())
            seen.append(((await queue.get()), spans.parent()))

        form.put_under(spans, "a", queue, (1,))
        consumer = asyncio.create_task(consume())
        await settle()
        consumer.cancel()
        await settle()
        form.put_under(spans, "b", queue, (2,))
        await consumer
        return seen

    assert run(main) == [((1,), "a"), {}, ((2,), "b")]


@every_queue
def test_a_get_that_is_cancelled_with_its_item_on_the_way(form, spans):
    """The item stays in the queue with its context, for whoever gets it."""

    async def main():
        queue = form.make()

        async def consume():
            return await queue.get(), spans.parent()

        cancelled = asyncio.create_task(consume())
        await settle()
        form.put_under(spans, "a", queue, (1,))  # wakes it up
        await ended(cancelled)
        return cancelled.cancelled(), await asyncio.create_task(consume())

    assert run(main) == (True, ((1,), "a"))


@every_queue
def test_a_putter_that_waits_hands_on_its_own_context(form, spans):
    """Also where the place comes from a consumer that handles somebody else's item."""

    async def main():
        queue = form.make(1)
        form.put_under(spans, "a", queue, (1,))

        async def produce():
            with spans.current("blocked"):
                await queue.put((2,))

        async def consume():
            return [((await queue.get()), spans.parent()) for _ in range(2)]

        producer = asyncio.create_task(produce())
        await settle()
        seen = await asyncio.create_task(consume())
        await producer
        return seen

    assert run(main) == [((1,), "a"), ((2,), "blocked")]


@every_queue
def test_a_putter_that_is_cancelled_leaves_nothing(form, spans, no_collector):
    """Its context is gone, and the item after it is not given it."""

    async def main():
        queue, contexts = form.make(1), []
        form.put_under(spans, "a", queue, (1,))

        async def produce():
            attach(set_value("value", object()))
            contexts.append(weak_reference(get_current()))
            await queue.put((2,))

        producer = asyncio.create_task(produce())
        await settle()
        await ended(producer)
        assert producer.cancelled()
        del producer
        await settle()  # the loop itself refers to what it ran last
        gone = contexts[0]() is None

        async def consume():
            return [((await queue.get()), spans.parent()) for _ in range(2)]

        consumer = asyncio.create_task(consume())
        await settle()
        await queue.put((3,))
        return gone, await consumer

    assert run(main) == (True, [((1,), "a"), ((3,), None)])


@every_queue
def test_a_get_with_a_time_limit(form, spans):
    """The caller adopts the item's context, also before 3.12, when a task of its own gets it."""

    async def main():
        queue = form.make()
        form.put_under(spans, "a", queue, (1,))
        item = await asyncio.wait_for(queue.get(), WAIT)
        return item, spans.parent()

    assert run(main) == ((1,), "a")


@every_queue
def test_a_get_in_a_task_of_its_own(form, spans):
    """A limit: the task adopts the item and ends; its creator adopts nothing."""

    async def main():
        queue = form.make()
        form.put_under(spans, "a", queue, (1,))
        return await asyncio.create_task(queue.get()), spans.parent()

    assert run(main) == ((1,), None)


@every_queue
@pytest.mark.parametrize(
    "get",
    [lambda get: asyncio.wait_for(get, WAIT), asyncio.ensure_future],
    ids=["wait_for", "task"],
)
def test_getting_in_another_task_lets_go_of_the_item_before(form, get, spans):
    """Whoever asks for the next item is done with the last, whoever fetches it for them."""

    async def main():
        queue = form.make()
        for producer in ("a", None):
            form.put_under(spans, producer, queue, (1,))

        async def consume():
            await queue.get()
            seen = [spans.parent()]
            await get(queue.get())
            return [*seen, spans.parent()]

        return await asyncio.create_task(consume())

    first, second = run(main)

    assert first is not None or form.order == "last"
    assert second in ((None,) if first == "a" else (None, "a"))


@every_queue
def test_a_time_out_leaves_nothing(form, spans):
    """A consumer that waited in vain is idle."""

    async def main():
        queue = form.make()
        form.put_under(spans, "a", queue, (1,))
        await queue.get()
        assert spans.parent() == "a"
        with pytest.raises((asyncio.TimeoutError, TimeoutError)):
            await asyncio.wait_for(queue.get(), 0.001)
        return get_current()

    assert run(main) == {}


@every_queue
def test_what_is_started_in_an_items_work_belongs_to_it(form, spans):
    """Tasks and callbacks take over the item's context by Python's own rule, and keep it."""

    async def main():
        queue, seen = form.make(), []
        go_on = asyncio.Event()
        form.put_under(spans, "a", queue, (1,))
        form.put_under(spans, "b", queue, (1,))

        async def work():
            seen.append(spans.parent())
            await go_on.wait()
            seen.append(spans.parent())

        async def consume():
            producer = (await queue.get(), spans.parent())[1]
            child = asyncio.create_task(work())
            asyncio.get_running_loop().call_soon(lambda: seen.append(spans.parent()))
            await settle()
            await queue.get()
            go_on.set()
            await child
            return producer

        return await asyncio.create_task(consume()), seen

    producer, seen = run(main)

    assert seen == [producer] * 3


@every_queue
def test_a_child_that_says_task_done_does_not_end_its_parents_work(form, spans):
    """Letting go is of one flow: the consumer that dispatched the item stays where it is."""

    async def main():
        queue, seen = form.make(), []
        form.put_under(spans, "a", queue, (1,))

        async def work():
            seen.append(spans.parent())
            queue.task_done()
            seen.append(spans.parent())

        async def consume():
            await queue.get()
            await asyncio.create_task(work())
            seen.append(spans.parent())

        await asyncio.create_task(consume())
        return seen

    assert run(main) == ["a", None, "a"]


@every_queue
def test_a_consumer_in_a_loop_in_a_thread_that_was_started_in_a_span(form, spans):
    """What the thread was started in is replaced by the first item of another trace, for good."""
    seen = []

    async def main():
        queue = form.make()
        for producer in ("a", None):
            form.put_under(spans, producer, queue, (1,))
        seen.append(spans.parent())
        for _ in range(2):
            await queue.get()
            seen.append(spans.parent())
            queue.task_done()
            seen.append(spans.parent())

    with spans.current("starter"):
        thread = threading.Thread(target=run, args=(main,))
        thread.start()
        thread.join(WAIT)

    items = [None, "a"] if form.order == "last" else ["a", None]
    assert seen == ["starter", items[0], None, items[1], None]


@every_queue
def test_a_task_hands_items_to_a_thread_and_back(form, spans):
    """Through a thread's queue and the loop's own, the trace goes on."""
    requests = queue.Queue()

    async def main():
        answers = form.make()
        loop = asyncio.get_running_loop()

        def work():
            while (item := requests.get()) is not None:
                loop.call_soon_threadsafe(answers.put_nowait, (item, spans.parent()))

        worker = threading.Thread(target=work)
        worker.start()

        async def consume():
            answer = await answers.get()
            return answer, spans.parent()

        consumer = asyncio.create_task(consume())
        await settle()
        with spans.current("a"):
            requests.put(1)
        seen = await consumer
        requests.put(None)
        await loop.run_in_executor(None, worker.join, WAIT)
        return seen

    assert run(main) == ((1, "a"), "a")


@every_queue
def test_no_context_is_left_in_a_loop_whose_tasks_have_ended(form, no_collector):
    """Cancelled getters and putters, and the queue itself, leave nothing in the event loop."""

    async def main():
        queue = form.make(1)
        contexts = [put_in_a_context(form, queue, (1,))]

        async def produce():
            attach(set_value("value", object()))
            contexts.append(weak_reference(get_current()))
            await queue.put((2,))

        async def consume():
            await queue.get()
            await queue.get()
            await queue.get()

        tasks = [asyncio.create_task(produce())]
        await settle()
        tasks.append(asyncio.create_task(consume()))
        await settle()
        await ended(*tasks)
        tasks.clear()
        return contexts

    async def after_main():
        contexts = await main()
        await settle()
        return [context() is None for context in contexts]

    assert run(after_main) == [True, True]


def test_a_held_task_holds_its_context_as_python_has_it():
    """A limit: a finished ``asyncio.Task`` that is kept refers to its last context on its own."""

    async def main():
        queue = QUEUE.make()
        gone = put_in_a_context(QUEUE, queue, (1,))
        task = asyncio.create_task(queue.get())
        await task

        def in_it():
            return get_value("value")

        held = gone() is not None
        if hasattr(task, "get_context"):  # since 3.12
            assert task.get_context().run(in_it) is not None
        del task, in_it
        with contextlib.suppress(asyncio.TimeoutError):
            await settle()
        gc.collect()
        return held, gone() is None

    assert without_context(run, main) == (True, True)


@every_queue
def test_a_consumer_that_waits_while_it_is_switched_off(form, spans):
    """It gets what comes, under nobody; switched on again, everything is carried."""

    async def main():
        queue, handled = form.make(), []

        async def consume():
            while True:
                handled.append((await queue.get(), spans.parent()))

        consumer = asyncio.create_task(consume())
        await settle()
        for step, producer in ((None, "a"), ("uninstrument", "b"), ("instrument", "c")):
            if step:
                getattr(ConcurrencyInstrumentor(), step)()
            form.put_under(spans, producer, queue, (producer,))
            await settle()
            form.put_under(spans, None, queue, ("none",))
            await settle()
        await ended(consumer)
        return handled

    assert run(main) == [
        (("a",), "a"),
        (("none",), None),
        (("b",), None),
        (("none",), None),
        (("c",), "c"),
        (("none",), None),
    ]


@every_queue
def test_a_method_that_was_kept_leaves_the_last_item_when_it_was_switched_off(form, spans):
    """The consumer that calls it then handles the next item of another queue under nobody."""

    async def main():
        first, second, handled = form.make(), form.make(), []
        got, off = asyncio.Event(), asyncio.Event()

        async def consume():
            await first.get()
            get = second.get
            got.set()
            await off.wait()
            handled.append((await get(), spans.parent()))

        consumer = asyncio.create_task(consume())
        await settle()
        form.put_under(spans, "a", first, ("a",))
        await got.wait()
        ConcurrencyInstrumentor().uninstrument()
        form.put_under(spans, "b", second, ("b",))
        off.set()
        await consumer
        return handled

    assert run(main) == [(("b",), None)]


# `get` in a task of its own.


async def _with_stop(queue, stop):
    """Yield items until ``stop`` is set."""
    stopped = asyncio.create_task(stop.wait())
    while True:
        got = asyncio.create_task(queue.get())
        done, _ = await asyncio.wait({got, stopped}, return_when=asyncio.FIRST_COMPLETED)
        if got not in done:
            got.cancel()
            return
        yield got.result()


async def _with_timeout(queue, stop):
    """Yield items until ``stop`` is set."""
    while not stop.is_set():
        try:
            item = await asyncio.wait_for(queue.get(), 0.01)
        except asyncio.TimeoutError:
            continue
        yield item


@pytest.mark.alone  # their instrumentor has each task run a coroutine of its own
@every_queue
@pytest.mark.parametrize("items_of", [_with_stop, _with_timeout])
@pytest.mark.parametrize("busy", [False, True])
def test_a_flow_that_waits_for_a_task_of_get_adopts_the_items_context(items_of, busy, form, spans):
    """For each item its own, and none for an item without; whether or not it waits long."""

    async def main():
        queue, stop, seen = form.make(), asyncio.Event(), []

        async def consume():
            items = items_of(queue, stop)
            async for item in items:
                seen.append((item, spans.parent()))
                with spans.current("work"):
                    pass
                queue.task_done()
                if len(seen) == 4:
                    stop.set()
            seen.append(get_current())

        consumer = asyncio.create_task(consume())
        await settle()
        for number, producer in enumerate(("a", None, "b", "c")):
            if producer is None:
                queue.put_nowait((number,))
            else:
                form.put_under(spans, producer, queue, (number,))
            if not busy:
                await queue.join()
        await consumer
        return seen

    *seen, left = run(main)
    assert sorted(seen) == [((0,), "a"), ((1,), None), ((2,), "b"), ((3,), "c")]
    assert left == {}


@every_queue
def test_a_flow_with_a_span_keeps_it_when_it_waits_for_a_task_of_get(form, spans):
    """Its own span comes before the item's context, as for ``await queue.get()``."""

    async def main():
        queue = form.make()
        form.put_under(spans, "a", queue, (1,))
        with spans.current("request"):
            await asyncio.wait({asyncio.create_task(queue.get())})
            return spans.parent()

    assert run(main) == "request"


@every_queue
def test_of_several_tasks_of_get_none_is_adopted(form, spans):
    """It is not known which of them the flow looks at first."""

    async def main():
        queue = form.make()
        for producer in ("a", "b"):
            form.put_under(spans, producer, queue, (1,))
        await asyncio.wait({asyncio.create_task(queue.get()) for _ in range(2)})
        return get_current()

    assert run(main) == {}


@pytest.mark.alone
@every_queue
def test_a_task_of_get_is_adopted_once(form, spans):
    """A flow that waits for it again, beside another task, has handled its item."""

    async def main():
        queue = form.make()
        form.put_under(spans, "a", queue, (1,))
        got, seen = asyncio.create_task(queue.get()), []
        for _ in range(2):
            await asyncio.wait({got})
            seen.append(spans.parent())
            queue.task_done() if len(seen) == 1 else None
        return seen

    assert run(main) == ["a", None]


@every_queue
def test_other_tasks_that_end_in_an_items_context_leave_it_there(form, spans):
    """A worker has handled its item itself: the flow that waits for the worker adopts nothing."""

    async def main():
        queue = form.make()
        form.put_under(spans, "a", queue, (1,))

        async def work():
            return await queue.get()

        await asyncio.wait({asyncio.create_task(work())})
        return get_current()

    assert run(main) == {}


@pytest.mark.alone
@every_queue
def test_waiting_for_a_task_of_get_that_fails_or_is_cancelled(form, spans):
    """``wait`` and ``wait_for`` do what they do without the library, and nothing is adopted."""

    async def main():
        queue = form.make()
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(queue.get(), 0.001)
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(queue.get(), 0)
        got = asyncio.create_task(queue.get())
        await settle()
        got.cancel()
        assert await asyncio.wait({got}) == ({got}, set())
        assert get_current() == {}
        form.put_under(spans, "a", queue, (1,))
        assert await asyncio.wait_for(queue.get(), None) == (1,)
        return spans.parent()

    assert run(main) == "a"


@every_queue
def test_nothing_refers_to_a_context_after_waiting_for_a_task_of_get(form, no_collector):
    """Once the flow waits for the next item, the context of the one before is gone."""

    async def main():
        queue, stop = form.make(), asyncio.Event()

        async def consume():
            async for _ in _with_stop(queue, stop):
                await asyncio.sleep(0)

        consumer = asyncio.create_task(consume())
        await settle()
        context = put_in_a_context(form, queue, (1,))
        await settle()
        put_in_a_context(form, queue, (2,))
        await settle()
        await settle()
        gone = context() is None
        stop.set()
        await consumer
        return gone

    assert run(main)
