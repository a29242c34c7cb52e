"""Passes a context that has baggage, and not the span that it was meant to have."""

from opentelemetry import baggage, trace
from opentelemetry.context import Context
from opentelemetry.sdk.trace import TracerProvider

trace.set_tracer_provider(TracerProvider())
tracer = trace.get_tracer("broken")


def work():
    """Work for a tenant."""
    context = baggage.set_baggage("tenant", "acme", Context())
    with tracer.start_as_current_span("work", context=context):  # at fault
        pass


with tracer.start_as_current_span("request"):
    work()
