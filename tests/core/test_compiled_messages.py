"""The compiled functions for messages of ``multiprocessing``: what their twins do, or nothing.

``get`` of a queue calls ``begins`` and ``arrived``, and the pickler calls ``known_trailer``.
"""

from __future__ import annotations

import gc
import itertools
import multiprocessing
import os
import sys
import threading
from types import SimpleNamespace

import pytest
from opentelemetry import baggage, propagate, trace
from opentelemetry.baggage.propagation import W3CBaggagePropagator
from opentelemetry.context import Context, attach, detach, get_current, set_value
from opentelemetry.propagators.composite import CompositePropagator
from opentelemetry.sdk.trace import TracerProvider

from interpreters import measures_memory
from otel_concurrency import ConcurrencyInstrumentor
from otel_concurrency._core import compiled, handoff
from otel_concurrency._crossing import carrier, trailers, wire_format
from otel_concurrency._items import adoption
from otel_concurrency._items.loans import Loans

TRACER = TracerProvider(shutdown_on_exit=False).get_tracer(__name__)
ON, OFF = handoff.Seam("on, of a test"), handoff.Seam("off, of a test")
ON.capture = handoff.capture
del handoff.seams[ON.name], handoff.seams[OFF.name]
QUEUE = object()
KINDS = ("Queue", "SimpleQueue")

only_posix = pytest.mark.skipif(sys.platform == "win32", reason="there is nothing to ask a pipe by")


@pytest.fixture
def functions():
    """Return the compiled functions; the flow is in no context, and lets go in the end."""
    if compiled.functions is None:
        pytest.skip(compiled.reason)
    token = attach(Context())
    handoff.adopted.set(None)
    yield compiled.functions
    handoff.adopted.set(None)
    detach(token)


@pytest.fixture
def replace(monkeypatch):
    """Return what replaces a function of ``handoff`` for the compiled part, too."""

    def replace(name, function):
        monkeypatch.setattr(handoff, name, function)
        compiled.bind(vars(handoff))

    yield replace
    monkeypatch.undo()
    compiled.bind(vars(handoff))


@pytest.fixture
def pipe():
    """Return the ends of a pipe with something to read."""
    ends = os.pipe()
    os.write(ends[1], b"item")
    yield ends
    for end in ends:
        os.close(end)


def raising(error):
    """Return a function that raises in the place of another one."""

    def raises(*_arguments):
        raise error

    return raises


def side_with(*, settled=True, first=None, descriptor=None):
    """Return what is known of ``QUEUE``, and all that is known."""
    loans = Loans(by_value=True)
    loans.settled, loans.first = settled, first
    side = SimpleNamespace(loans=loans, gave_contexts=False, descriptor=descriptor)
    return side, {id(QUEUE): side}


def state():
    """Return what the flow is in, and what it has adopted."""
    record = handoff.adopted.get()
    return get_current(), record, record and list(record)


# --- before an item is asked for ---


def test_a_flow_that_has_adopted_nothing_has_nothing_to_do(functions):
    """Nothing needs to be known of the queue; where the seam is off, all is left to the twin."""
    assert functions.begins(ON, {}, QUEUE) is True
    assert functions.begins(OFF, {}, QUEUE) is False


@only_posix
def test_a_flow_that_need_not_wait_keeps_what_it_has(functions, pipe):
    """It has started no span, and another item lies in the pipe: the twin would do nothing."""
    _, sides = side_with(descriptor=pipe[0])
    adoption.adopt(set_value("number", 1))
    for _ in range(2):
        before = state()
        assert functions.begins(ON, sides, QUEUE) is True
        adoption.ask(lambda: False)
        assert state() == before
        adoption.adopt(set_value("number", 2))  # the two are a batch
    assert functions.begins(OFF, sides, QUEUE) is False


@pytest.mark.parametrize("why", ["to wait", "not asked", "unknown", "begun", "on top", "abstains"])
def test_what_may_have_to_be_done_is_left_to_the_twin(why, functions, pipe):
    """Nothing is done, and nothing is let go of."""
    _, sides = side_with(descriptor=None if why == "not asked" else pipe[0])
    adoption.adopt(set_value("number", 1))
    if why == "to wait":
        os.read(pipe[0], 4)
    elif why == "unknown":
        sides.clear()
    elif why == "begun":
        handoff.adopted.get()[3] = handoff.BEGUN
    elif why == "on top":
        attach(set_value("number", 2))
    elif why == "abstains":
        handoff.adopted.set(adoption.ABSTAINS)
    before = state()
    assert functions.begins(ON, sides, QUEUE) is False
    assert state() == before


