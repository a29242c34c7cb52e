"""What the tests of links share: what a link is expected to be, and who is asked for one."""

from __future__ import annotations

import contextvars

from forms import FORMS
from opentelemetry import baggage, trace
from opentelemetry.context import attach, get_current
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, Sampler

MINUTE = 60_000_000_000
HANDING_OFF = [form for form in FORMS if form.setting]


class Recording(Sampler):
    """A sampler that keeps the links that it was asked with."""

    def __init__(self, sampler=ALWAYS_ON):
        self.asked = {}
        self._sampler = sampler

    def should_sample(self, parent_context, trace_id, name, kind=None, attributes=None, links=None):
        self.asked[name] = list(links or ())
        return self._sampler.should_sample(parent_context, trace_id, name, kind, attributes, links)

    def get_description(self):
        return "Recording"


def tracer_of(sampler):
    """Return a tracer with ``sampler``, and what its spans are exported to."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider(sampler=sampler, shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return provider.get_tracer("links"), exporter


def named(exporter):
    """Return the exported spans by their names."""
    return {span.name: span for span in exporter.get_finished_spans()}


def assert_linked(span, origin, **attributes):
    """Assert that a span is the root of another trace, with one link to ``origin``."""
    context = origin.get_span_context()
    assert span.parent is None
    assert span.context.trace_id != context.trace_id
    (link,) = span.links
    assert link.context == context
    found = {key.rsplit(".", 1)[-1]: value for key, value in link.attributes.items()}
    assert found == attributes


def work_in(tracer, name="work"):
    """Return work that starts a span, with a child, and tells what it ran in."""
    seen = []

    def work(*_):
        seen.append((get_current().get("key"), baggage.get_baggage("tenant")))
        seen.append(trace.get_current_span().get_span_context().is_valid)
        with tracer.start_as_current_span(name):
            tracer.start_span("child").end()

    return work, seen


def flow_in(span):
    """Return a flow that lives on in the context of ``span``."""
    flow = contextvars.Context()
    flow.run(attach, trace.set_span_in_context(span))
    return flow


def start(tracer, flow, name="late", **options):
    """Start a span in ``flow``, and end it."""
    flow.run(lambda: tracer.start_span(name, **options).end())
