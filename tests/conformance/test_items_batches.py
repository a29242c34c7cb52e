"""A consumer that gets several items before it starts a span holds a batch.

The span that it starts then has one parent if all items have the same origin. Otherwise it is a
root with a link to each origin, and has the baggage that all of them agree on.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import gc
import queue
import sched
import signal
import sys
import threading
import weakref

import pytest
from forms import WAIT, without_context
from item_forms import STOCK
from opentelemetry import baggage
from opentelemetry.context import Context, attach, detach, get_current, get_value, set_value
from test_items import forms

pytestmark = pytest.mark.usefixtures("instrumented")

bounded = [form for form in STOCK if form.bounded]
in_order = [form for form in STOCK if form.order == "first"]


class Requests:
    """Puts items inside spans and with baggage, and tells of a span what it belongs to."""

    def __init__(self, tracer):
        self._tracer = tracer
        self._names = {}

    def put(self, form, waiting, *names, **entries):
        """Put an item for each name; None is no context. ``entries`` is baggage that all have."""
        for name in names:
            without_context(self._put, form, waiting, name, entries)

    def _put(self, form, waiting, name, entries):
        if name is None:
            form.put(waiting, (1,))
            return
        context = Context()
        for key, value in {"tenant": name, **entries}.items():
            context = baggage.set_baggage(key, value, context)
        attach(context)
        with self._tracer.start_as_current_span(name) as span:
            self._names[span.get_span_context().span_id] = name
            form.put(waiting, (1,))

    def look(self):
        """Start a span; return the name of its parent, those that it is linked to, and baggage."""
        with self._tracer.start_as_current_span("work") as span:
            parent = span.parent and self._names[span.parent.span_id]
            links = [self._names[link.context.span_id] for link in span.links]
            reasons = {link.attributes["otel_concurrency.link.reason"] for link in span.links}
            assert reasons <= {"batch"}
            return parent, links, dict(baggage.get_all())


@pytest.fixture
def requests(tracer):
    """Return what puts items in requests."""
    return Requests(tracer)


NOTHING = (None, [], {})


def drain(form, waiting):
    """Get an item, then all others until there are none."""
    items = [form.get(waiting)]
    while True:
        try:
            items.append(waiting.get_nowait())
        except form.empty:
            return items


@forms(STOCK)
@pytest.mark.parametrize("number", [1, 2, 5])
def test_items_of_one_origin_have_it_as_their_parent(form, number, requests):
    """A batch of one is a batch; so are several items of one request."""
    waiting = form.make()

    def request():
        with requests._tracer.start_as_current_span("request") as span:
            requests._names[span.get_span_context().span_id] = "request"
            for _ in range(number):
                form.put(waiting, (1,))

    def consume():
        assert len(drain(form, waiting)) == number
        return requests.look(), requests.look()

    without_context(request)
    assert without_context(consume) == (("request", [], {}), NOTHING)


@forms(in_order)
def test_items_of_several_origins_are_linked(form, requests):
    """In their order, each origin once; and the end of the span is the end of the batch."""
    waiting = form.make()
    requests.put(form, waiting, "a", "b", "c", common="yes")

    def consume():
        assert len(drain(form, waiting)) == 3
        return requests.look(), requests.look(), get_current()

    expected = None, ["a", "b", "c"], {"common": "yes"}
    assert without_context(consume) == (expected, NOTHING, {})


@forms(in_order)
def test_getting_a_number_of_items_is_a_batch_as_well(form, requests):
    """Nobody has to find out that there is no more."""
    waiting = form.make()
    requests.put(form, waiting, "a", "b", "c", "d")

    def consume():
        seen = []
        for _ in range(2):
            for _ in range(2):
                form.get(waiting)
            seen.append(requests.look())
        return seen

    assert without_context(consume) == [(None, ["a", "b"], {}), (None, ["c", "d"], {})]


@forms(in_order)
def test_an_item_without_a_context_agrees_on_nothing(form, requests):
    """Then there is a link to the others, and no baggage."""
    waiting = form.make()
    requests.put(form, waiting, "a", None)

    def consume():
        drain(form, waiting)
        return requests.look()

    assert without_context(consume) == (None, ["a"], {})


@forms(in_order)
def test_items_that_are_handled_one_by_one_are_no_batch(form, requests):
    """A span for each: it has the item's parent, whether or not the next is there already."""
    waiting = form.make()
    requests.put(form, waiting, "a", "b", None, "c")

    def consume():
        seen = []
        for _ in range(4):
            form.get(waiting)
            seen.append(requests.look()[0])
        with pytest.raises(form.empty):
            waiting.get_nowait()
        return [*seen, requests.look()]

    assert without_context(consume) == ["a", "b", None, "c", NOTHING]