@pytest.mark.parametrize("descriptor", ["no number", 1 << 80, -1])
def test_what_is_no_descriptor_is_left_to_the_twin(descriptor, functions):
    """Which asks the queue itself, and reports what is wrong."""
    _, sides = side_with(descriptor=descriptor)
    adoption.adopt(set_value("number", 1))
    assert functions.begins(ON, sides, QUEUE) is False


# --- when it has come ---


@pytest.fixture
def message():
    """Return a message, the context behind it, and that which it was sent in: all the last ones."""
    context = trace.set_span_in_context(TRACER.start_span("producer"), Context())
    message = b"pickle." + carrier.encoded_with_trailer(context)[1]
    return message, carrier.decoded_behind(message, wire_format.behind), context


def test_an_item_without_a_context_changes_nothing_where_there_is_none(functions):
    """If the queue is known to hand work on."""
    _, sides = side_with()
    before = state()
    assert functions.arrived(ON, sides, QUEUE, None, vars(carrier)) is True
    assert functions.arrived(ON, {}, QUEUE, None, vars(carrier)) is False
    assert state() == before
    _, sides = side_with(settled=False)
    assert functions.arrived(ON, sides, QUEUE, None, vars(carrier)) is False


def test_an_item_without_a_context_is_left_to_the_twin_where_there_is_one(functions):
    """The flow is to be in none, and may still have what it has adopted."""
    side, sides = side_with()
    attach(set_value("number", 1))
    assert functions.arrived(ON, sides, QUEUE, None, vars(carrier)) is False
    attach(Context())
    adoption.adopt(set_value("number", 2))
    attach(Context())
    before = state()
    assert functions.arrived(ON, sides, QUEUE, None, vars(carrier)) is False
    assert state() == before
    assert not side.gave_contexts


def test_the_context_that_was_decoded_last_is_adopted(functions, message):
    """As by the twin, and it is noted that the queue gives contexts."""
    side, sides = side_with()
    assert functions.arrived(ON, sides, QUEUE, message[0], vars(carrier)) is True
    assert get_current() is message[1]
    assert handoff.adopted.get()[0]() is message[1]
    assert side.gave_contexts is True


@pytest.mark.parametrize(
    "why",
    [
        *("another trailer", "shorter", "no bytes", "nothing decoded", "another propagator"),
        *("off", "unknown", "not settled", "first", "empty"),
    ],
)
def test_an_item_that_is_not_usual_is_left_to_the_twin(why, functions, message, monkeypatch):
    """Nothing is adopted, and nothing noted."""
    received, context, _ = message
    side, sides = side_with(settled=why != "not settled", first=why == "first" or None)
    if why == "another trailer":
        received = received.replace(b"00-", b"01-", 1)
    elif why == "shorter":
        received = received[-20:]
    elif why == "no bytes":
        received = memoryview(received)
    elif why == "nothing decoded":
        monkeypatch.setattr(carrier, "_decoded", None)
    elif why == "another propagator":
        monkeypatch.setattr(carrier, "get_global_textmap", W3CBaggagePropagator)
    elif why == "unknown":
        sides.clear()
    elif why == "empty":
        *parts, trailer = carrier._decoded
        monkeypatch.setattr(carrier, "_decoded", (*parts[:2], Context(), trailer))
    before = state()
    seam = OFF if why == "off" else ON
    assert functions.arrived(seam, sides, QUEUE, received, vars(carrier)) is False
    assert state() == before
    assert side.gave_contexts is False
    assert get_current() is not context


def test_a_flow_with_a_span_of_its_own_is_left_to_the_twin(functions, message):
    """It keeps its span, and the item is noted as a loan by the twin."""
    _, sides = side_with()
    with trace.use_span(TRACER.start_span("busy")):
        before = state()
        assert functions.arrived(ON, sides, QUEUE, message[0], vars(carrier)) is False
        assert state() == before


# --- what is put ---


@pytest.mark.parametrize(
    "make",
    [
        lambda: trace.set_span_in_context(TRACER.start_span("producer"), Context()),
        lambda: trace.set_span_in_context(trace.NonRecordingSpan(trace.SpanContext(1, 2, True))),
        lambda: baggage.set_baggage("tenant", "acme", Context()),
    ],
    ids=["span", "remote span", "baggage"],
)
def test_the_trailer_that_was_made_last_is_found(make, functions):
    """It is the one that the twin returns, of this context and of no other."""
    context = make()
    both = carrier.encoded_with_trailer(context)
    assert functions.known_trailer(context, vars(carrier)) is both[1]
    assert functions.known_trailer(Context(context), vars(carrier)) is None


