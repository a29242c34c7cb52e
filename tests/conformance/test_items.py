"""What is expected of an item that is handed from one flow of control to another.

Its spans belong to whoever put it, from ``get`` until the consumer is done with it and not a moment
longer; and where that cannot be told they belong to nobody, but never to somebody else.
"""

from __future__ import annotations

import contextlib
import contextvars
import queue
import threading
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor

import pytest
from forms import WAIT, without_context
from item_forms import FORMS, STOCK, Evicting, eventually
from opentelemetry import baggage, trace
from opentelemetry.context import Context, attach, detach, get_current, get_value, set_value

from interpreters import weak_reference
from otel_concurrency import ConcurrencyInstrumentor

pytestmark = pytest.mark.usefixtures("instrumented")

exact = [form for form in FORMS if form.exact]
threaded = [form for form in FORMS if not form.asynchronous]
bounded = [form for form in STOCK if form.bounded]
looked_into = [form for form in bounded if form.exact]


def forms(which):
    """Run a test for each of these queue classes."""
    return pytest.mark.parametrize("form", which, ids=repr)


class Hostile:
    """An item that must not be looked at."""

    def __eq__(self, other):
        raise AssertionError("the item was compared")

    __hash__ = None

    def __bool__(self):
        raise AssertionError("the item was tested")

    def __repr__(self):
        raise AssertionError("the item was printed")


class Job:
    """An item that sorts, hashes and can be referred to weakly."""

    def __init__(self, number=0):
        self.number = number

    def __lt__(self, other):
        return self.number < other.number


THE_SAME = ("the same",)

ITEMS = {
    "different ones": ("sortable hashable", [(3,), (1,), (2,), (5,), (4,)]),
    "None": ("hashable", [None, None, None, None]),
    "None once": ("sortable hashable", [None]),
    "small integers": ("sortable hashable", [2, 1, 2, 2, 1]),
    "interned strings": ("sortable hashable", ["b", "a", "b", "", "a"]),
    "equal ones": ("sortable hashable", [tuple("ab") for _ in range(5)]),
    "the same one": ("sortable hashable", [THE_SAME] * 4),
    "hostile ones": ("", [Hostile() for _ in range(4)]),
    "jobs": ("sortable hashable", [Job(n) for n in (3, 1, 2, 4)]),
}


def every_form_and_items(*without):
    """Run a test for each queue class with each kind of items that it can hold."""
    return pytest.mark.parametrize(
        ("form", "items"),
        [
            pytest.param(form, items, id=f"{form}, {name}")
            for form in FORMS
            for name, (kinds, items) in ITEMS.items()
            if name not in without and (form.takes == "anything" or form.takes in kinds)
        ],
    )


def handle(form, queue, spans, number=None):
    """Get ``number`` items, or all, in the present flow; return (item, parent of its spans)s."""
    handled = []
    while number is None or len(handled) < number:
        if number is None and queue.empty():
            break
        item = form.get(queue)
        handled.append((item, spans.parent()))
    return handled


def assert_not_anothers(handled, put, *, exact):
    """Assert that each item was handled under one of its own producers, a different one each."""
    left = list(put)
    for item, parent in handled:
        if parent is None and not exact:
            continue
        mine = [n for n, (other, name) in enumerate(left) if other is item and name == parent]
        assert mine, f"handled under {parent}"
        del left[mine[0]]


# Pairing


@every_form_and_items()
def test_each_item_is_handled_under_its_own_producer(form, items, spans):
    """Also where items are equal, identical, or not to be looked at."""
    queue = form.make()
    put = [(item, f"producer {n}") for n, item in enumerate(items)]
    for item, producer in put:
        form.put_under(spans, producer, queue, item)

    handled = without_context(handle, form, queue, spans)

    assert_not_anothers(handled, put, exact=form.exact)
    producers = [producer for _, producer in put]
    if form.order == "first":
        assert [parent for _, parent in handled] == producers
    elif form.order == "last":
        assert [parent for _, parent in handled] == producers[::-1]


@every_form_and_items("None once")  # two of them do not sort
def test_items_that_are_put_and_got_in_turns(form, items, spans):
    """A queue that fills and drains and fills again keeps its pairs."""
    queue = form.make()
    flow = contextvars.Context()
    put, handled = [], []
    for turn in range(3):
        for n, item in enumerate(items):
            put.append((item, f"producer {turn}.{n}"))
            form.put_under(spans, put[-1][1], queue, item)
            if n % 2 and not queue.empty():
                handled += flow.run(handle, form, queue, spans, 1)
        if turn != 1:
            handled += flow.run(handle, form, queue, spans)

    assert_not_anothers(handled, put, exact=form.exact)


@every_form_and_items()
def test_an_item_that_is_put_without_context_is_nobodys(form, items, spans):
    """It is handled under nothing, between items that have a producer."""
    queue = form.make()
    put = [(item, None if n % 2 else f"producer {n}") for n, item in enumerate(items)]
    for item, producer in put:
        form.put_under(spans, producer, queue, item)

    handled = without_context(handle, form, queue, spans)

    assert_not_anothers(handled, put, exact=form.exact)


@forms(exact)
def test_nothing_is_left_of_an_item_when_the_next_has_no_context(form, spans):
    """The next item is not handled under the one before."""
    queue = form.make()
    flow = contextvars.Context()
    seen = []
    for producer in ("a", None, None, "b", None):
        form.put_under(spans, producer, queue, (1,))
        seen += [parent for _, parent in flow.run(handle, form, queue, spans)]

    assert seen == ["a", None, None, "b", None]


