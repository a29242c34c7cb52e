"""Who handles another trace's item has become a worker: what it does between its items is no one's.

A thread, a task of a pool or of an event loop that was started in a request may live on, and serve
items of later requests. From the first of those on it is in no context whenever it handles none.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import queue
import threading
from concurrent.futures import Future, ThreadPoolExecutor

import pytest
from forms import WAIT, without_context
from item_forms import STOCK
from opentelemetry import baggage, trace
from opentelemetry.context import Context, attach, detach, get_current
from test_items import forms

from otel_concurrency import ConcurrencyInstrumentor
from otel_concurrency._core.handoff import NO_CONTEXT, Call

pytestmark = pytest.mark.usefixtures("instrumented")

SEQUENCES = {
    "of its own trace": (["starter", "starter"], ["starter", "starter"]),
    "of another trace": (["a"], [None]),
    "of none": ([None], [None]),
    "its own first": (["starter", "a", "starter"], ["starter", None, None]),
    "several others": (["a", "b"], [None, None]),
}
"""The producers of items, and whose a span is that is started after each of them."""


class Worker:
    """Gets items, one whenever it is told to; notes whose spans are, in between and meanwhile."""

    def __init__(self, form, spans, leave):
        self.queue = form.make()
        self.handled, self.between = [], []
        self._form, self._spans, self._leave = form, spans, leave
        self._next, self._done = threading.Semaphore(0), threading.Semaphore(0)
        self.ended = False

    def run(self):
        """Be a worker, until it is told to end."""
        self.between.append(self._spans.parent())
        while self._next.acquire(timeout=WAIT) and not self.ended:
            self._form.get(self.queue)
            self.handled.append(self._spans.parent())
            self._leave(self._form, self.queue)
            self.between.append(self._spans.parent())
            self._done.release()

    def handle(self, producer):
        """Put an item for it, and wait until it has been handled."""
        if producer == "starter":
            self._form.put(self.queue, (1,))
        else:
            self._form.put_under(self._spans, producer, self.queue, (1,))
        self._next.release()
        assert self._done.acquire(timeout=WAIT)

    def end(self):
        """Have it return."""
        self.ended = True
        self._next.release()


def ask_in_vain(form, waiting):
    """Ask for an item that is not there."""
    with pytest.raises(form.empty):
        waiting.get_nowait()


def wait_in_vain(form, waiting):
    """Wait for an item that does not come, where that can be done."""
    if form.asynchronous:
        ask_in_vain(form, waiting)
        return
    with pytest.raises(form.empty):
        waiting.get(timeout=0.001)


def say_done(form, waiting):
    """Say that an item is done, where that can be done."""
    if form.bounded:
        waiting.task_done()
    else:
        ask_in_vain(form, waiting)


sequences = pytest.mark.parametrize(("producers", "between"), SEQUENCES.values(), ids=SEQUENCES)


@forms(STOCK)
@sequences
@pytest.mark.parametrize("leave", [ask_in_vain, wait_in_vain, say_done])
def test_a_thread(form, producers, between, leave, spans):
    """A thread that was started in a span is in it until it handles something else's item."""
    worker = Worker(form, spans, leave)
    with spans.current("starter"):
        thread = threading.Thread(target=worker.run)
        thread.start()
        for producer in producers:
            worker.handle(producer)
        worker.end()
        thread.join(WAIT)

    assert worker.handled == producers
    assert worker.between == ["starter", *between]


@forms(STOCK)
@sequences
def test_a_task_of_a_pool(form, producers, between, spans):
    """So is a task that was submitted in a span; the next one of its worker is as ever."""
    worker = Worker(form, spans, ask_in_vain)
    with ThreadPoolExecutor(1) as pool:
        with spans.current("starter"):
            future = pool.submit(worker.run)
            for producer in producers:
                worker.handle(producer)
            worker.end()
            future.result(WAIT)
            following = pool.submit(spans.parent).result(WAIT)
        clean = pool.submit(get_current).result(WAIT)

    assert worker.handled == producers
    assert worker.between == ["starter", *between]
    assert (following, clean) == ("starter", {})


@forms([form for form in STOCK if form.asynchronous])
@sequences
def test_a_task_of_an_event_loop(form, producers, between, spans):
    """So is one whose creator's span has ended: Python has it inherit that for ever."""

    async def main():
        waiting, handled, after = form.make(), [], []

        async def work():
            for _ in producers:
                await waiting.get()
                handled.append(spans.parent())
                waiting.task_done()
                after.append(spans.parent())

        with spans.current("starter"):
            task = asyncio.create_task(work())
            within = contextvars.copy_context()
        for producer in producers:
            if producer == "starter":
                within.run(waiting.put_nowait, (1,))
            else:
                form.put_under(spans, producer, waiting, (1,))
            await waiting.join()
        await task
        return handled, after

    assert asyncio.run(main()) == (producers, between)


