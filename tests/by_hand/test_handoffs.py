"""Capture, attach and detach by hand: in one flow and in many, with the library off and on."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import copy
import functools
import gc
import pickle
import random
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from opentelemetry import baggage, trace
from opentelemetry.context import Context, attach, detach, get_current, get_value, set_value
from seen import NOTHING, WAIT, context_of, current, id_of, in_context, without_context

import otel_concurrency
from interpreters import measures_memory, weak_reference
from otel_concurrency import HandOff, Policy, batch, capture, clean, wrap

pytestmark = pytest.mark.usefixtures("library")


# --- with ---


def test_a_captured_context_is_attached_and_detached(request_span, parent_of):
    """Inside `with`, spans are children of the captured span; afterwards nothing is left."""
    handoff = capture()

    def pick_up():
        with handoff:
            assert current() == (id_of(request_span), "acme")
            assert parent_of() == id_of(request_span)
        assert current() == NOTHING

    without_context(pick_up)


def test_the_context_is_the_one_at_the_time_of_capture(tracer, request_span):
    """What becomes current later changes nothing."""
    handoff = capture()
    with tracer.start_as_current_span("later"), handoff:
        assert current() == (id_of(request_span), "acme")


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_it_is_detached_whatever_is_raised(error, request_span):
    """An exception from inside passes, and nothing is left attached."""
    handoff = capture()

    def pick_up():
        with pytest.raises(error), handoff:
            raise error
        assert current() == NOTHING

    without_context(pick_up)


def test_what_is_left_attached_inside_goes_with_it(request_span):
    """Who attaches inside and forgets to detach leaves nothing for who comes after."""
    handoff = capture()

    def pick_up():
        with handoff:
            attach(baggage.set_baggage("tenant", "other"))
        assert current() == NOTHING

    without_context(pick_up)


def test_captured_with_nothing_current_nothing_is_current_inside(tracer):
    """A hand-off that was captured outside any span hides the span that it is entered in."""
    handoff = capture()
    with tracer.start_as_current_span("somebody's"):
        with handoff:
            assert current() == NOTHING
        assert current() != NOTHING


def test_with_gives_the_hand_off(request_span):
    """`with capture() as handoff` names it, and its context is readable."""
    with capture() as handoff:
        assert handoff.context is get_current()


def test_it_is_entered_again_inside_itself(tracer, request_span):
    """One hand-off is nested in itself, and in others, to any depth."""
    handoff = capture()
    with tracer.start_as_current_span("inner") as inner:
        other = capture()

    def pick_up():
        with handoff:
            with other:
                with handoff:
                    with handoff, other:
                        assert current()[0] == id_of(inner)
                    assert current()[0] == id_of(request_span)
                assert current()[0] == id_of(inner)
            assert current()[0] == id_of(request_span)
        assert current() == NOTHING

    without_context(pick_up)
    without_context(pick_up)


def test_it_is_entered_by_an_exit_stack(request_span):
    """`ExitStack.enter_context` takes it, and leaves it."""
    handoff = capture()

    def pick_up():
        with contextlib.ExitStack() as stack:
            stack.enter_context(handoff)
            assert current()[0] == id_of(request_span)
        assert current() == NOTHING

    without_context(pick_up)


def test_many_threads_are_inside_at_once(request_span):
    """Eight threads enter one hand-off and leave it in any order, each for itself."""
    handoff = capture()
    inside, go_on = threading.Barrier(8), threading.Barrier(8)

    def pick_up(number):
        seen = []
        for _ in range(20):
            with handoff:
                inside.wait(WAIT)
                seen.append(current())
                with handoff:
                    seen.append(current())
            seen.append(current())
            go_on.wait(WAIT)
        return seen

    request = (id_of(request_span), "acme")
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda number: without_context(pick_up, number), range(8)))
    assert results == [[request, request, NOTHING] * 20] * 8


def test_tasks_of_one_thread_are_inside_in_turn(request_span):
    """Tasks that wait inside one hand-off see what is theirs, whichever leaves first."""
    handoff = capture()
    request = (id_of(request_span), "acme")

    async def task(number, events):
        assert current() == NOTHING
        async with asyncio.timeout(WAIT) if sys.version_info >= (3, 11) else _nothing():
            with handoff:
                events[number].set()
                for event in events:
                    await event.wait()
                for _ in range(number):
                    await asyncio.sleep(0)
                    assert current() == request
                with handoff:
                    await asyncio.sleep(0)
                    assert current() == request
                assert current() == request
        assert current() == NOTHING

    async def main():
        for _ in range(3):
            events = [asyncio.Event() for _ in range(5)]
            await asyncio.gather(*(task(number, events) for number in range(5)))

    without_context(asyncio.run, main())


@contextlib.asynccontextmanager
async def _nothing():
    yield


def test_one_that_comes_back_while_another_is_inside_leaves_in_order(request_span):
    """A flow that enters while another is inside, and again when that has left, leaves in order."""
    handoff = capture()
    entered, leave = threading.Event(), threading.Event()

    def first():
        with handoff:
            entered.set()
            assert leave.wait(WAIT)

    thread = threading.Thread(target=without_context, args=(first,))
    thread.start()
    assert entered.wait(WAIT)

    def second():
        with handoff:
            leave.set()
            thread.join(WAIT)
            with handoff:
                assert current()[0] == id_of(request_span)
            assert current()[0] == id_of(request_span)
        assert current() == NOTHING

    without_context(second)


# --- run ---


class Flow:
    """Enters and leaves hand-offs in some order, in a context of its own."""

    def __init__(self):
        self._context = contextvars.Context()
        self._inside = []

    def step(self, chance, handoffs, keys):
        """Do one thing at random, and check what is current."""
        self._context.run(self._step, chance, handoffs, keys)

    def end(self):
        """Leave all, from the innermost on."""
        while self._inside:
            self._context.run(self._leave)

    def _step(self, chance, handoffs, keys):
        if self._inside and chance.random() < 0.5:
            self._leave()
        elif chance.random() < 0.2:
            before = get_current()
            token = attach(set_value("key", object()))
            self._inside.append((before, functools.partial(detach, token)))
        else:
            number = chance.randrange(len(handoffs))
            self._inside.append(
                (get_current(), functools.partial(handoffs[number].__exit__, None, None, None))
            )
            handoffs[number].__enter__()
            assert get_value("key") == keys[number]

    def _leave(self):
        before, leave = self._inside.pop()
        leave()
        assert get_current() is before


@pytest.mark.parametrize("seed", range(30))
def test_whatever_the_order_each_flow_returns_to_where_it_was(seed, caplog):
    """Random flows are inside few hand-offs at once, also inside themselves and each other."""
    chance = random.Random(seed)
    keys = [1, 2, None]
    handoffs = [*(HandOff(set_value("key", key)) for key in keys[:2]), clean()]
    flows = [Flow() for _ in range(1 + seed % 3)]
    for _ in range(300):
        chance.choice(flows).step(chance, handoffs, keys)
    for flow in flows:
        flow.end()
    assert not caplog.records
    assert all(handoff._token is None for handoff in handoffs)


def test_run_calls_in_the_context(request_span):
    """`run` passes arguments and result, and the context is that of the capture."""
    handoff = capture()

    def work(*args, **kwargs):
        return current(), args, kwargs

    result = without_context(lambda: (handoff.run(work, 1, f=2, self=3), current()))
    assert result == (((id_of(request_span), "acme"), (1,), {"f": 2, "self": 3}), NOTHING)


def test_run_lets_exceptions_pass(request_span):
    """An exception of the callable passes untouched, and the context is detached."""
    handoff = capture()
    error = ValueError("theirs")

    def fail():
        raise error

    def pick_up():
        with pytest.raises(ValueError, match="theirs") as raised:
            handoff.run(fail)
        assert raised.value is error
        return current()

    assert without_context(pick_up) == NOTHING


# --- policies ---


@pytest.mark.parametrize("policy", ["link", Policy.LINK])
def test_link_starts_a_trace_that_is_linked(policy, request_span, links_of):
    """Under `link` each root inside has a link to the captured span; the baggage stays."""
    handoff = capture(policy)

    def pick_up():
        with handoff:
            assert current() == (0, "acme")
            return links_of(), links_of()

    link = [(id_of(request_span), "policy")]
    assert without_context(pick_up) == (link, link)


@pytest.mark.parametrize("policy", ["parent", Policy.PARENT])
def test_parent_is_the_default(policy, request_span, parent_of):
    """`parent`, as the word and as the member of the enumeration, is what no argument is."""
    assert without_context(capture(policy).run, parent_of) == id_of(request_span)


def test_link_works_after_the_library_was_switched_off(request_span, links_of, instrument):
    """Links by hand are given without the library, also where it has been on."""
    instrument()
    otel_concurrency.ConcurrencyInstrumentor().uninstrument()
    assert without_context(capture("link").run, links_of) == [(id_of(request_span), "policy")]


def test_link_of_nothing_is_a_root(links_of):
    """Where nothing was current there is nothing to link to."""
    assert capture("link").run(links_of) == []


# --- batch ---


def handoff_of(span, tenant=None):
    """Return a hand-off that was captured in a span."""
    return in_context(context_of(span, tenant), capture)


def test_a_batch_of_one_origin_has_a_parent(tracer, parent_of):
    """Items that were handed off in one span are worked on as its child."""
    request = tracer.start_span("request")
    with batch([handoff_of(request), handoff_of(request, "acme")]):
        assert parent_of() == id_of(request)
        assert current() == (id_of(request), None)


def test_a_batch_of_several_origins_is_linked_to_each(tracer, links_of):
    """Where origins differ, a root is linked to each, and has the baggage that all agree on."""
    spans = [tracer.start_span(name) for name in "abc"]
    given = [handoff_of(spans[number], "acme") for number in (2, 0, 2, 1)]
    with batch(iter(given)):
        assert current() == (0, "acme")
        assert links_of() == [(id_of(spans[number]), "batch") for number in (2, 0, 1)]
    assert current() == NOTHING


def test_a_batch_of_nothing_is_nothing(tracer, links_of):
    """Of no hand-offs, and of ones without a context, nothing is current inside."""
    with tracer.start_as_current_span("writer"):
        for handoffs in ([], [clean(), clean()]):
            with batch(handoffs):
                assert current() == NOTHING
                assert links_of() == []


# --- clean ---


def test_nothing_is_current_inside_clean(request_span, links_of):
    """Whatever is current around it: no span, no baggage, no other key."""
    token = attach(set_value("key", "value"))
    with clean():
        assert get_current() == {}
        assert links_of() == []
    assert current() == (id_of(request_span), "acme")
    detach(token)


def test_a_thread_started_inside_clean_is_clean(request_span):
    """What lives on is not in the context of the request that happened to start it."""
    seen = []
    with clean():
        thread = threading.Thread(target=lambda: seen.append(current()))
        thread.start()
    thread.join(WAIT)
    assert seen == [NOTHING]


# --- what it keeps alive, and what it weighs ---


class Value:
    """Something that a weak reference sees."""


@pytest.mark.parametrize("use", ["not", "with", "run", "wrap", "fail"])
def test_a_dropped_hand_off_keeps_nothing_alive(use, no_collector):
    """With it goes the context, without a cycle, however it was used; also beside a traceback."""
    value = Value()
    dead = weak_reference(value)
    handoff = in_context(set_value("key", value), capture)
    del value
    error = None
    if use == "with":
        with handoff, handoff:
            pass
    elif use == "run":
        handoff.run(int)
    elif use == "wrap":
        handoff.wrap(int)()
    elif use == "fail":
        try:
            handoff.run(int, "no number")
        except ValueError as raised:
            error = raised
        assert error.__traceback__ is not None
    assert dead() is not None
    del handoff
    assert dead() is None


def test_one_that_threads_were_inside_keeps_nothing_of_them(request_span, no_collector):
    """It does not refer to the flows that have entered and left it."""
    handoff = capture()
    value = Value()
    dead = weak_reference(value)

    def pick_up(value):
        token = attach(set_value("own", value))
        with handoff, handoff:
            pass
        detach(token)

    threads = [threading.Thread(target=pick_up, args=(value,)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT)
    del value, threads, thread
    assert dead() is None
    assert handoff is not None


@measures_memory
def test_an_unused_hand_off_takes_at_most_100_bytes(request_span):
    """Beyond the context and the list that keeps it, a hand-off is one small object."""
    import tracemalloc

    capture()
    gc.collect()
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    held = [None] * 1000
    for place in range(1000):
        held[place] = capture()
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    beyond_the_list = after - before - sys.getsizeof(held)
    assert beyond_the_list / 1000 <= 100


# --- copies ---


def test_a_copy_is_the_same_hand_off(request_span):
    """Copying an item that has one copies neither the span nor the context."""
    handoff = capture()
    assert copy.copy(handoff) is handoff
    assert copy.deepcopy([handoff])[0] is handoff


@pytest.mark.parametrize("policy", ["parent", "link"])
def test_what_is_pickled_is_its_headers(policy, request_span, tracer):
    """In another process it has a remote parent, or the link, and the baggage."""
    handoff = pickle.loads(pickle.dumps(capture(policy)))

    def pick_up():
        with handoff:
            span = tracer.start_span("work")
            span.end()
            return baggage.get_baggage("tenant"), span.parent, span.links

    tenant, parent, links = without_context(pick_up)
    assert tenant == "acme"
    origin = parent if policy == "parent" else links[0].context
    assert origin.span_id == id_of(request_span)
    assert origin.is_remote


# --- what travels ---


def test_an_unknown_key_and_suppression_travel_in_one_process(library):
    """The whole context goes along by reference, whatever is in it."""
    value = Value()
    handoff = in_context(set_value("key", value), capture)
    assert handoff.run(lambda: get_current()["key"]) is value


def test_wrap_captures_where_it_is_called(request_span):
    """`wrap(f)` is `capture().wrap(f)`."""
    wrapped = wrap(current)
    linked = wrap(current, "link")
    assert without_context(wrapped) == (id_of(request_span), "acme")
    assert without_context(linked) == (0, "acme")


def test_a_context_of_ones_own_is_handed_off(tracer):
    """`HandOff(context)` takes what the program has made itself."""
    span = tracer.start_span("own")
    with HandOff(trace.set_span_in_context(span, Context())):
        assert current()[0] == id_of(span)