@forms(FORMS)
def test_items_that_lay_in_the_queue_before_it_was_instrumented(form, spans):
    """They are nobody's, and those that are put after them are not theirs."""
    ConcurrencyInstrumentor().uninstrument()
    queue = form.make()
    early = [((n,), f"early {n}") for n in range(3)]
    for item, producer in early:
        form.put_under(spans, producer, queue, item)
    ConcurrencyInstrumentor().instrument()
    late = [((n + 10,), f"late {n}") for n in range(3)]
    for item, producer in late:
        form.put_under(spans, producer, queue, item)

    handled = without_context(handle, form, queue, spans)

    assert {parent for item, parent in handled if item[0] < 10} <= {None}
    assert_not_anothers(handled, late, exact=False)


@forms([form for form in STOCK if form.bounded])
def test_a_queue_of_before_carries_what_is_put_to_it_now(form, spans):
    """A stock queue that was made, and holds items, from before ``instrument()`` is covered."""
    ConcurrencyInstrumentor().uninstrument()
    queue = form.make()
    form.put(queue, (2,))
    ConcurrencyInstrumentor().instrument()
    form.put_under(spans, "a", queue, (1,))
    form.put_under(spans, "b", queue, (3,))

    handled = without_context(handle, form, queue, spans)

    assert sorted(handled) == [((1,), "a"), ((2,), None), ((3,), "b")]


class CopyingContainer:
    """Keeps a copy of what it is given, and gives the last first, under the stock methods."""

    def __init__(self):
        self.copies = []

    def __len__(self):
        return len(self.copies)

    def append(self, item):
        self.copies.append(bytes(item))

    def popleft(self):
        return bytearray(self.copies.pop())


class Copying:
    """A queue whose items leave it as other objects than they came, in an order of its own."""

    def _init(self, maxsize):
        self.queue = self._queue = CopyingContainer()


class CopyingOverride:
    """The same, by overridden methods."""

    def _init(self, maxsize):
        self.queue = self._queue = []

    def _put(self, item):
        self.queue.append(bytes(item))

    def _get(self):
        return bytearray(self.queue.pop())


@pytest.mark.parametrize("kind", [Copying, CopyingOverride])
def test_an_object_that_takes_the_place_of_an_item_in_memory_is_not_taken_for_it(kind, spans):
    """An item that is copied on its way dies, and another may get its address: it is nobody's."""
    queued = type(kind.__name__, (kind, queue.Queue), {})()
    for n in range(250):
        with spans.current(str(n)):
            queued.put(bytearray([n]))  # dies with this statement

    def consume():
        return [(item[0], spans.parent()) for item in iter_all(queued)]

    handled = without_context(consume)

    assert [number for number, _ in handled] == list(range(250))[::-1]
    assert [(n, parent) for n, parent in handled if parent not in (None, str(n))] == []


def iter_all(queue):
    """Get items until there are none."""
    while not queue.empty():
        yield queue.get()


@pytest.mark.parametrize("asynchronous", [False, True], ids=["queue", "asyncio"])
@pytest.mark.parametrize("make", [lambda n: n % 4, lambda n: bytearray([n])], ids=["same", "new"])
def test_an_item_that_was_evicted_does_not_leave_its_context_to_another(asynchronous, make, spans):
    """A new item evicts an old one: neither the same object, put again, nor its address is it."""
    form = next(form for form in STOCK if form.asynchronous is asynchronous)
    queue = type("EvictingQueue", (Evicting, type(form.make())), {})()
    flow = contextvars.Context()
    put, wrong = [], []  # the producers of what is in the queue, kept in the same way
    for n in range(200):
        form.put_under(spans, str(n), queue, make(n))
        put = [*put, str(n)][-3:]
        for _ in range(n % 3):
            if put:
                _, parent = flow.run(handle, form, queue, spans, 1)[0]
                if parent not in (None, put.pop()):
                    wrong.append((n, parent))

    assert wrong == []


@forms(bounded)
@pytest.mark.parametrize("place", [0, -1])
def test_an_object_in_the_place_of_one_that_was_removed_by_hand(form, place, spans):
    """An item that is put where a removed one was in memory is not handled under its producer."""
    queue = form.make()
    flow = contextvars.Context()
    wrong = []
    for n in range(100):
        for producer in (f"{n}, first", f"{n}, removed", f"{n}, last"):
            form.put_under(spans, producer, queue, bytearray(producer, "ascii"))
            if producer.endswith("removed"):
                del container(queue)[place]
        while not queue.empty():
            ((item, parent),) = flow.run(handle, form, queue, spans, 1)
            if parent not in (None, item.decode()):
                wrong.append((item, parent))

    assert wrong == []


@forms(threaded)
def test_several_producers_and_consumers_race_on_one_queue(form, spans):
    """Four threads put, four get, and every item is handled under its own producer's span."""
    queue = form.make()
    number, stop = 100, threading.Event()
    put, handled = [], []

    def produce(name):
        for n in range(number):
            item = (n, name)
            with spans.current(f"{name}.{n}"):
                put.append((item, f"{name}.{n}"))
                queue.put(item)

    def consume():
        while True:
            is_last = stop.is_set()
            try:
                item = queue.get(block=False)
            except form.empty:
                if is_last:
                    return
                stop.wait(0.001)
            else:
                handled.append((item, spans.parent()))

    producers = [threading.Thread(target=produce, args=(name,)) for name in "abcd"]
    consumers = [threading.Thread(target=consume) for _ in range(4)]
    for thread in (*producers, *consumers):
        thread.start()
    for thread in producers:
        thread.join(WAIT)
    stop.set()
    for thread in consumers:
        thread.join(WAIT)

    if form.exact:
        assert sorted(handled) == sorted(put)
    wrong = [(item, parent) for item, parent in handled if parent != f"{item[1]}.{item[0]}"]
    assert [case for case in wrong if form.exact or case[1] is not None] == []


# What travels


