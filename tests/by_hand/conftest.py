"""What the tests of hand-offs by hand share."""

from __future__ import annotations

import pytest
from opentelemetry import baggage
from opentelemetry.context import attach, detach

from otel_concurrency import ConcurrencyInstrumentor


@pytest.fixture(params=["off", "on"])
def library(request):
    """Run a test with the library switched off, and again with it switched on."""
    if request.param == "on":
        ConcurrencyInstrumentor().instrument()
        yield request.param
        ConcurrencyInstrumentor().uninstrument()
    else:
        yield request.param


@pytest.fixture
def request_span(tracer):
    """Return a span that is current for the length of the test, beside baggage."""
    token = attach(baggage.set_baggage("tenant", "acme"))
    with tracer.start_as_current_span("request") as span:
        yield span
    detach(token)


@pytest.fixture
def parent_of(tracer):
    """Return a function that starts a span here, and returns its parent's span id."""

    def parent():
        span = tracer.start_span("work")
        span.end()
        return None if span.parent is None else span.parent.span_id

    return parent


@pytest.fixture
def links_of(tracer):
    """Return a function that starts a root here, and returns what it is linked to, and why."""

    def links():
        span = tracer.start_span("work")
        span.end()
        assert span.parent is None
        return [
            (link.context.span_id, link.attributes["otel_concurrency.link.reason"])
            for link in span.links
        ]

    return links