@forms(STOCK)
def test_baggage_of_the_starter_is_gone_as_well(form):
    """A thread that was started with baggage alone has none between items of others."""
    waiting, seen = form.make(), []

    def put():
        attach(baggage.set_baggage("tenant", "other", Context()))
        form.put(waiting, (1,))

    def work():
        seen.append(baggage.get_baggage("tenant"))
        form.get(waiting)
        seen.append(baggage.get_baggage("tenant"))
        ask_in_vain(form, waiting)
        ask_in_vain(form, waiting)
        seen.append(get_current())

    def start():
        attach(baggage.set_baggage("tenant", "starter", Context()))
        thread = threading.Thread(target=work)
        thread.start()
        thread.join(WAIT)

    without_context(put)
    without_context(start)

    assert seen == ["starter", "other", {}]


@forms(STOCK)
def test_what_a_flow_has_attached_by_itself_stays_its_own(form, spans):
    """Baggage that a worker sets for all that it does is there between its items."""
    waiting = form.make()
    form.put_under(spans, "a", waiting, (1,))

    def work():
        mine = baggage.set_baggage("worker", "1", Context())
        attach(mine)
        form.get(waiting)
        parent = spans.parent()
        ask_in_vain(form, waiting)
        return parent, get_current() is mine

    assert without_context(work) == ("a", True)


def test_a_context_below_the_item_does_not_come_back(spans):
    """An item of the starter's trace, one of another on top: both are left for nothing."""
    waiting, seen = queue.Queue(), []

    def work():
        waiting.get()
        with spans.current("own") as own:
            own.end()
            seen.append(waiting.get())
            seen.append(spans.parent())
        ask_in_vain(STOCK[0], waiting)
        ask_in_vain(STOCK[0], waiting)
        seen.append(spans.parent())

    with spans.current("starter"):
        waiting.put("starter's")
        STOCK[0].put_under(spans, "a", waiting, "another's")
        thread = threading.Thread(target=work)
        thread.start()
        thread.join(WAIT)

    assert seen == ["another's", "a", None]


def test_with_links_a_worker_is_linked_to_its_starter_no_more(tracer, spans):
    """Under the policy ``link`` an item's trace is the one that it is linked to."""
    ConcurrencyInstrumentor().uninstrument()
    ConcurrencyInstrumentor().instrument(policy="link")
    form, seen = STOCK[0], []

    def linked_to():
        with tracer.start_as_current_span("work") as span:
            assert span.parent is None
            return [link.context.trace_id for link in span.links]

    def leave(form, waiting):
        seen.append(linked_to())
        ask_in_vain(form, waiting)
        seen.append(linked_to())

    worker = Worker(form, spans, leave)
    with spans.current("starter") as starter:
        thread = threading.Thread(target=worker.run)
        thread.start()
        worker.handle("starter")
        worker.handle("a")
        worker.end()
        thread.join(WAIT)

    starters = [starter.get_span_context().trace_id]
    assert seen[:2] == [starters, starters]
    assert len(seen[2]) == 1
    assert seen[2] != starters
    assert seen[3] == []


def test_a_thread_that_never_handles_an_item_stays_where_it_was_started(spans):
    """Asking in vain changes nothing."""
    waiting, seen = queue.Queue(), []

    def work():
        ask_in_vain(STOCK[0], waiting)
        wait_in_vain(STOCK[0], waiting)
        seen.append(spans.parent())

    with spans.current("starter"):
        thread = threading.Thread(target=work)
        thread.start()
        thread.join(WAIT)

    assert seen == ["starter"]
    assert trace.get_current_span() is trace.INVALID_SPAN


def test_a_callback_that_was_registered_where_the_item_was_put_stays_there(tracer):
    """The consumer that calls it is in the same context; looking for more items ends neither."""
    items, others, seen = queue.Queue(), queue.Queue(), []
    future = Future()

    def look(items):
        with contextlib.suppress(queue.Empty):
            items.get_nowait()

    def called(_):
        look(others)
        look(others)
        seen.append(get_current())

    def consume():
        items.get()
        look(items)
        future.set_result(None)
        seen.append(get_current())
        look(items)
        seen.append(get_current())

    with tracer.start_as_current_span("producer"):
        context = get_current()
        items.put(1)
        future.add_done_callback(called)
        consumer = threading.Thread(target=consume)
        without_context(consumer.start)
        consumer.join(WAIT)
    assert seen == [context, context, Context()]


@forms(STOCK)
def test_a_context_that_was_detached_is_not_gone_back_to(form, spans):
    """An item without a context was got in it, in a flow that had begun in the empty one."""

    def work():
        waiting = form.make()
        form.put_under(spans, None, waiting, (1,))
        token = attach(Context({"key": "attached"}))
        form.get(waiting)
        inside = dict(get_current())
        detach(token)
        ask_in_vain(form, waiting)
        counter.task_done()
        return inside, dict(get_current())

    counter = queue.Queue()
    counter.unfinished_tasks = 1
    with spans.current("request"):
        assert Call(NO_CONTEXT, work)() == ({}, {})