@forms(STOCK)
def test_baggage_alone_is_carried(form):
    """A context without a span is carried like any other."""
    queue = form.make()

    def produce():
        attach(baggage.set_baggage("order", "1042"))
        form.put(queue, (1,))

    def consume():
        form.get(queue)
        return baggage.get_baggage("order")

    without_context(produce)

    assert without_context(consume) == "1042"


@forms(STOCK)
def test_the_context_itself_is_carried(form):
    """By reference, with whatever keys it has."""
    queue = form.make()
    context = set_value("key", object())

    def produce():
        attach(context)
        form.put(queue, (1,))

    def consume():
        form.get(queue)
        return get_current()

    without_context(produce)

    assert without_context(consume) is context


@forms(STOCK)
def test_the_nowait_methods_carry_as_well(form, spans):
    """``put_nowait`` and ``get_nowait`` are hand-offs like ``put`` and ``get``."""
    queue = form.make()

    def produce():
        with spans.current("a"):
            queue.put_nowait((1,))

    def consume():
        return queue.get_nowait(), spans.parent()

    without_context(produce)

    assert without_context(consume) == ((1,), "a")


# Adopting


@forms(STOCK)
def test_a_flow_that_has_a_live_span_keeps_it(form, spans):
    """A request handler that collects results inside its own span stays there."""
    queue = form.make()
    for producer in ("a", None, "b"):
        form.put_under(spans, producer, queue, (1,))

    def handler():
        with spans.current("request"):
            seen = [spans.parent(), *(parent for _, parent in handle(form, queue, spans))]
            return seen, spans.parent(), get_current()

    seen, after, _ = without_context(handler)

    assert seen == ["request"] * 4
    assert after == "request"


@forms(STOCK)
def test_a_span_around_get_is_kept_and_leaves_nothing_behind(form, spans):
    """A consumer that opens its own span around ``get`` is in no context after it."""
    queue = form.make()
    flow = contextvars.Context()
    for producer in ("a", "b"):
        form.put_under(spans, producer, queue, (1,))

    def consume():
        with spans.current("own"):
            ((_, parent),) = handle(form, queue, spans, 1)
        return parent, spans.parent()

    assert flow.run(consume) == ("own", None)
    assert flow.run(handle, form, queue, spans) == [((1,), "b" if form.order != "last" else "a")]


@forms(STOCK)
def test_a_remote_or_unsampled_span_is_kept_as_well(form, spans):
    """A span that cannot say whether it has ended is taken for alive."""
    queue = form.make()
    form.put_under(spans, "a", queue, (1,))
    remote = trace.NonRecordingSpan(
        trace.SpanContext(trace_id=1, span_id=2, is_remote=True, trace_flags=trace.TraceFlags(1))
    )
    own = trace.set_span_in_context(remote, Context())

    def consume():
        attach(own)
        form.get(queue)
        return get_current()

    assert without_context(consume) is own


@forms(STOCK)
def test_a_flow_whose_span_has_ended_adopts(form, spans):
    """A span that is over is nothing that the flow has going."""
    queue = form.make()
    form.put_under(spans, "a", queue, (1,))

    def consume():
        span = spans.start("over")
        idle = trace.set_span_in_context(span, Context())
        attach(idle)
        span.end()
        seen = handle(form, queue, spans, 1)
        with pytest.raises(form.empty):
            queue.get_nowait()
        return seen, get_current()

    assert without_context(consume) == ([((1,), "a")], {})


@forms(STOCK)
def test_the_idle_context_is_replaced_and_comes_back(form, spans):
    """A flow with baggage of its own has the item's instead, and then its own, the very object."""
    queue = form.make()
    form.put_under(spans, "a", queue, (1,))

    def consume():
        idle = set_value("of the consumer", True, Context())
        attach(idle)
        ((_, parent),) = handle(form, queue, spans, 1)
        adopted = get_current()
        with pytest.raises(form.empty):
            queue.get_nowait()
        return parent, get_value("of the consumer", adopted), get_current() is idle

    assert without_context(consume) == ("a", None, True)


@forms(STOCK)
def test_an_item_without_context_hides_the_idle_one(form):
    """What was put in no context is handled in none, also where the flow has baggage."""
    queue = form.make()
    form.put(queue, (1,))

    def consume():
        idle = set_value("of the consumer", True, Context())
        attach(idle)
        form.get(queue)
        adopted = get_current()
        with pytest.raises(form.empty):
            queue.get_nowait()
        return adopted, get_current() is idle

    assert without_context(consume) == ({}, True)


@forms(STOCK)
def test_a_span_of_the_items_work_is_a_child_and_its_own_scope(form, spans, tracer):
    """A span that the consumer opens for an item is the producer's child, and closes as ever."""
    queue = form.make()
    form.put_under(spans, "a", queue, (1,))

    def consume():
        form.get(queue)
        adopted = get_current()
        with tracer.start_as_current_span("handle") as span:
            inner = trace.get_current_span() is span
        return inner, get_current() is adopted, spans.parent()

    assert without_context(consume) == (True, True, "a")


# Letting go


@forms(STOCK)
def test_asking_an_empty_queue_lets_go(form, spans):
    """A consumer that finds nothing is back in its idle context."""
    queue = form.make()
    form.put_under(spans, "a", queue, (1,))

    def consume():
        seen = handle(form, queue, spans, 1)
        with pytest.raises(form.empty):
            queue.get_nowait()
        return [*seen, spans.parent(), get_current()]

    assert without_context(consume) == [((1,), "a"), None, {}]


@forms(STOCK)
def test_asking_any_other_queue_lets_go(form, spans):
    """Of whatever class the queues are, and whether or not the other has ever seen a context."""
    for other_form in STOCK:
        queue, other = form.make(), other_form.make()
        form.put_under(spans, "a", queue, (1,))
        other_form.put(other, (2,))

        def consume(queue=queue, other=other, other_form=other_form):
            seen = handle(form, queue, spans, 1) + handle(other_form, other, spans, 1)
            with pytest.raises(form.empty):
                queue.get_nowait()
            return [*seen, spans.parent()]

        assert without_context(consume) == [((1,), "a"), ((2,), None), None], other_form


