"""What runs in the middle of something else: signal handlers, finalizers, exit handlers."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import threading
import weakref

import pytest
from forms import WAIT, without_context
from opentelemetry import baggage, trace
from opentelemetry.context import attach, detach, get_current

from otel_concurrency import ConcurrencyInstrumentor

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


def test_a_finalizer_that_is_called_is_an_ordinary_call(instrument, tracer):
    """It returns what the function returns, in the context of whoever calls it, once."""
    instrument()
    value = Value()
    finalizer = weakref.finalize(value, lambda: trace.get_current_span())
    with tracer.start_as_current_span("request") as span:
        assert finalizer() is span
        assert finalizer() is None
    assert not finalizer.alive


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
