"""What work can see of the context that it runs in."""

from __future__ import annotations

from opentelemetry import baggage, trace
from opentelemetry.context import Context, attach, detach

from flows import WAIT, without_context

__all__ = ["NOTHING", "WAIT", "context_of", "current", "id_of", "in_context", "without_context"]

NOTHING = (0, None)


def id_of(span):
    """Return a span's id."""
    return span.get_span_context().span_id


def current():
    """Return the id of the current span, 0 for none, and the tenant in the baggage."""
    return id_of(trace.get_current_span()), baggage.get_baggage("tenant")


def context_of(span, tenant=None):
    """Return a context with a span, and baggage."""
    context = trace.set_span_in_context(span, Context())
    return context if tenant is None else baggage.set_baggage("tenant", tenant, context)


def in_context(context, function, *args):
    """Call ``function`` with ``context`` attached."""
    token = attach(context)
    try:
        return function(*args)
    finally:
        detach(token)