@forms(bounded)
def test_task_done_lets_go(form, spans):
    """After the work, ``task_done`` ends it."""
    queue = form.make()
    form.put_under(spans, "a", queue, (1,))

    def consume():
        seen = handle(form, queue, spans, 1)
        queue.task_done()
        return [*seen, spans.parent(), get_current()]

    assert without_context(consume) == [((1,), "a"), None, {}]


@forms(bounded)
def test_task_done_before_the_work_lets_go_as_well(form, spans):
    """A consumer that says that it is done is believed: what it does then is nobody's."""
    queue = form.make()
    for producer in ("a", "b"):
        form.put_under(spans, producer, queue, (1,))

    def consume():
        seen = []
        for _ in range(2):
            form.get(queue)
            queue.task_done()
            seen.append(spans.parent())
        return seen

    assert without_context(consume) == [None, None]


@forms(bounded)
def test_task_done_of_another_queue_lets_go(form, spans):
    """An item that was taken from one queue and counted in another is done, too."""
    queue, counter = form.make(), form.make()
    form.put_under(spans, "a", queue, (1,))
    form.put(counter, (1,))
    form.get(counter)

    def consume():
        form.get(queue)
        counter.task_done()
        return spans.parent()

    assert without_context(consume) is None


@forms(bounded)
def test_task_done_once_too_often_raises_and_lets_go(form, spans):
    """The error is the queue's own."""
    queue = form.make()
    form.put_under(spans, "a", queue, (1,))

    def consume():
        form.get(queue)
        queue.task_done()
        with pytest.raises(ValueError, match="called too many times"):
            queue.task_done()
        return get_current()

    assert without_context(consume) == {}


@forms(bounded)
def test_task_done_inside_a_span_of_the_work(form, spans, tracer):
    """The span around ``task_done`` ends, the next item is handled under its own producer."""
    queue = form.make()
    producers = {name: spans.start(name) for name in ("a", "b", "c")}  # all of them live on
    form.put_under(spans, "warm up", queue, (0,))

    def produce(name):
        with trace.use_span(producers[name]):
            form.put(queue, (1,))

    def consume():
        seen = handle(form, queue, spans, 1)
        for name in producers:
            contextvars.Context().run(produce, name)
            seen += handle(form, queue, spans, 1)
            with tracer.start_as_current_span("handle"):
                queue.task_done()
        with pytest.raises(form.empty):
            queue.get_nowait()
        return [parent for _, parent in seen], get_current()

    assert without_context(consume) == (["warm up", "a", "b", "c"], {})


@forms(STOCK)
def test_a_batch_that_is_drained_inside_a_span_of_its_first_item(form, spans, tracer):
    """The batch's span keeps what is drained into it; the next batch starts anew."""
    queue = form.make()
    producers = {name: spans.start(name) for name in ("a", "b", "c", "d")}  # all of them live on

    def produce(name, number):
        with trace.use_span(producers[name]):
            form.put(queue, (number,))

    def consume(names):
        contextvars.Context().run(produce, names[0], 0)
        ((_, first),) = handle(form, queue, spans, 1)
        contextvars.Context().run(produce, names[1], 1)
        with tracer.start_as_current_span("batch") as batch:
            queue.get_nowait()
            kept = trace.get_current_span() is batch
            with pytest.raises(form.empty):
                queue.get_nowait()
        return first, kept

    def loop():
        seen = [consume("ab"), consume("cd")]
        with pytest.raises(form.empty):
            queue.get_nowait()
        return seen, get_current()

    assert without_context(loop) == ([("a", True), ("c", True)], {})


@forms(STOCK)
def test_a_batch_that_is_drained_item_by_item(form, spans):
    """Each item of a batch is handled under its own producer, and after it nothing is left."""
    queue = form.make()
    put = [((n,), f"producer {n}") for n in range(5)]
    for item, producer in put:
        form.put_under(spans, producer, queue, item)

    def consume():
        handled = handle(form, queue, spans, 1)
        while True:
            try:
                item = queue.get_nowait()
            except form.empty:
                return handled, get_current()
            handled.append((item, spans.parent()))

    handled, left = without_context(consume)

    assert sorted(handled) == put
    assert left == {}


@forms(STOCK)
def test_nothing_of_somebody_elses_is_undone(form, spans):
    """A context that the work attached and did not detach stays when the item is let go."""
    queue = form.make()
    form.put_under(spans, "a", queue, (1,))

    def consume():
        form.get(queue)
        theirs = set_value("theirs", True)
        attach(theirs)
        with pytest.raises(form.empty):
            queue.get_nowait()
        return get_current() is theirs

    assert without_context(consume) is True


@forms(STOCK)
def test_a_token_of_before_the_item_can_be_detached_in_its_work(form, caplog):
    """Whoever attached before ``get`` and detaches after it gets no complaint."""
    queue = form.make()

    def produce():
        attach(set_value("value", "a"))
        form.put(queue, (1,))

    def consume():
        token = attach(set_value("value", "of the consumer"))
        form.get(queue)
        seen = get_value("value")
        detach(token)
        with pytest.raises(form.empty):
            queue.get_nowait()
        return seen, get_current()

    without_context(produce)

    assert without_context(consume) == ("a", {})
    assert caplog.records == []


