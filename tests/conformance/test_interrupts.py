"""What runs in the middle of something else: signal handlers, finalizers, exit handlers."""

from __future__ import annotations

import _thread
import contextvars
import functools
import gc
import os
import queue
import signal
import subprocess
import sys
import threading
import types
import weakref

import pytest
from forms import WAIT, without_context
from opentelemetry import baggage, trace
from opentelemetry.context import attach, detach, get_current
from opentelemetry.sdk.metrics import MeterProvider

from otel_concurrency import ConcurrencyInstrumentor
from otel_concurrency._core import compiled

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="its signals are others")


@pytest.fixture
def seen():
    """Return the list of what handlers have seen; they are as before after the test."""
    before = signal.getsignal(signal.SIGUSR1)
    yield []
    signal.signal(signal.SIGUSR1, before)


def interrupted(tracer):
    """Send this process a signal inside a span with baggage, and go on in both."""
    token = attach(baggage.set_baggage("tenant", "acme"))
    with tracer.start_as_current_span("request") as span:
        os.kill(os.getpid(), signal.SIGUSR1)
        current = trace.get_current_span(), baggage.get_baggage("tenant")
    detach(token)
    return current == (span, "acme")


def registered_in(tracer, handler):
    """Register a handler inside a span."""
    with tracer.start_as_current_span("setup"):
        return signal.signal(signal.SIGUSR1, handler)


@pytest.mark.parametrize("first", ["instrument", "register"])
def test_a_signal_handler_is_in_no_context(first, seen, instrument, tracer):
    """Its span is a root, wherever it was registered, also before the library was switched on."""

    def handler(number, frame):
        seen.append((number, frame.f_code.co_name, dict(get_current())))
        seen.append(tracer.start_span("handler").parent)
        attach(baggage.set_baggage("tenant", "left behind"))

    if first == "instrument":
        instrument()
    without_context(registered_in, tracer, handler)
    instrument()
    assert without_context(interrupted, tracer)
    assert seen == [(signal.SIGUSR1, "interrupted", {}), None]


def test_the_registered_handler_is_the_programs(seen, instrument):
    """Whoever asks for it gets what was registered, by identity, on and off."""

    def handler(*_):
        seen.append(1)

    before = signal.getsignal(signal.SIGUSR1)
    instrument()
    assert signal.signal(signal.SIGUSR1, handler) is before
    assert signal.getsignal(signal.SIGUSR1) is handler
    assert signal.signal(signal.SIGUSR1, signal.SIG_IGN) is handler
    assert signal.getsignal(signal.SIGUSR1) is signal.SIG_IGN
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    signal.signal(signal.SIGUSR1, handler)
    ConcurrencyInstrumentor().uninstrument()
    assert signal.getsignal(signal.SIGUSR1) is handler
    os.kill(os.getpid(), signal.SIGUSR1)
    assert seen == [1]


def test_a_handler_is_registered_by_keyword(seen, instrument):
    """As without the library."""
    instrument()
    signal.signal(signalnum=signal.SIGUSR1, handler=seen.append)
    assert signal.getsignal(signal.SIGUSR1) == seen.append


def test_what_a_handler_raises_passes(seen, instrument, tracer):
    """It strikes where the signal came, and the context there is what it was."""
    instrument()

    def handler(*_):
        raise TimeoutError("theirs")

    signal.signal(signal.SIGUSR1, handler)
    with tracer.start_as_current_span("request") as span:
        with pytest.raises(TimeoutError, match="theirs"):
            os.kill(os.getpid(), signal.SIGUSR1)
        assert trace.get_current_span() is span


@pytest.mark.parametrize("handler", ["no handler", None, 5])
def test_what_is_no_handler_is_refused(handler, seen, instrument):
    """With the interpreter's own words."""
    instrument()
    with pytest.raises((TypeError, ValueError)):
        signal.signal(signal.SIGUSR1, handler)


def test_another_thread_registers_none(seen, instrument):
    """Nor can it switch the library on and off for them; what is registered goes on."""
    signal.signal(signal.SIGUSR1, lambda *_: seen.append(dict(get_current())))
    errors = []

    def elsewhere():
        instrument()
        try:
            signal.signal(signal.SIGUSR1, seen.append)
        except ValueError as error:
            errors.append(str(error))

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join(WAIT)
    assert len(errors) == 1
    os.kill(os.getpid(), signal.SIGUSR1)
    off = threading.Thread(target=ConcurrencyInstrumentor().uninstrument)
    off.start()
    off.join(WAIT)
    os.kill(os.getpid(), signal.SIGUSR1)
    assert seen == [{}, {}]


