"""Streams from a generator that holds a span over its yield: its consumer works inside it."""

from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider

trace.set_tracer_provider(TracerProvider())
tracer = trace.get_tracer("broken")


def stream():
    """Return rows."""
    with tracer.start_as_current_span("stream"):  # at fault
        for row in range(2):
            with tracer.start_as_current_span("fetch"):
                pass
            yield row


with tracer.start_as_current_span("request"):
    for _ in stream():
        with tracer.start_as_current_span("handle"):
            pass