@forms(STOCK)
def test_asking_twice_in_vain_ends_a_batch(form, requests):
    """Once does not."""
    waiting = form.make()
    requests.put(form, waiting, "a")

    def consume():
        drain(form, waiting)
        with pytest.raises(form.empty):
            waiting.get_nowait()
        return requests.look(), get_current()

    assert without_context(consume) == (NOTHING, {})


@forms([form for form in STOCK if not form.asynchronous])
def test_waiting_ends_a_batch(form, requests):
    """A worker that waits is in no context, though it has started nothing."""
    waiting = form.make()
    requests.put(form, waiting, "a", "b")

    def consume():
        form.get(waiting)
        form.get(waiting)
        with pytest.raises(form.empty):
            waiting.get(timeout=0.001)
        return requests.look()

    assert without_context(consume) == NOTHING


@forms([form for form in bounded if form.order == "first"])
def test_a_batch_ends_when_all_of_it_is_done(form, requests):
    """``task_done`` for a part of it changes nothing."""
    waiting = form.make()
    requests.put(form, waiting, "a", "b", "c", "d")

    def consume(done):
        for _ in range(2):
            form.get(waiting)
        for _ in range(done):
            waiting.task_done()
        return requests.look()[1]

    def both():
        first = consume(1)
        waiting.task_done()
        second = consume(2)
        return first, second, get_current()

    first, second, left = without_context(both)
    assert first == ["a", "b"]
    assert second == []
    assert left == {}


@forms(in_order)
def test_a_span_of_the_flows_own_keeps_what_is_got_inside(form, requests):
    """A request that collects a batch stays where it is."""
    waiting = form.make()
    requests.put(form, waiting, "a", "b")

    def collect():
        with requests._tracer.start_as_current_span("own") as own:
            requests._names[own.get_span_context().span_id] = "own"
            drain(form, waiting)
            return requests.look()

    assert without_context(collect) == ("own", [], {})


@forms(in_order)
def test_what_a_batch_hands_on_is_linked_as_well(form, requests):
    """Work that is put for the next stage belongs to all origins."""
    waiting, following = form.make(), form.make()
    requests.put(form, waiting, "a", "b")

    def consume():
        drain(form, waiting)
        form.put(following, (1,))

    def next_stage():
        form.get(following)
        return requests.look()

    without_context(consume)
    assert without_context(next_stage) == (None, ["a", "b"], {})


def test_a_thread_that_waits_between_batches(requests):
    """Its batches are linked, and between them it is in no context; started in a request, too."""
    waiting, form, seen = queue.Queue(), STOCK[0], []
    again = threading.Semaphore(0)

    def work():
        while True:
            items = drain(form, waiting)
            if None in items:
                return
            seen.append((len(items), requests.look(), requests.look()))
            again.release()

    token = attach(baggage.set_baggage("tenant", "starter"))
    thread = threading.Thread(target=work)
    with requests._tracer.start_as_current_span("starter"):
        thread.start()
    detach(token)
    requests.put(form, waiting, "a")
    assert again.acquire(timeout=WAIT)
    with waiting.mutex:
        pass
    requests.put(form, waiting, None)
    assert again.acquire(timeout=WAIT)
    waiting.put(None)
    thread.join(WAIT)

    assert seen == [(1, ("a", [], {"tenant": "a"}), NOTHING), (1, NOTHING, NOTHING)]


