"""loguru with `enqueue=True`: a queue of the standard library's, which needs no adapter."""

from __future__ import annotations

import gc
import threading
import weakref

import pytest
from loguru import logger
from opentelemetry import baggage, context, trace
from suite import IN_BOTH_ORDERS, run_program


@pytest.fixture
def seen():
    """Return what a sink has seen of each message; it is filled by a thread of loguru's."""
    return {}


@pytest.fixture
def add(seen):
    """Return a function that adds a sink; it is removed after the test."""
    sinks = []

    def sink(message):
        span = trace.get_current_span().get_span_context()
        found = seen.setdefault(message.record["message"], [])
        found.append((span.span_id, baggage.get_baggage("tenant"), threading.current_thread().name))

    def add():
        sinks.append(logger.add(sink, enqueue=True, catch=False))

    logger.remove()
    yield add
    for number in sinks:
        logger.remove(number)


def log(tracer, message):
    """Log inside a span, with baggage; return the span's id."""
    token = context.attach(baggage.set_baggage("tenant", message))
    with tracer.start_as_current_span("origin") as span:
        logger.info(message)
    context.detach(token)
    return span.get_span_context().span_id


def test_a_record_keeps_the_trace_in_which_it_was_made(add, seen, instrument, tracer):
    """The sink's thread has the context of each message, and none for one without."""
    instrument()
    add()
    logger.info("first")
    ids = {message: log(tracer, message) for message in ("acme", "umbrella")}
    logger.info("plain")
    logger.complete()
    assert [seen[message][0][:2] for message in ids] == [(ids[m], m) for m in ids]
    assert seen["first"][0][:2] == seen["plain"][0][:2] == (0, None)
    assert seen["plain"][0][2] != threading.current_thread().name


def test_the_listener_never_lends_its_own(add, seen, instrument, tracer):
    """Nor is it in the context of who has added the sink, nor does it keep that alive."""
    instrument()

    def in_span():
        with tracer.start_as_current_span("adder") as span:
            add()
            return weakref.ref(span)

    reference = in_span()
    logger.info("plain")
    logger.complete()
    assert seen["plain"][0][:2] == (0, None)
    gc.collect()
    assert reference() is None


@pytest.mark.parametrize("setting", ["multiprocessing", "all"])
def test_switched_off_it_carries_nothing(setting, add, seen, instrument, tracer):
    """By its policy, or with all of the library."""
    instrument(**({} if setting == "all" else {setting: "off"}))
    if setting == "all":
        instrument.__self__.uninstrument()
    add()
    log(tracer, "acme")
    logger.complete()
    assert seen["acme"][0][:2] == (0, None)


@IN_BOTH_ORDERS
def test_imported_before_or_after(first):
    """The order of imports does not matter."""
    program = (
        first.format(module="loguru")
        + """
from opentelemetry import baggage, context
logger = loguru.logger
logger.remove()
logger.add(lambda message: print(baggage.get_baggage("tenant")), enqueue=True)
token = context.attach(baggage.set_baggage("tenant", "acme"))
logger.info("carried")
context.detach(token)
logger.info("plain")
logger.complete()
"""
    )
    assert run_program(program) == "acme\nNone\n"