def test_a_trailer_is_made_anew_when_it_may_be_another(functions, monkeypatch):
    """After the end of the span, with another propagator, or where none was kept."""
    span = TRACER.start_span("producer")
    context = trace.set_span_in_context(span, Context())
    before = carrier.encoded_with_trailer(context)
    other = CompositePropagator([W3CBaggagePropagator()])
    monkeypatch.setattr(carrier, "get_global_textmap", lambda: other)
    assert functions.known_trailer(context, vars(carrier)) is None
    monkeypatch.undo()
    span.end()
    assert functions.known_trailer(context, vars(carrier)) is None
    after = carrier.encoded_with_trailer(context)
    assert after != before
    assert functions.known_trailer(context, vars(carrier)) is after[1]
    assert carrier.encoded_with_trailer(Context()) is None
    assert functions.known_trailer(Context(), vars(carrier)) is None
    monkeypatch.setattr(carrier, "_encoded", None)
    assert functions.known_trailer(context, vars(carrier)) is None


# --- references ---


@measures_memory
@only_posix
@pytest.mark.parametrize("number", [1000, pytest.param(100_000, marks=pytest.mark.scale)])
def test_no_reference_is_kept(number, functions, message, pipe):
    """Whatever a function finds and returns, there is not one reference more to anything."""
    side, sides = side_with(descriptor=pipe[0])
    idle, item, _ = contexts = [Context(), set_value("number", 1), set_value("number", 2)]
    span = TRACER.start_span("ended")
    span.end()
    ended = trace.set_span_in_context(span, Context())
    received, _, sent = message
    namespace = vars(carrier)

    def all_of_them():
        handoff.adopted.set(None)
        attach(idle)
        found = [
            functions.begins(ON, sides, QUEUE),
            functions.arrived(ON, sides, QUEUE, None, namespace),
            functions.arrived(ON, {}, QUEUE, None, namespace),
        ]
        adoption.adopt(item)
        found += [
            functions.begins(ON, sides, QUEUE),
            functions.begins(OFF, sides, QUEUE),
            functions.begins(ON, {}, QUEUE),
            functions.arrived(ON, sides, QUEUE, None, namespace),
            functions.arrived(OFF, sides, QUEUE, received, namespace),
            functions.arrived(ON, sides, QUEUE, b"another", namespace),
        ]
        adoption.let_go()
        found.append(functions.arrived(ON, sides, QUEUE, received, namespace))
        adoption.let_go()
        found += [functions.known_trailer(each, namespace) for each in (sent, idle)]
        encoded = carrier._encoded
        carrier._encoded = of_ended
        found += [functions.known_trailer(each, namespace) for each in (ended, sent)]
        carrier._encoded = encoded
        return found

    carrier.encoded_with_trailer(ended)
    of_ended = carrier._encoded
    carrier.encoded_with_trailer(sent)
    for _ in range(100):
        found = all_of_them()
    expected = [True, True, False, True, *[False] * 5, True]
    assert found == [*expected, carrier._encoded[3][1], None, of_ended[3][1], None]
    watched = [*contexts, *message, ON, OFF, sides, side, side.loans, QUEUE, namespace, ended]
    watched += [span, span.end_time, of_ended, *of_ended[2:], *carrier._encoded, *carrier._decoded]
    watched += [carrier._encoded, carrier._decoded, carrier.get_global_textmap, handoff.adopted]

    def counted():
        gc.collect()
        return [sys.getrefcount(each) for each in watched], sys.getallocatedblocks()

    references, blocks = counted()
    for _ in range(number):
        all_of_them()
    references_now, blocks_now = counted()
    assert references_now == references
    assert blocks_now - blocks < 100


# --- faults ---


class InjectedError(Exception):
    """A fault of the library's own."""


def call(functions, name, message):
    """Call a function as it is called for the usual item."""
    _, sides = side_with()
    if name == "begins":
        adoption.adopt(set_value("number", 1))
        return functions.begins(ON, sides, QUEUE)
    if name == "arrived":
        return functions.arrived(ON, sides, QUEUE, message[0], vars(carrier))
    return functions.known_trailer(message[2], vars(carrier))