@forms(STOCK)
def test_an_items_work_that_gets_from_another_queue(form, spans):
    """The other item's work is its own producer's; when that is done the flow is idle."""
    queue, other = form.make(), form.make()
    form.put_under(spans, "a", queue, (1,))
    form.put_under(spans, "b", queue, (1,))
    form.put_under(spans, "of the other", other, (1,))

    def consume():
        seen = handle(form, queue, spans, 1)
        seen += handle(form, other, spans, 1)
        seen += handle(form, queue, spans, 1)
        with pytest.raises(form.empty):
            other.get_nowait()
        return [parent for _, parent in seen], get_current()

    expected = ["b", "of the other", "a"] if form.order == "last" else ["a", "of the other", "b"]
    assert without_context(consume) == (expected, {})


@forms(STOCK)
def test_what_an_items_work_puts_belongs_to_the_same_trace(form, spans):
    """A pipeline: what a stage puts while it handles an item is put under the item's producer."""
    queue, next_stage = form.make(), form.make()
    for producer in ("a", None, "b"):
        form.put_under(spans, producer, queue, (1,))

    def stage():
        handled = []
        while not queue.empty():
            form.get(queue)
            handled.append(spans.parent())
            form.put(next_stage, (2,))
        with pytest.raises(form.empty):
            queue.get_nowait()
        return handled

    handled = without_context(stage)
    stored = [parent for _, parent in without_context(handle, form, next_stage, spans)]

    assert sorted(map(str, handled)) == ["None", "a", "b"]
    assert stored == (handled[::-1] if form.order == "last" else handled)


# Where consumers live


@forms(STOCK)
def test_a_consumer_loop_in_a_pool_task(form, spans):
    """What the task was submitted in is replaced for good, and the worker is clean after it."""
    queue = form.make()
    for producer in ("a", None):
        form.put_under(spans, producer, queue, (1,))

    def consume():
        before = spans.parent()
        seen = handle(form, queue, spans)
        with pytest.raises(form.empty):
            queue.get_nowait()
        return [before, {parent for _, parent in seen}, spans.parent()]

    with ThreadPoolExecutor(1) as pool:
        with spans.current("submitter"):
            future = pool.submit(consume)
        seen = future.result(WAIT)
        idle = pool.submit(get_current).result(WAIT)

    assert seen == ["submitter", {"a", None}, None]
    assert idle == {}


@forms(STOCK)
@pytest.mark.parametrize("submitted_in", ["submitter", None])
def test_a_pool_task_that_ends_with_an_item_leaves_its_worker_clean(form, spans, submitted_in):
    """The end of the task is the end of the item's work."""
    queue = form.make()
    form.put_under(spans, "a", queue, (1,))

    with ThreadPoolExecutor(1) as pool:
        if submitted_in is None:
            future = pool.submit(handle, form, queue, spans, 1)
        else:
            with spans.current(submitted_in):
                future = pool.submit(handle, form, queue, spans, 1)
        seen = future.result(WAIT)
        after = pool.submit(lambda: (spans.parent(), get_current())).result(WAIT)
        form.put_under(spans, "b", queue, (1,))
        again = pool.submit(handle, form, queue, spans, 1).result(WAIT)
        last = pool.submit(get_current).result(WAIT)

    assert seen == [((1,), "a")]
    assert after == (None, {})
    assert again == [((1,), "b")]
    assert last == {}


@forms(STOCK)
def test_a_pool_task_with_a_span_of_its_own_keeps_it(form, spans):
    """A handler in a pool that works inside its own span collects results there."""
    queue = form.make()
    form.put_under(spans, "a", queue, (1,))

    def handler():
        with spans.current("handler"):
            return handle(form, queue, spans, 1)

    with ThreadPoolExecutor(1) as pool, spans.current("submitter"):
        future = pool.submit(handler)
    assert future.result(WAIT) == [((1,), "handler")]


@forms(STOCK)
def test_a_consumer_thread_that_was_started_in_a_span(form, spans):
    """It is where it was started up to the first item of another trace, and then in none."""
    queue = form.make()
    for producer in ("a", None):
        form.put_under(spans, producer, queue, (1,))
    seen = []

    def consume():
        seen.append(spans.parent())
        seen.append({parent for _, parent in handle(form, queue, spans)})
        with pytest.raises(form.empty):
            queue.get_nowait()
        seen.append(spans.parent())

    with spans.current("starter"):
        thread = threading.Thread(target=consume)
        thread.start()
    thread.join(WAIT)

    assert seen == ["starter", {"a", None}, None]


@forms(STOCK)
def test_a_thread_that_is_started_in_an_items_work(form, spans):
    """It starts under the item's producer, and leaves that for an item of its own."""
    queue, other = form.make(), form.make()
    form.put_under(spans, "a", queue, (1,))
    form.put_under(spans, "b", other, (1,))
    seen = []

    def helper():
        seen.append(spans.parent())
        seen.extend(parent for _, parent in handle(form, other, spans, 1))
        with pytest.raises(form.empty):
            other.get_nowait()
        seen.append(spans.parent())

    def consume():
        form.get(queue)
        thread = threading.Thread(target=helper)
        thread.start()
        thread.join(WAIT)
        return spans.parent()

    assert without_context(consume) == "a"
    assert seen == ["a", "b", None]


def test_a_done_callback_that_gets_an_item(spans):
    """The item replaces the context of the registration until the callback returns."""
    waiting = queue.Queue()
    future, seen = Future(), []

    def callback(_):
        seen.append(spans.parent())
        waiting.get()
        seen.append(spans.parent())

    with spans.current("a"):
        waiting.put(1)
    with spans.current("registrar"):
        future.add_done_callback(callback)
    future.set_result(None)

    assert seen == ["registrar", "a"]
    assert get_current() == {}


@forms(STOCK)
def test_a_consumer_in_the_main_thread(form, spans):
    """The main thread adopts and lets go like any other."""
    assert threading.current_thread() is threading.main_thread()
    queue = form.make()
    for producer in ("a", None, "b"):
        form.put_under(spans, producer, queue, (1,))

    seen = [parent for _, parent in handle(form, queue, spans)]
    with pytest.raises(form.empty):
        queue.get_nowait()

    assert sorted(map(str, seen)) == ["None", "a", "b"]
    assert get_current() == {}


