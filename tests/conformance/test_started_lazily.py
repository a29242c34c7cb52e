"""What a cache starts when it is first asked: it lives on in the request that happened to ask.

`functools.lru_cache`, `cached_property` and a `contextlib.ExitStack` keep what the first request
has made: a connection with a thread, an executor.
"""

from __future__ import annotations

import contextlib
import functools
import queue
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from forms import WAIT, without_context
from links import MINUTE, assert_linked, named
from opentelemetry import baggage
from opentelemetry.context import attach
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from otel_concurrency import clean


class Connection:
    """Has a thread that makes a span, named after the tenant, whenever it is asked to beat."""

    def __init__(self, tracer):
        self._tracer = tracer
        self._beats = queue.SimpleQueue()
        self._beaten = threading.Semaphore(0)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def beat(self):
        """Have a span made by the thread, which is told in no context, and wait for it."""
        without_context(self._beats.put, True)
        assert self._beaten.acquire(timeout=WAIT)

    def close(self):
        """Let the thread end."""
        self._beats.put(False)
        self._thread.join(WAIT)

    def _run(self):
        while self._beats.get():
            with self._tracer.start_as_current_span(f"beat {baggage.get_baggage('tenant')}"):
                pass
            self._beaten.release()


def by_lru_cache(make):
    """Return what makes a thing once, by `functools.lru_cache`."""
    return functools.lru_cache(make)


def by_cached_property(make):
    """Return what makes a thing once, by `functools.cached_property`."""

    class Owner:
        @functools.cached_property
        def thing(self):
            return make()

    owner = Owner()
    return lambda: owner.thing


def by_exit_stack(make):
    """Return what makes a thing once, and keeps it in a `contextlib.ExitStack`."""
    stack, kept = contextlib.ExitStack(), []

    @contextlib.contextmanager
    def opened():
        yield make()

    def thing():
        if not kept:
            kept.append(stack.enter_context(opened()))
        return kept[0]

    return thing


every_cache = pytest.mark.parametrize("cache", [by_lru_cache, by_cached_property, by_exit_stack])


@pytest.fixture
def exporter():
    """Return what keeps the spans that have ended."""
    return InMemorySpanExporter()


@pytest.fixture
def tracer(exporter):
    """Return a tracer whose spans are kept."""
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return provider.get_tracer("lazy")


def ask(tracer, name, function):
    """Call a function in a request of a tenant; return what it returns."""

    def request():
        attach(baggage.set_baggage("tenant", name))
        with tracer.start_as_current_span(name):
            return function()

    return without_context(request)


@every_cache
def test_its_thread_is_in_the_first_request_until_that_is_long_over(
    cache, instrument, tracer, exporter, clock
):
    """That request has started it; once it has ended long ago, it is a link and no parent."""
    instrument(queue="off")  # what is put tells the thread of nothing but time
    connection = cache(functools.partial(Connection, tracer))
    for name in ("first", "second"):
        ask(tracer, name, connection)
    connection().beat()
    spans = named(exporter)
    assert spans["beat first"].parent.span_id == spans["first"].context.span_id

    exporter.clear()
    clock(2 * MINUTE)
    connection().beat()
    (late,) = exporter.get_finished_spans()
    assert_linked(late, spans["first"], reason="ended")
    connection().close()


@every_cache
def test_filled_in_clean_its_thread_is_in_no_request(cache, instrument, tracer, exporter):
    """`with clean():` around what is made is the way to say so, with the library on."""
    instrument(queue="off")

    def make():
        with clean():
            return Connection(tracer)

    connection = cache(make)
    ask(tracer, "first", connection)
    connection().beat()
    assert named(exporter)["beat None"].parent is None
    connection().close()


@every_cache
def test_a_pool_that_a_cache_makes_works_for_whoever_submits(cache, instrument, tracer, exporter):
    """Its workers are in no request, whoever was the first to use it: nothing has to be done."""
    instrument()
    executor = cache(functools.partial(ThreadPoolExecutor, 1))

    def work():
        with tracer.start_as_current_span(f"work {baggage.get_baggage('tenant')}"):
            pass

    def submit():
        executor().submit(work).result(WAIT)

    for name in ("first", "second"):
        ask(tracer, name, submit)
    without_context(submit)
    spans = named(exporter)
    for name in ("first", "second"):
        assert spans[f"work {name}"].parent.span_id == spans[name].context.span_id
    assert spans["work None"].parent is None
    executor().shutdown()