def test_tasks_that_drain_a_queue(requests):
    """With ``empty()`` as with the exception, and while others wait."""

    async def main():
        form = next(form for form in STOCK if form.asynchronous)
        waiting, seen = form.make(), []

        async def consume():
            while len(seen) < 2:
                items = [await waiting.get()]
                while not waiting.empty():
                    items.append(waiting.get_nowait())
                seen.append((len(items), requests.look()))

        consumer = asyncio.create_task(consume())
        await asyncio.sleep(0)
        requests.put(form, waiting, "a", "b")
        await asyncio.sleep(0.01)
        requests.put(form, waiting, "c")
        await consumer
        return seen

    assert asyncio.run(main()) == [(2, (None, ["a", "b"], {})), (1, ("c", [], {"tenant": "c"}))]


def test_a_batch_of_very_many_origins(requests):
    """It has as many links as a span keeps, and the baggage that all agree on."""
    waiting, form = queue.Queue(), STOCK[0]
    names = [str(n) for n in range(1000)]
    requests.put(form, waiting, *names, common="yes")

    def consume():
        for _ in names:
            waiting.get()
        return requests.look(), requests.look()

    expected = None, names[:128], {"common": "yes"}
    assert without_context(consume) == (expected, NOTHING)


@forms(in_order)
def test_items_that_are_handed_on_one_by_one_are_no_batch(form, requests):
    """A thread of its own for each: its span is a child of the item's, though all are there."""
    waiting = form.make()
    requests.put(form, waiting, "a", "b", "c")
    seen = []

    def dispatch():
        for _ in range(3):
            form.get(waiting)
            thread = threading.Thread(target=lambda: seen.append(requests.look()))
            thread.start()
            thread.join(WAIT)

    without_context(dispatch)
    assert seen == [(name, [], {"tenant": name}) for name in "abc"]


@pytest.mark.parametrize("nowait", [True, False])
def test_a_task_for_each_item_is_no_batch(nowait, requests):
    """It is in the context of its item, whichever runs first."""
    form = next(form for form in STOCK if form.asynchronous)

    async def main():
        waiting, seen = form.make(), []

        async def handle(turns):
            for _ in range(turns):
                await asyncio.sleep(0)
            seen.append(requests.look())

        async def dispatch():
            tasks = []
            for turns in (3, 2, 1):
                if nowait:
                    waiting.get_nowait()
                else:
                    await waiting.get()
                tasks.append(asyncio.create_task(handle(turns)))
            with pytest.raises(form.empty):
                waiting.get_nowait()
            await asyncio.gather(*tasks)

        requests.put(form, waiting, "a", "b", "c")
        await asyncio.create_task(dispatch())
        return seen

    expected = [(name, [], {"tenant": name}) for name in "cba"]
    assert asyncio.run(main()) == expected


@pytest.mark.parametrize("beside_greenlets", [True, False])
@pytest.mark.parametrize("schedule", ["call_soon", "call_later"])
@pytest.mark.parametrize("drains", [True, False])
def test_a_callback_for_each_item_is_no_batch(
    drains, schedule, beside_greenlets, requests, monkeypatch
):
    """It is in the context of its item, whatever the callback that schedules it does after that."""
    if beside_greenlets:
        pytest.importorskip("greenlet")
    else:
        monkeypatch.delitem(sys.modules, "greenlet", raising=False)
    form = next(form for form in STOCK if form.asynchronous)

    async def main():
        loop, seen = asyncio.get_running_loop(), []
        waiting, done = form.make(), loop.create_future()

        def handle(number):
            seen.append(requests.look())
            if number == 2:
                done.set_result(None)

        def dispatch():
            for number in range(3):
                waiting.get_nowait()
                if schedule == "call_soon":
                    loop.call_soon(handle, number)
                else:
                    loop.call_later(0.001 * number, handle, number)
            if drains:
                with pytest.raises(form.empty):
                    waiting.get_nowait()

        requests.put(form, waiting, "a", "b", "c")
        without_context(lambda: loop.call_soon(dispatch))
        await done
        return seen

    expected = [(name, [], {"tenant": name}) for name in "abc"]
    assert asyncio.run(main()) == expected


