"""Several contexts that become one: the parent, the links and the baggage of a batch."""

from __future__ import annotations

import threading

import pytest
from opentelemetry import baggage, trace
from opentelemetry.context import Context, attach, detach, set_value
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags

from otel_concurrency._crossing import carrier, environment
from otel_concurrency._linking import origins
from otel_concurrency._linking.batches import merged


def context_of(number, **entries):
    """Return a context with a remote span of that number, and baggage."""
    span = SpanContext(number, number, is_remote=True, trace_flags=TraceFlags(1))
    context = trace.set_span_in_context(NonRecordingSpan(span), Context())
    for name, value in entries.items():
        context = baggage.set_baggage(name, value, context)
    return context


def started_in(context, tracer):
    """Return a span that was started in ``context`` as the current one, and ended."""
    token = attach(context)
    try:
        span = tracer.start_span("batch")
        span.end()
    finally:
        detach(token)
    return span


def linked(span):
    """Return what a root span is linked to, and why."""
    assert span.parent is None
    return [(link.context.span_id, dict(link.attributes)) for link in span.links]


BATCH = {"otel_concurrency.link.reason": "batch"}


def test_items_of_one_origin_have_one_parent(instrumented, tracer):
    """Where all were handed off in the same span, though in other contexts, that is the parent."""
    context = merged([context_of(1, page="1"), context_of(1, page="2"), context_of(1)])
    span = started_in(context, tracer)
    assert span.parent.span_id == 1
    assert not span.links


def test_items_of_several_origins_are_linked(instrumented, tracer):
    """Where they differ a trace is started, with a link to each distinct one, in their order."""
    context = merged([context_of(number) for number in (3, 1, 3, 2, 1)])
    assert linked(started_in(context, tracer)) == [(3, BATCH), (1, BATCH), (2, BATCH)]


@pytest.mark.parametrize("without", [None, Context()])
def test_an_item_without_a_context_is_of_another_origin(without, instrumented, tracer):
    """Beside one that has none, an origin is linked to and is not the parent."""
    context = merged([context_of(1, tenant="acme"), without])
    assert linked(started_in(context, tracer)) == [(1, BATCH)]
    assert not baggage.get_all(context)


@pytest.mark.parametrize("contexts", [[], [None], [Context(), None]])
def test_nothing_makes_nothing(contexts, instrumented, tracer):
    """Of no item, and of items without a context, the batch is a root without links."""
    assert merged(contexts) == Context()
    assert linked(started_in(merged(contexts), tracer)) == []


def test_baggage_is_what_all_agree_on():
    """An entry stays if each item has it with the same value; so does every other key."""
    shared = object()
    one = set_value("shared", shared, context_of(1, tenant="acme", user="ada", page="1"))
    other = set_value("shared", shared, context_of(2, tenant="acme", user="bob"))
    one, other = set_value("own", object(), one), set_value("own", object(), other)
    context = merged([one, other])
    assert dict(baggage.get_all(context)) == {"tenant": "acme"}
    assert context["shared"] is shared
    assert "own" not in context


def test_one_context_is_returned_as_it_is():
    """A batch of one, or of items that were handed off in the same context, is that context."""
    context = context_of(1, tenant="acme")
    assert merged([context, context]) is context


def test_a_common_link_is_kept(instrumented, tracer):
    """Items that are linked to one origin by policy are linked to it in a batch, too, once."""
    context = origins.deferred(context_of(1), "queue")
    other = origins.deferred(context_of(1, page="2"), "queue")
    assert linked(started_in(merged([context, other]), tracer)) == [
        (1, {"otel_concurrency.link.reason": "policy", "otel_concurrency.link.primitive": "queue"})
    ]


def test_a_batch_of_batches_is_linked_to_all(instrumented, tracer):
    """What was itself of several origins adds each of them."""
    batch = merged([context_of(1), context_of(2)])
    assert linked(started_in(merged([batch, context_of(2), context_of(3)]), tracer)) == [
        (1, BATCH),
        (2, BATCH),
        (3, BATCH),
    ]


def test_a_link_beside_a_parent_of_the_same_span_is_one_link(instrumented, tracer):
    """One item says parent and the other says link: the batch is linked."""
    context = merged([context_of(1), origins.deferred(context_of(1), "queue")])
    assert linked(started_in(context, tracer)) == [(1, BATCH)]


def test_an_old_parent_of_all_stays_old(instrument, tracer, clock):
    """What is known of the age of a common origin is known of it in a batch."""
    instrument(link_after=1)
    old = origins.dated(context_of(1, page="1"), 0)
    span = started_in(merged([old, context_of(1, page="2")]), tracer)
    assert linked(span) == [(1, {"otel_concurrency.link.reason": "ended"})]


def test_links_cross_to_another_process(instrumented, tracer):
    """Headers that are made of a batch's context lead to links to all of its origins."""
    headers = carrier.pack(merged([context_of(3, tenant="acme"), context_of(1, tenant="acme")]))
    context = carrier.unpack(headers)
    assert linked(started_in(context, tracer)) == [(3, BATCH), (1, BATCH)]
    assert baggage.get_baggage("tenant", context) == "acme"


def test_links_cross_in_an_environment(tracer, instrument, monkeypatch):
    """So do variables of the environment of a command."""
    _, variables = environment.changes_for_child(merged([context_of(3), context_of(1)]), {})
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    instrument(subprocess="parent")
    assert linked(tracer.start_span("child")) == [(3, BATCH), (1, BATCH)]


def test_a_timer_armed_in_a_batch_is_linked_to_all(instrumented, tracer):
    """A round that makes no span of its own hands all links on to the next."""
    done = threading.Event()
    spans, rounds = [], []

    def tick():
        rounds.append(1)
        if len(rounds) == 2:
            spans.append(tracer.start_span("second round"))
            done.set()
        else:
            threading.Timer(0, tick).start()

    token = attach(merged([context_of(1), context_of(2)]))
    threading.Timer(0, tick).start()
    detach(token)
    assert done.wait(10)
    assert [span_id for span_id, _ in linked(spans[0])] == [1, 2]
