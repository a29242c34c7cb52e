"""Merges several contexts into one, for work that is done for all of them at once: a batch."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from typing import Any
from weakref import ref

from opentelemetry import baggage
from opentelemetry.context import Context
from opentelemetry.trace import SpanContext, get_current_span

from otel_concurrency._core.callers import caller
from otel_concurrency._core.handoff import NO_CONTEXT
from otel_concurrency._core.present_flow import flow_here, is_task
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


class Together:
    """What the items have in common that a flow has got one after another, without a span between.

    It refers to no context: the context of the last item is current, and has all that is common.
    """

    __slots__ = ("_entries", "_flow", "_keys", "_origin", "_spans", "find", "known")

    def __init__(self, first: Context) -> None:
        """Take the context of the first item, which the present flow has got. May raise."""
        flow = _flow()
        self._flow: Any = flow if isinstance(flow, int) else ref(flow)
        self._origin: tuple[object, ...] | None = _origin_of(first)
        self._spans = {_key(span): span for span in _spans(first)}
        self._keys = first.keys() - origins.keys_of_origin(first).keys()
        self._entries = set(baggage.get_all(first))
        self.known: dict[int, ref[Context]] = {id(first): ref(first)}
        """By their ids: contexts that were added. What is found may be another, or be gone."""
        self.find = self.known.get

    def is_here(self) -> bool:
        """Whether it is the present flow that has got the items. May raise."""
        flow = self._flow
        return bool(flow == _flow() if isinstance(flow, int) else flow() is _flow())

    def add(self, before: Context, context: Context) -> None:
        """Add an item with ``context``; ``before`` is that of the item before it. May raise."""
        if len(self.known) < _MOST_LINKS:
            self.known[id(context)] = ref(context)
        if self._keys:
            self._keys = {key for key in self._keys if context.get(key, _MISSING) is before[key]}
        if self._entries:
            old, new = baggage.get_all(before), baggage.get_all(context)
            self._entries = {name for name in self._entries if new.get(name) == old[name]}
        if self._origin is None or self._origin != _origin_of(context):
            self._origin = None
            for span in _spans(context):
                if len(self._spans) == _MOST_LINKS:
                    return
                self._spans.setdefault(_key(span), span)

    def merged(self, last: Context) -> Context:
        """Return what :func:`merged` returns for all items. ``last`` is that of the last item.

        May raise.
        """
        agreed = Context({key: last[key] for key in self._keys})
        entries = baggage.get_all(last)
        for name in self._entries:
            agreed = baggage.set_baggage(name, entries[name], agreed)
        if self._origin is None:
            return origins.without_span(agreed, _links(self._spans.values()))
        merged = Context({**agreed, **origins.keys_of_origin(last)})
        return last if merged == last else merged


def _flow() -> Any:
    """Return the present flow; of a callback of an event loop, its handle. May raise.

    What such a callback schedules for each of its items is not part of it, as a task is not.
    """
    flow = flow_here()
    events: Any = sys.modules.get("asyncio.events")
    if is_task(flow) or events is None or events._get_running_loop() is None:
        return flow
    from otel_concurrency._linking import root_places  # it is needed by few

    runner, found = root_places.innermost_runner(caller())
    if runner is None or found != root_places.CALLBACK:
        return flow
    return root_places.self_of(runner)


_MOST_LINKS = 128
"""How many origins of a batch are linked: as many as the SDK has a span keep, if not set."""


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
    return _links(spans.values())


def _links(spans: Iterable[SpanContext]) -> Links:
    links = (origins.link_to(span, None, REASON) for span in spans)
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