def test_handlers_are_left_alone_where_threading_is_off(seen, instrument, tracer):
    """They go by THREADING."""
    instrument(threading="off")
    signal.signal(signal.SIGUSR1, lambda *_: seen.append(baggage.get_baggage("tenant")))
    assert without_context(interrupted, tracer)
    assert seen == ["acme"]


# --- finalizers ---


class Value:
    """Something that dies."""


def test_a_finalizer_is_in_no_context(instrument, tracer):
    """Whoever drops the last reference, by hand or by the collector, wherever it was registered."""
    instrument()
    seen = []

    def request():
        attach(baggage.set_baggage("tenant", "acme"))
        with tracer.start_as_current_span("request"):
            values = [Value(), Value()]
            values[1].itself = values[1]
            for value in values:
                weakref.finalize(
                    value, lambda name: seen.append((name, dict(get_current()))), "arg"
                )
            del value, values
            gc.collect()
            return baggage.get_baggage("tenant")

    assert without_context(request) == "acme"
    assert seen == [("arg", {})] * 2


def test_what_a_finalizer_sets_is_kept_where_it_can_be(instrument):
    """Before 3.12 the collector may run while a variable is set: a finalizer gets copies of all."""
    instrument()
    variable = contextvars.ContextVar("variable", default="before")

    def request():
        attach(baggage.set_baggage("tenant", "acme"))
        value = Value()
        value.itself = value
        weakref.finalize(value, variable.set, "finalizer")
        del value
        gc.collect()
        return variable.get()

    expected = "finalizer" if sys.version_info >= (3, 12) else "before"
    assert without_context(request) == expected


def test_a_finalizer_that_is_called_is_an_ordinary_call(instrument, tracer):
    """It returns what the function returns, in the context of whoever calls it, once."""
    instrument()
    value = Value()
    finalizer = weakref.finalize(value, lambda: trace.get_current_span())
    with tracer.start_as_current_span("request") as span:
        assert finalizer() is span
        assert finalizer() is None
    assert not finalizer.alive


# --- the collector ---

IS_HEARD_OF = sys.version_info >= (3, 12) and compiled.functions is not None

heard_of = pytest.mark.skipif(
    not IS_HEARD_OF, reason="collections are heard of with the compiled part, from CPython 3.12 on"
)


class Dying:
    """Calls a function when it dies, which only the collector can bring about."""

    def __init__(self, function):
        self.function = function
        self.itself = self

    def __del__(self):
        self.function()


def suspended(function):
    """Return a generator that calls ``function`` when it ends, which only the collector can end."""

    def generator():
        itself.append(running)
        try:
            yield
        finally:
            function()

    itself = []
    running = generator()
    next(running)


def awaiting(function):
    """Have a coroutine wait that calls ``function`` when it ends: only the collector can end it."""

    @types.coroutine
    def ever():
        yield

    async def coroutine():
        itself.append(running)
        try:
            await ever()
        finally:
            function()

    itself = []
    running = coroutine()
    running.send(None)


def referred_to(function):
    """Have a weak reference call ``function`` when its object dies, by the collector alone."""
    value = Value()
    value.itself = value
    references[:] = [weakref.ref(value, lambda _: function())]


references = []
WAYS_TO_DIE = [Dying, suspended, awaiting, referred_to]


def collect_in_a_request(tracer):
    """Collect inside a span with baggage, and return whether both are current afterwards."""
    token = attach(baggage.set_baggage("tenant", "acme"))
    with tracer.start_as_current_span("request") as span:
        gc.collect()
        current = trace.get_current_span(), baggage.get_baggage("tenant")
    detach(token)
    return current == (span, "acme")


@heard_of
@pytest.mark.parametrize("way", WAYS_TO_DIE)
def test_what_the_collector_ends_is_in_no_context(way, no_collector, instrument, tracer):
    """It comes in the middle of any work; what is left attached there is gone afterwards."""
    seen = []

    def die():
        seen.append((dict(get_current()), tracer.start_span("dying").parent))
        attach(baggage.set_baggage("tenant", "left behind"))

    instrument()
    with tracer.start_as_current_span("made in"):
        way(die)
    for _ in range(2):  # the second finds nothing
        assert without_context(collect_in_a_request, tracer)
    assert seen == [({}, None)]
    way(die)
    without_context(gc.collect)
    assert not get_current()
    ConcurrencyInstrumentor().uninstrument()
    way(die)
    without_context(collect_in_a_request, tracer)
    assert seen[2][0]


@heard_of
def test_a_collection_that_comes_by_itself(no_collector, instrument, tracer):
    """As one that the program asks for."""
    instrument()
    seen = []
    Dying(lambda: seen.append(dict(get_current())))
    with tracer.start_as_current_span("request") as span:
        gc.enable()
        kept = []
        while not seen:
            kept.append([])
        assert trace.get_current_span() is span
    assert seen == [{}]


