"""Merges several contexts into one, for work that is done for all of them at once: a batch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from opentelemetry import baggage
from opentelemetry.context import Context
from opentelemetry.trace import SpanContext, get_current_span

from otel_concurrency._core.handoff import NO_CONTEXT
from otel_concurrency._linking import origins
from otel_concurrency._linking.origins import Links

REASON = "batch"


def merged(contexts: Iterable[Context | None]) -> Context:
    """Return the context for work that is done for all of ``contexts`` at once. May raise.

    If all contexts have the same span or the same origins, so has the merged one: the span is the
    parent, or the origins are linked to. Otherwise, spans that are started in it are root spans
    with a link to each distinct origin, in the order of ``contexts``. It has the baggage entries
    and other keys for which all contexts have the same value. An empty context, or None, has no
    origin, no baggage and no keys.
    """
    given = [context or NO_CONTEXT for context in contexts]
    if not given:
        return NO_CONTEXT
    first = given[0]
    if all(context is first for context in given):
        return first
    agreed = _agreed(given)
    if len({_origin_of(context) for context in given}) == 1:
        return Context({**agreed, **origins.keys_of_origin(first)}) or NO_CONTEXT
    return origins.without_span(agreed, _distinct_links(given))


def _spans(context: Context) -> tuple[SpanContext, ...]:
    """Return the span of a context, or the origins that it has in place of a span."""
    span = get_current_span(context).get_span_context()
    return (span,) if span.is_valid else tuple(link.context for link in origins.pending(context))


def _origin_of(context: Context) -> tuple[object, ...]:
    """Return a key that is equal for contexts whose new spans get the same parent or links."""
    is_parent = get_current_span(context).get_span_context().is_valid
    return is_parent, *(_key(span) for span in _spans(context))


def _key(span: SpanContext) -> tuple[int, int]:
    return span.trace_id, span.span_id


def _distinct_links(contexts: Sequence[Context]) -> Links:
    spans: dict[tuple[int, int], SpanContext] = {}
    for context in contexts:
        for span in _spans(context):
            spans.setdefault(_key(span), span)
    links = (origins.link_to(span, None, REASON) for span in spans.values())
    return tuple(link for link in links if link is not None)


def _agreed(contexts: Sequence[Context]) -> Context:
    """Return the keys and baggage that all contexts have in common, without span and origins."""
    first, others = contexts[0], contexts[1:]
    origin = origins.keys_of_origin(first)
    same = {
        key: value
        for key, value in first.items()
        if key not in origin and all(other.get(key, _MISSING) is value for other in others)
    }
    agreed = Context(same)
    entries = [baggage.get_all(other) for other in others]
    for name, value in baggage.get_all(first).items():
        if all(one.get(name, _MISSING) == value for one in entries):
            agreed = baggage.set_baggage(name, value, agreed)
    return agreed


_MISSING: Any = object()
