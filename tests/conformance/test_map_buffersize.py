"""`Executor.map(buffersize=…)`, from 3.14 on: whoever iterates, all items are of whoever maps."""

from __future__ import annotations

import concurrent.futures
import multiprocessing
import threading

import pytest
from forms import WAIT, OwnWorker, ThreadPerCall, without_context
from opentelemetry import baggage, trace
from opentelemetry.context import attach, get_current, set_value

from interpreters import weak_reference
from otel_concurrency import ConcurrencyInstrumentor


def see(number):
    """Return what an item sees: the current span and the tenant."""
    span = trace.get_current_span().get_span_context()
    return number, span.span_id, baggage.get_baggage("tenant")


POOLS = {
    "threads": lambda: concurrent.futures.ThreadPoolExecutor(2),
    "processes": lambda: concurrent.futures.ProcessPoolExecutor(
        1, mp_context=multiprocessing.get_context("forkserver")
    ),
}


@pytest.fixture(params=POOLS)
def pool(request, instrument):
    """Return a pool, with the library switched on."""
    instrument()
    with POOLS[request.param]() as opened:
        yield opened


def mapped(pool, tracer, items, **options):
    """Call `map` inside a span with baggage; return the iterator and the span."""

    def request():
        attach(baggage.set_baggage("tenant", "acme"))
        with tracer.start_as_current_span("request") as span:
            return pool.map(see, items, buffersize=2, **options), span

    return without_context(request)


@pytest.mark.parametrize("consumer", ["no span", "a span", "another thread"])
def test_all_items_are_of_whoever_maps(consumer, pool, tracer):
    """Also those that are submitted when results are asked for, whoever asks."""
    results, span = mapped(pool, tracer, range(7))
    seen = []

    def consume():
        for result in results:
            seen.append(result)
            seen_here.append(trace.get_current_span().get_span_context().span_id)

    seen_here = []
    expected_here = 0
    if consumer == "another thread":
        thread = threading.Thread(target=without_context, args=(consume,))
        thread.start()
        thread.join(WAIT)
    elif consumer == "a span":
        with tracer.start_as_current_span("other") as other:
            consume()
        expected_here = other.get_span_context().span_id
    else:
        without_context(consume)
    assert seen == [(number, span.get_span_context().span_id, "acme") for number in range(7)]
    assert seen_here == [expected_here] * 7


def test_items_of_a_map_without_a_context_have_none(pool, tracer):
    """A consumer with a span of its own does not make them its children."""
    results = without_context(lambda: pool.map(see, range(5), buffersize=1))
    with tracer.start_as_current_span("other"):
        assert list(results) == [(number, 0, None) for number in range(5)]


@pytest.mark.parametrize("policy", ["link", "off"])
def test_items_go_by_the_policy(policy, instrument, tracer):
    """Under `link` each is linked to the span of `map`; under `off` nothing is touched."""
    instrument(futures=policy)
    links = []

    def work(_):
        span = tracer.start_span("work")
        links.append([link.context.span_id for link in span.links])
        span.end()

    with concurrent.futures.ThreadPoolExecutor(1) as pool:

        def request():
            with tracer.start_as_current_span("request") as span:
                return pool.map(work, range(4), buffersize=1), span

        results, span = without_context(request)
        without_context(list, results)
    origin = span.get_span_context().span_id
    assert links == ([[origin]] * 4 if policy == "link" else [[]] * 4)


def test_the_iterables_are_read_in_the_context_of_the_map(pool, tracer):
    """A generator of inputs is a part of the request, whoever makes it go on."""
    seen = []

    def inputs():
        for number in range(4):
            seen.append(baggage.get_baggage("tenant"))
            yield number

    results, _ = mapped(pool, tracer, inputs())
    without_context(list, results)
    assert seen == ["acme"] * 4


def test_results_are_an_iterator_as_without_the_library(pool, tracer):
    """It has a time-out, raises what an item raises, is closed, and cancels what is left."""
    results, _ = mapped(pool, tracer, range(3))
    assert iter(results) is results
    assert type(results).__name__ == "generator"
    next(results)
    results.close()
    with pytest.raises(StopIteration):
        next(results)
    failing = pool.map(divmod, [1, 1, 1], [1, 0, 1], buffersize=1)
    assert next(failing) == (1, 0)
    with pytest.raises(ZeroDivisionError):
        next(failing)
    with pytest.raises(ValueError, match="buffersize"):
        pool.map(see, [1], buffersize=0)
    with pytest.raises(TypeError):
        pool.map(see, [1], buffer=1)


@pytest.mark.parametrize("executor", [OwnWorker, ThreadPerCall])
def test_a_home_made_executor_submits_in_the_context_of_the_map(executor, instrument, tracer):
    """Its `submit` is called there."""
    instrument()
    seen = []

    class Own(executor):
        def submit(self, fn, /, *args, **kwargs):
            seen.append(baggage.get_baggage("tenant"))
            return super().submit(fn, *args, **kwargs)

    with Own() as pool:
        results, _ = mapped(pool, tracer, range(4))
        without_context(list, results)
    assert seen == ["acme"] * 4


class Value:
    """Something that a weak reference sees."""


def test_nothing_is_kept_alive(instrument, no_collector):
    """An iterator that is exhausted, or dropped, holds no context; and no result that it gave."""
    instrument()
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        for end in (list, lambda results: [next(results)]):
            value = Value()
            dead = weak_reference(value)

            def request(value):
                attach(set_value("key", value))
                return pool.map(lambda _: Value(), range(3), buffersize=1)

            results = without_context(request, value)
            del value
            assert dead() is not None
            end(results)
            if end is not list:
                result = next(results)
                reference = weak_reference(result)
                del result
                assert reference() is None
                del results
            pool.submit(int).result(WAIT)
            assert dead() is None


def test_an_iterator_goes_on_after_the_library_was_switched_off(pool, tracer):
    """All results come."""
    results, _ = mapped(pool, tracer, range(4))
    next(results)
    ConcurrencyInstrumentor().uninstrument()
    assert [number for number, *_ in results] == [1, 2, 3]
    assert get_current() == {}