@heard_of
def test_an_item_is_still_its_workers_after_a_collection(no_collector, instrument, tracer):
    """What the collector ends does not see the item, nor does it take it from the worker."""
    instrument()
    seen, items = [], queue.SimpleQueue()
    with tracer.start_as_current_span("producer") as producer:
        items.put("item")
        items.put("other")

    def worker():
        items.get()
        Dying(lambda: seen.append((dict(get_current()), items.put("third"), items.get())))
        gc.collect()
        parent = tracer.start_span("work").parent
        assert parent.span_id == producer.context.span_id
        items.get()
        assert not get_current()

    without_context(worker)
    assert seen == [({}, None, "other")]


@heard_of
def test_what_others_hear_of_a_collection_is_in_its_context(no_collector, instrument, tracer):
    """A span that they make for it is a child of the work that it comes in the middle of."""
    seen, tokens = [], []

    def others(phase, _info):
        seen.append((phase, trace.get_current_span()))
        if phase == "start":
            tokens.append(attach(baggage.set_baggage("tenant", "collector's")))
        else:
            detach(tokens.pop())

    gc.callbacks.append(others)
    before = list(gc.callbacks)
    try:
        instrument()
        Dying(lambda: seen.append(dict(get_current())))
        with tracer.start_as_current_span("request") as span:
            gc.collect()
            assert trace.get_current_span() is span
            assert baggage.get_baggage("tenant") is None
        ConcurrencyInstrumentor().uninstrument()
        assert gc.callbacks == before
    finally:
        gc.callbacks.remove(others)
    assert seen == [("start", span), {}, ("stop", span)]


@heard_of
def test_it_is_switched_off_during_a_collection(no_collector, instrument, tracer):
    """The work has its context after it, and a later `uninstrument()` leaves nothing."""
    before = list(gc.callbacks)
    for _ in range(2):
        instrument()
        Dying(ConcurrencyInstrumentor().uninstrument)
        assert without_context(collect_in_a_request, tracer)
    seen = []
    Dying(lambda: seen.append(baggage.get_baggage("tenant")))
    assert without_context(collect_in_a_request, tracer)
    assert seen == ["acme"]
    instrument()
    assert len(gc.callbacks) == len(before) + 2
    ConcurrencyInstrumentor().uninstrument()
    assert gc.callbacks == before


class Interrupted(Exception):
    """What a handler raises."""


@pytest.fixture
def alone(instrument):
    """Take what others have in the collector's list out of it: functions in Python (Hypothesis).

    It is all put back before the library is switched off, which takes its own out of it.
    """
    others = list(gc.callbacks)
    gc.callbacks.clear()
    yield
    gc.callbacks[:] = others


@pytest.mark.skipif(not hasattr(gc, "callbacks"), reason="its collector runs at another time")
@pytest.mark.usefixtures("alone", "no_collector")
@pytest.mark.parametrize("metrics", [False, True], ids=["plain", "metrics"])
def test_what_a_handler_raises_during_a_collection_is_raised_after_it(
    metrics, seen, instrument, tracer
):
    """As without the library: it is raised in the work, which may be to end."""

    def handler(_number, _frame):
        raise Interrupted

    class Signalling:
        """Sends a signal when it dies, without running any code in Python."""

        __del__ = staticmethod(functools.partial(_thread.interrupt_main, signal.SIGUSR1))

    signal.signal(signal.SIGUSR1, handler)
    instrument(metrics=metrics, meter_provider=MeterProvider())
    dying = Signalling()
    dying.itself = dying
    del dying
    with tracer.start_as_current_span("request") as span:
        with pytest.raises(Interrupted):
            gc.collect()
        assert trace.get_current_span() is span


def test_a_collection_is_heard_of_where_that_is_safe(instrument):
    """In pure Python, and before 3.12, nothing is in the collector's list."""
    before = list(getattr(gc, "callbacks", []))
    instrument()
    assert len(getattr(gc, "callbacks", [])) == len(before) + 2 * IS_HEARD_OF


EXIT = """
import atexit
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from otel_concurrency import ConcurrencyInstrumentor

ConcurrencyInstrumentor().instrument()
tracer = TracerProvider().get_tracer("exit")

@atexit.register
def outside():
    print("outside", tracer.start_span("").parent)

with tracer.start_as_current_span("request"):
    atexit.register(lambda: print("inside", tracer.start_span("").parent))
"""


def test_an_exit_handler_is_in_no_context():
    """The interpreter keeps none of whoever registers it, and none is current at the end."""
    run = subprocess.run([sys.executable, "-c", EXIT], capture_output=True, text=True, timeout=60)
    assert (run.stdout.splitlines(), run.stderr) == (["inside None", "outside None"], "")