def test_items_that_a_callback_handles_at_once_are_a_batch(requests):
    """The callback gets them, and starts one span for all of them."""
    form = next(form for form in STOCK if form.asynchronous)

    async def main():
        loop = asyncio.get_running_loop()
        waiting, seen = form.make(), loop.create_future()

        def handle():
            for _ in range(3):
                waiting.get_nowait()
            seen.set_result(requests.look())

        requests.put(form, waiting, "a", "b", "c")
        without_context(lambda: loop.call_soon(handle))
        return await seen

    parent, links, _ = asyncio.run(main())
    assert (parent, links) == (None, ["a", "b", "c"])


@forms(in_order)
def test_a_span_that_names_the_context_it_is_in_is_linked_too(form, tracer, requests):
    """As instrumentors do: they pass the current context to ``start_span``."""
    waiting = form.make()
    requests.put(form, waiting, "a", "b")

    def consume():
        form.get(waiting)
        form.get(waiting)
        with tracer.start_span("work", context=get_current()) as span:
            return span.parent, [requests._names[link.context.span_id] for link in span.links]

    assert without_context(consume) == (None, ["a", "b"])


@forms(in_order)
def test_a_span_in_another_context_does_not_begin_the_batch(form, tracer, requests):
    """It is started where the program says; the next one is that of the batch."""
    waiting = form.make()
    requests.put(form, waiting, "a", "b")

    def consume():
        form.get(waiting)
        form.get(waiting)
        with tracer.start_span("elsewhere", context=Context()) as span:
            return span.parent, span.links, requests.look()[1]

    assert without_context(consume) == (None, (), ["a", "b"])


def by_a_signal(work):
    """Run ``work`` as a handler that interrupts the flow."""
    before = signal.signal(signal.SIGTERM, lambda *_: work())
    try:
        signal.raise_signal(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)


def by_a_scheduler(work):
    """Run ``work`` as the action of an event."""
    events = sched.scheduler()
    without_context(events.enter, 0, 1, work)
    events.run()


def by_a_future(work):
    """Run ``work`` as the callback of a future that the flow completes."""
    future = concurrent.futures.Future()
    without_context(future.add_done_callback, lambda _: work())
    future.set_result(None)


def by_a_finalizer(work):
    """Run ``work`` as the flow drops the last reference to something."""

    class Something:
        pass

    something = Something()
    weakref.finalize(something, work)
    del something
    gc.collect()


@pytest.mark.parametrize("run", [by_a_signal, by_a_scheduler, by_a_future, by_a_finalizer])
def test_work_of_nobody_is_no_part_of_a_batch(run, tracer, requests):
    """Also where the last item has no context, as such work has none."""
    waiting, form, seen = queue.Queue(), STOCK[0], []
    requests.put(form, waiting, "a", None)

    def work():
        with tracer.start_as_current_span("work of nobody") as span:
            seen.append((span.parent, span.links))

    def consume():
        form.get(waiting)
        form.get(waiting)
        run(work)
        return requests.look()[1]

    assert without_context(consume) == ["a"]
    assert seen == [(None, ())]


def test_nothing_keeps_what_items_had_in_common(requests):
    """Once the flow has left their context in another way, nothing refers to that."""

    class Value:
        pass

    waiting, form, value = queue.Queue(), STOCK[0], Value()
    reference = weakref.ref(value)

    def put(value):
        attach(set_value("shared", value))
        for _ in range(2):
            with requests._tracer.start_as_current_span("put"):
                form.put(waiting, (1,))

    without_context(put, value)
    token = attach(Context())
    for _ in range(2):
        form.get(waiting)
    assert get_value("shared") is value
    detach(token)
    del value, token
    gc.collect()
    assert reference() is None
