"""Generators and what is handed off by hand: `with handoff:` around a `yield`, and `wrap`."""

from __future__ import annotations

import threading

import pytest
from opentelemetry import trace
from opentelemetry.context import get_current
from test_generators import found

from otel_concurrency import capture
from otel_concurrency._generators import monitoring

pytestmark = [
    pytest.mark.skipif(
        not monitoring.IS_THERE, reason="before CPython 3.12 a suspension is not heard of"
    ),
    pytest.mark.usefixtures("instrumented"),
]


def current_name():
    """Return the name of the span that is current, if there is one."""
    return getattr(trace.get_current_span(), "name", None)


@pytest.fixture
def origin(tracer):
    """Return a hand-off that was captured in a span."""
    with tracer.start_as_current_span("origin"):
        return capture()


def in_a_thread(work):
    """Run ``work`` in a thread, and return its result."""
    results = []
    thread = threading.Thread(target=lambda: results.append(work()))
    thread.start()
    thread.join()
    return results[0]


def test_a_hand_off_around_a_yield(origin, tracer, caplog):
    """In one flow it is left in order; until then the consumer is in it: it is for one call."""

    def stream():
        with origin:
            yield current_name()
            yield current_name()

    with tracer.start_as_current_span("consumer"):
        generator = stream()
        assert next(generator) == "origin"
        assert current_name() == "origin"
        assert list(generator) == ["origin"]
        assert current_name() == "consumer"
    assert not get_current()
    assert not caplog.records


def test_a_hand_off_inside_a_generator_that_holds_a_span(origin, tracer, caplog):
    """The generator is suspended and resumed with all that is current in it."""

    def stream():
        with tracer.start_as_current_span("generator"):
            yield current_name()
            with origin:
                yield current_name()
                yield current_name()
            yield current_name()

    generator = stream()
    with tracer.start_as_current_span("consumer"):
        for expected in ("generator", "origin", "origin", "generator"):
            assert next(generator) == expected
            assert current_name() == "consumer"
        assert list(generator) == []
        assert current_name() == "consumer"
    assert not get_current()
    assert not caplog.records
    assert not found().suspensions.by_frame


def test_such_a_hand_off_that_is_left_in_another_thread(origin, tracer, caplog):
    """It says so in one warning, and both the generator and its consumers keep their own."""

    def stream():
        with tracer.start_as_current_span("generator"):
            with origin:
                yield current_name()
            yield current_name()

    def step():
        with tracer.start_as_current_span("consumer"):
            return next(generator), current_name()

    generator = stream()
    assert step() == ("origin", "consumer")
    value, current = in_a_thread(step)
    assert current == "consumer"
    assert value == "origin"  # as the warning says: nothing is detached
    generator.close()
    assert not get_current()
    (record,) = caplog.records
    assert "in another thread or task" in record.getMessage()


@pytest.mark.parametrize("elsewhere", [False, True], ids=["here", "in another thread"])
def test_a_wrapped_generator_function_that_holds_a_span(elsewhere, origin, tracer, caplog):
    """It begins in the captured context, holds its span, and leaves its consumers their own."""

    def stream():
        seen.append(current_name())
        with tracer.start_as_current_span("generator"):
            yield current_name()
            yield current_name()
        seen.append(current_name())
        yield current_name()

    def step():
        with tracer.start_as_current_span("consumer"):
            return next(generator), current_name()

    seen = []
    generator = origin.wrap(stream)()
    for expected in ("generator", "generator", "origin"):
        assert (in_a_thread(step) if elsewhere else step()) == (expected, "consumer")
    generator.close()
    assert seen == ["origin", "origin"]
    assert not get_current()
    assert not caplog.records
    assert not found().suspensions.by_frame