@pytest.mark.parametrize("error", [InjectedError(), KeyboardInterrupt()], ids=repr)
@pytest.mark.parametrize("name", ["arrived", "known_trailer"])
def test_a_fault_in_a_propagator_is_the_callers(name, error, functions, message, monkeypatch):
    """The twin meets it again, and reports it; an interrupt is raised."""
    monkeypatch.setattr(carrier, "get_global_textmap", raising(error))
    before = state()
    with pytest.raises(type(error)):
        call(functions, name, message)
    assert state() == before


@pytest.mark.parametrize("step", ["get_current", "attach"])
def test_a_fault_in_a_step_is_the_callers(step, functions, message, replace):
    """``get`` reports it; what is asked before the item is left to the twin, which reports it."""
    replace(step, raising(InjectedError()))
    with pytest.raises(InjectedError):
        call(functions, "arrived", message)
    if step == "get_current":
        _, sides = side_with()
        handoff.adopted.set([lambda: None, Context(), (), handoff.FRESH, None])
        assert functions.begins(ON, sides, QUEUE) is False


@only_posix
@pytest.mark.parametrize("error", [InjectedError, KeyboardInterrupt])
def test_an_interrupt_before_an_item_is_asked_for_is_raised(error, functions, pipe, replace):
    """An error is left to the twin, which meets it again."""
    _, sides = side_with(descriptor=pipe[0])
    adoption.adopt(set_value("number", 1))
    replace("get_current", raising(error()))
    if error is KeyboardInterrupt:
        with pytest.raises(KeyboardInterrupt):
            functions.begins(ON, sides, QUEUE)
    else:
        assert functions.begins(ON, sides, QUEUE) is False


# --- whole items ---


@pytest.fixture
def items(request):
    """Return a queue that is known to hand work on, while the library is on."""
    ConcurrencyInstrumentor().instrument()
    queue = getattr(multiprocessing, request.param)()
    for number in range(100):
        put(queue, number)
        assert got(queue) == (number, number)
    yield queue
    queue.close()
    ConcurrencyInstrumentor().uninstrument()


every_kind = pytest.mark.parametrize("items", KINDS, indirect=True)


def put(queue, number):
    """Put a number where the baggage has it, too."""
    token = attach(baggage.set_baggage("number", str(number), Context()))
    queue.put(number)
    detach(token)


def got(queue):
    """Get an item in no context; return it, and the number in the baggage, and let go."""
    token = attach(Context())
    try:
        item = queue.get()
        return item, int(baggage.get_baggage("number") or -1)
    finally:
        adoption.let_go()
        detach(token)


@every_kind
@pytest.mark.parametrize("error", [InjectedError, KeyboardInterrupt])
def test_a_propagator_that_fails_costs_the_context(error, items, monkeypatch, caplog):
    """It is reported once; an interrupt is raised; and the next item is as before."""
    for number in (1, 1):
        put(items, number)
    assert got(items) == (1, 1)
    assert items._reader.poll(20)  # whoever writes has asked for the propagator already
    monkeypatch.setattr(carrier, "get_global_textmap", raising(error()))
    if error is KeyboardInterrupt:
        with pytest.raises(KeyboardInterrupt):
            got(items)
    else:
        assert got(items) == (1, -1)
        assert len({record.getMessage() for record in caplog.records}) == len(caplog.records)
    monkeypatch.undo()
    assert not trailers.receiving
    put(items, 2)
    assert got(items) == (2, 2)


@every_kind
def test_code_that_runs_in_the_middle_changes_nothing(items, monkeypatch):
    """Such as a signal's handler: it puts and gets items while a propagator is asked for."""
    others, seen, busy = multiprocessing.SimpleQueue(), [], set()
    plain, thread = carrier.get_global_textmap, threading.get_ident
    numbers = itertools.count(1000)  # what is put again, by who has got it, is a thing

    def in_between():
        if thread() not in busy:
            busy.add(thread())
            put(others, next(numbers))
            seen.append(got(others))
            busy.remove(thread())
        return plain()

    monkeypatch.setattr(carrier, "get_global_textmap", in_between)
    for number in sorted([*range(100)] * 2):
        put(items, number)
        assert got(items) == (number, number)
    monkeypatch.undo()
    assert seen
    assert all(item == number for item, number in seen)
    assert not trailers.receiving


def test_other_propagators_are_asked_each_time(functions):
    """Nothing is kept of what they write and read, and so nothing is found."""
    before = propagate.get_global_textmap()
    propagate.set_global_textmap(W3CBaggagePropagator())
    try:
        context = baggage.set_baggage("tenant", "acme", Context())
        assert carrier.encoded_with_trailer(context) is not None
        assert functions.known_trailer(context, vars(carrier)) is None
    finally:
        propagate.set_global_textmap(before)
