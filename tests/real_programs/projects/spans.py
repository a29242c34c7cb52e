"""Makes the spans of these programs: no two have the same name, and each names its parent."""

from __future__ import annotations

from opentelemetry import trace


def span(name, parent=""):
    """Make the span ``name`` current, which is meant to be below the span ``parent``, or a root."""
    tracer = trace.get_tracer("real_programs")
    return tracer.start_as_current_span(name, attributes={"intended": parent})