@forms([form for form in threaded if form.exact])
def test_a_loop_over_iter_get(form, spans):
    """``iter(q.get, None)`` in a worker that runs since start-up handles each item as its own."""
    stop = (9,) if form.takes == "sortable" else None
    queue, handled = form.make(), []

    def work():
        for item in iter(queue.get, stop):
            handled.append((item, spans.parent()))
        handled.append(("after", spans.parent()))

    worker = threading.Thread(target=work)
    worker.start()
    for n, producer in enumerate(["a", None, "b", "c"]):
        if producer is None:
            queue.put((n,))
        else:
            with spans.current(producer):
                queue.put((n,))
        assert eventually(lambda n=n: len(handled) == n + 1)
    queue.put(stop)
    worker.join(WAIT)

    assert handled == [((0,), "a"), ((1,), None), ((2,), "b"), ((3,), "c"), ("after", None)]


@forms([form for form in threaded if form in bounded])
def test_a_worker_that_is_joined_by_join(form, spans):
    """``join`` returns when all is done, and takes nothing of it over."""
    queue, handled = form.make(), []

    def work():
        while (item := queue.get()) != (9,):
            handled.append((item, spans.parent()))
            queue.task_done()
        queue.task_done()

    worker = threading.Thread(target=work)
    worker.start()
    for n in range(3):
        with spans.current(str(n)):
            queue.put((n,))
        queue.join()
        assert get_current() == {}
    queue.put((9,))
    queue.join()
    worker.join(WAIT)

    assert handled == [((0,), "0"), ((1,), "1"), ((2,), "2")]


# Waiting, giving up


@forms([form for form in threaded if form in bounded])
def test_a_putter_that_waits_for_a_place_hands_on_its_own_context(form, spans):
    """Also where the place comes from a consumer that handles somebody else's item."""
    queue = form.make(1)
    form.put_under(spans, "a", queue, (1,))

    def produce():
        with spans.current("blocked"):
            queue.put((2,))

    def consume():
        return [(queue.get(timeout=WAIT), spans.parent()) for _ in range(2)]

    producer = threading.Thread(target=produce)
    producer.start()
    seen = without_context(consume)
    producer.join(WAIT)

    assert seen == [((1,), "a"), ((2,), "blocked")]


@forms(bounded)
def test_an_item_that_finds_no_place_leaves_nothing(form, spans, no_collector):
    """The context of a ``put`` that raises ``Full`` is gone, and the next item is not given it."""
    queue = form.make(1)
    form.put_under(spans, "a", queue, (1,))

    def produce():
        with spans.current("too many"):
            gone = weak_reference(get_current())
            with pytest.raises(form.full):
                queue.put_nowait((2,))
            if not form.asynchronous:
                with pytest.raises(form.full):
                    queue.put((2,), timeout=0.001)
                with pytest.raises(form.full):
                    queue.put((2,), False)
        return gone

    gone = without_context(produce)
    assert gone() is None
    seen = without_context(handle, form, queue, spans)
    form.put(queue, (3,))
    seen += without_context(handle, form, queue, spans)

    assert seen == [((1,), "a"), ((3,), None)]


@forms([form for form in threaded if form in STOCK])
def test_a_get_that_times_out_leaves_nothing(form, spans):
    """A consumer that waited in vain is idle, and adopts the next item as ever."""
    queue = form.make()
    form.put_under(spans, "a", queue, (1,))

    def consume():
        queue.get()
        seen = []
        for options in ({"timeout": 0.001}, {"block": False}):
            with pytest.raises(form.empty):
                queue.get(**options)
            seen.append(get_current())
        form.put_under(spans, "b", queue, (2,))
        seen.append((queue.get(timeout=WAIT), spans.parent()))
        with pytest.raises(form.empty):
            queue.get_nowait()
        return seen

    assert without_context(consume) == [{}, {}, ((2,), "b")]


if hasattr(queue, "ShutDown"):  # since 3.13

    @forms(bounded)
    def test_a_queue_that_is_shut_down_leaves_nothing(form, spans, no_collector):
        """What it still holds is handled as ever; then both sides fail and are in no context."""
        queue = form.make()
        form.put_under(spans, "a", queue, (1,))
        queue.shutdown()

        def produce():
            with spans.current("too late"):
                gone = weak_reference(get_current())
                with pytest.raises(form.shut_down):
                    queue.put_nowait((2,))
            return gone

        def consume():
            seen = handle(form, queue, spans, 1)
            with pytest.raises(form.shut_down):
                queue.get_nowait()
            return seen, get_current()

        assert without_context(produce)() is None
        assert without_context(consume) == ([((1,), "a")], {})

    @forms(bounded)
    def test_a_queue_that_is_shut_down_at_once_drops_its_contexts(form, spans, no_collector):
        """Whoever shuts it down adopts nothing, and no context outlives the items."""
        queue = form.make()
        gone = []

        def produce():
            with spans.current("a"):
                gone.append(weak_reference(get_current()))
                form.put(queue, (1,))

        def shut_down():
            queue.shutdown(immediate=True)
            return get_current()

        without_context(produce)
        without_context(produce)
        assert without_context(shut_down) == {}
        assert [reference() for reference in gone] == [None, None]

        def consume():
            with pytest.raises(form.shut_down):
                queue.get_nowait()
            return get_current()

        assert without_context(consume) == {}

    @forms(bounded)
    def test_whoever_shuts_a_queue_down_while_handling_its_item_stays_there(form, spans):
        """``shutdown(immediate=True)`` is no ``get``: it changes nobody's context."""
        queue = form.make()
        for producer in ("a", "b"):
            form.put_under(spans, producer, queue, (1,))

        def consume():
            ((_, before),) = handle(form, queue, spans, 1)
            queue.shutdown(immediate=True)
            return before, spans.parent()

        before, after = without_context(consume)

        assert before is not None
        assert after == before


# Reaching into the queue


@forms(looked_into)
def test_the_container_holds_the_users_objects_and_nothing_else(form, spans):
    """What waits can be looked at: the same container, with the same objects, in the same order."""
    queue, plain = form.make(), form.make()
    items = [(n,) for n in (3, 1, 2)]
    for item in items:
        form.put_under(spans, "a", queue, item)
    ConcurrencyInstrumentor().uninstrument()
    for item in items:
        form.put(plain, item)

    instrumented, expected = container(queue), container(plain)

    assert type(instrumented) is type(expected)
    assert [id(item) for item in instrumented] == [id(item) for item in expected]
    assert repr(instrumented) == repr(expected)


def container(queue):
    """Return where a stock queue keeps its items."""
    return queue.__dict__.get("queue", queue.__dict__.get("_queue"))


@forms(looked_into)
@pytest.mark.parametrize("place", [0, 1, -1])
def test_an_item_that_is_removed_by_hand(form, place, spans):
    """The others are handled under their own producers or nobody's; those put later, their own."""
    queue = form.make()
    put = [(None if form.takes == "anything" else THE_SAME, str(n)) for n in range(4)]
    for item, producer in put:
        form.put_under(spans, producer, queue, item)
    del container(queue)[place]

    handled = without_context(handle, form, queue, spans)
    for n in range(3):
        form.put_under(spans, f"later {n}", queue, (n,))
    later = without_context(handle, form, queue, spans)

    assert len(handled) == 3
    assert_not_anothers(handled, put, exact=False)
    assert [parent for _, parent in handled] in ([None] * 3, [str(n) for n in range(4)])
    assert sorted(later) == [((n,), f"later {n}") for n in range(3)]


@forms(looked_into)
def test_an_item_that_is_removed_by_hand_before_another_is_put(form, spans):
    """The one that is put then does not take the place of the one that was removed."""
    queue = form.make()
    for producer in ("a", "b"):
        form.put_under(spans, producer, queue, THE_SAME)
    del container(queue)[0]
    form.put_under(spans, "c", queue, THE_SAME)
    form.put_under(spans, None, queue, THE_SAME)

    handled = without_context(handle, form, queue, spans)

    assert {parent for _, parent in handled} <= {None}


@forms(looked_into)
@pytest.mark.parametrize("operation", ["put", "get"])
def test_contexts_of_items_that_were_removed_by_hand_go_with_the_next_operation(
    form, operation, spans, no_collector
):
    """A limit: until then they are held. The common idiom edits the container under the lock."""
    queue = form.make()
    gone = [put_in_a_context(form, queue, (n,)) for n in range(2)]
    form.put(queue, (2,))
    with queue.__dict__.get("mutex", contextlib.nullcontext()):
        del container(queue)[0], container(queue)[0]
    if operation == "put":
        form.put(queue, (3,))
    else:
        assert without_context(form.get, queue) == (2,)

    assert [context() for context in gone] == [None, None]
    assert {parent for _, parent in without_context(handle, form, queue, spans)} <= {None}


# What is kept alive


def put_in_a_context(form, queue, item):
    """Put in a context of its own; return a weak reference to that."""

    def put():
        attach(set_value("value", object()))
        form.put(queue, item)
        return weak_reference(get_current())

    return without_context(put)


@forms(FORMS)
def test_no_context_survives_a_drained_queue(form, spans, no_collector):
    """When the consumer is done with an item its context is gone, whatever class it came from."""
    queue = form.make()
    flow = contextvars.Context()
    for _ in range(2):
        gone = [put_in_a_context(form, queue, (n,)) for n in range(5)]
        flow.run(handle, form, queue, spans)
        with pytest.raises(form.empty):
            flow.run(queue.get_nowait)
        assert [reference() for reference in gone] == [None] * 5


@forms(FORMS)
def test_a_queue_that_dies_with_its_items_takes_their_contexts_along(form, no_collector):
    """At once, without the collector: no cycle leads through a queue."""
    queue = form.make()
    item = Job()
    contexts = [put_in_a_context(form, queue, item), put_in_a_context(form, queue, Job(1))]
    if not form.name.endswith("Ring"):
        assert contexts[-1]() is not None or not form.exact
    gone, item_gone = weak_reference(queue), weak_reference(item)
    del item

    del queue

    assert gone() is None
    assert item_gone() is None
    assert [context() for context in contexts] == [None, None]


@forms([form for form in FORMS if form.exact])
def test_an_item_that_is_got_is_not_kept(form, no_collector):
    """The library holds on to no item: it dies when the consumer drops it."""
    queue = form.make()
    item = Job()
    put_in_a_context(form, queue, item)
    gone = weak_reference(item)
    del item

    def consume():
        form.get(queue)

    flow = contextvars.Context()
    flow.run(consume)

    assert gone() is None


@forms(threaded)
def test_a_worker_that_waits_holds_nothing(form, spans, no_collector):
    """While it is blocked in ``get``, the context of the item before is gone."""
    queue, seen = form.make(), []
    stop = (9,)

    def work():
        while queue.get() is not stop:
            seen.append(spans.parent())

    worker = threading.Thread(target=work)
    worker.start()
    for _ in range(2):
        gone = put_in_a_context(form, queue, (1,))
        assert eventually(lambda gone=gone: gone() is None)
    queue.put(stop)
    worker.join(WAIT)

    assert len(seen) == 2


@forms([form for form in threaded if form in bounded])
def test_a_worker_that_waits_after_a_span_around_task_done_holds_nothing(
    form, spans, tracer, no_collector
):
    """Also where the item was let go inside a span of the work, and came back with its end."""
    queue, stop = form.make(), (9,)

    def work():
        while queue.get() is not stop:
            with tracer.start_as_current_span("handle"):
                queue.task_done()

    worker = threading.Thread(target=work)
    worker.start()
    gone = put_in_a_context(form, queue, (1,))
    let_go = eventually(lambda: gone() is None)
    queue.put(stop)
    worker.join(WAIT)

    assert let_go


def test_a_finished_thread_that_ended_with_an_item_holds_nothing(no_collector):
    """A thread object that is kept refers to no context."""
    waiting = queue.Queue()
    form = STOCK[0]
    contexts = [put_in_a_context(form, waiting, (n,)) for n in range(2)]

    def started_in_a_context():
        attach(set_value("value", "of the starter"))
        thread = threading.Thread(target=waiting.get)
        thread.start()
        return thread

    threads = [threading.Thread(target=waiting.get), without_context(started_in_a_context)]
    threads[0].start()
    for thread in threads:
        thread.join(WAIT)

    assert eventually(lambda: [context() for context in contexts] == [None, None])
    assert [name for thread in threads for name in vars(thread) if "otel" in name] == []


def test_a_held_future_of_a_task_that_ended_with_an_item_holds_nothing(no_collector):
    """Nor does the pool's worker."""
    waiting = queue.Queue()
    gone = put_in_a_context(STOCK[0], waiting, (1,))
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(waiting.get)
        assert future.result(WAIT) == (1,)
        assert eventually(lambda: gone() is None)


# Off and on again


@forms(STOCK)
def test_items_that_wait_while_it_is_switched_off_are_handled_without_context(form, spans):
    """They arrive, in order, under nobody."""
    queue = form.make()
    for n in range(3):
        form.put_under(spans, str(n), queue, (n,))
    ConcurrencyInstrumentor().uninstrument()
    form.put_under(spans, "late", queue, (3,))

    handled = without_context(handle, form, queue, spans)

    assert sorted(handled) == [((n,), None) for n in range(4)]


@forms(STOCK)
def test_a_consumer_that_holds_an_item_while_it_is_switched_off_lets_go_with_the_next(form, spans):
    """The next item of that queue is not handled under the one before."""
    queue = form.make()
    for n in range(2):
        form.put_under(spans, str(n), queue, (n,))

    def consume():
        ((_, first),) = handle(form, queue, spans, 1)
        switched_off = threading.Thread(target=ConcurrencyInstrumentor().uninstrument)
        switched_off.start()
        switched_off.join(WAIT)
        return first, spans.parent(), handle(form, queue, spans)

    first, still, rest = without_context(consume)

    assert first is not None
    assert still == first
    assert [parent for _, parent in rest] == [None]


@forms(STOCK)
@pytest.mark.parametrize("got", [0, 1, 2, 3])
@pytest.mark.parametrize("put", [0, 1, 2, 3])
def test_switching_it_on_again_confuses_nothing(form, spans, put, got):
    """Whatever happened to the queue in between, no item is handled under another's producer."""
    queue = form.make()
    item = THE_SAME if form.takes == "sortable" else None
    consumer = contextvars.Context()
    for n in range(3):
        form.put_under(spans, f"before {n}", queue, item)
    ConcurrencyInstrumentor().uninstrument()
    consumer.run(handle, form, queue, spans, got)
    for n in range(put):
        form.put_under(spans, f"off {n}", queue, item)
    ConcurrencyInstrumentor().instrument()
    form.put_under(spans, "after", queue, item)
    seen = [parent for _, parent in consumer.run(handle, form, queue, spans)]

    later = []
    for n in range(2):
        form.put_under(spans, f"later {n}", queue, item)
        later += [parent for _, parent in consumer.run(handle, form, queue, spans)]

    assert len(seen) == 3 - got + put + 1
    own = {"first": [*["before"] * (3 - got), *["off"] * put, "after"]}
    own["last"] = [*reversed(own["first"])]
    for parent, origin in zip(seen, own.get(form.order, own["first"]), strict=True):
        assert parent is None or parent.startswith(origin)
    assert later == ["later 0", "later 1"]


@forms(STOCK)
def test_what_is_left_of_a_queue_that_was_switched_off_is_dropped_with_it(form, no_collector):
    """Contexts of items that wait do not outlive them, on or off."""
    queue = form.make()
    contexts = [put_in_a_context(form, queue, (n,)) for n in range(2)]
    ConcurrencyInstrumentor().uninstrument()
    for _ in range(2):
        without_context(form.get, queue)

    del queue
    assert [context() for context in contexts] == [None, None]


def test_one_primitive_can_be_switched_off_alone(spans):
    """With ``queue`` off, asyncio's are carried, and the other way round."""
    ConcurrencyInstrumentor().uninstrument()
    for off in ("queue", "asyncio"):
        ConcurrencyInstrumentor().instrument(**{off: "off"})
        for form in STOCK:
            waiting = form.make()
            form.put_under(spans, "a", waiting, (1,))
            handled = without_context(handle, form, waiting, spans)
            carried = form.asynchronous is (off == "queue")
            assert handled == [((1,), "a" if carried else None)], form
        ConcurrencyInstrumentor().uninstrument()


def test_a_simple_queue_that_was_bound_too_early_is_plain(spans):
    """A limit: ``from queue import SimpleQueue`` before ``instrument()`` keeps the C class."""
    ConcurrencyInstrumentor().uninstrument()
    plain = queue.SimpleQueue
    ConcurrencyInstrumentor().instrument()
    waiting = plain()
    with spans.current("a"):
        waiting.put(1)

    def consume():
        return waiting.get(), spans.parent()

    assert without_context(consume) == (1, None)
    assert isinstance(waiting, queue.SimpleQueue)
    assert type(container(queue.Queue())) is deque
