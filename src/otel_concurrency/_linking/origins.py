"""Origins: the spans that a new trace links to, where work is not a child of them.

A deferred context has everything that the captured context had except its span. It remembers that
span as its origin. Every span that starts in it without a parent is the root span of a new trace,
with a link to the origin.
"""

from __future__ import annotations

import logging
import time
from _thread import get_ident
from collections.abc import Iterable
from typing import Any, Protocol

from opentelemetry import trace
from opentelemetry.context import Context, create_key
from opentelemetry.trace import Link, NonRecordingSpan, SpanContext
from opentelemetry.trace.propagation import (
    _SPAN_KEY,  # pyright: ignore[reportPrivateUsage]  # a third of trace.get_current_span's cost
)

from otel_concurrency._core import faults, handoff
from otel_concurrency._core.handoff import NO_CONTEXT

_logger = logging.getLogger(__name__)

REASON = "otel_concurrency.link.reason"
"""The reason for the link: ``policy``, ``ended`` (the origin ended long before), ``periodic`` or
``batch``."""

PRIMITIVE = "otel_concurrency.link.primitive"
"""The primitive that handed the work off, if it is known."""

END = "_end_time"
"""The attribute in which the SDK's spans keep their end time, since 1.0. It is cheaper to read than
the property."""

_ORIGIN = create_key("otel-concurrency-origin")
_SINCE = create_key("otel-concurrency-since")
_SDK = "opentelemetry.sdk.trace"


Links = tuple[Link, ...]
"""The links of a root span that would otherwise be a child: a batch has several origins."""


class Origin(Protocol):
    """An object that a context remembers in place of a span, and that makes the links on demand."""

    def links(self) -> Links:
        """Return the links for spans that start now."""
        ...


def deferred(
    context: Context,
    primitive: str | None,
    reason: str = "policy",
    others: Iterable[SpanContext] = (),
) -> Context:
    """Return ``context`` with its span turned into an origin; itself if it has no span.

    ``others`` are further origins.
    """
    span: Any = context.get(_SPAN_KEY)
    if span is None:
        return context
    spans = (span.get_span_context(), *others)
    links = [link_to(one, primitive, reason) for one in spans]
    return without_span(context, tuple(link for link in links if link is not None))


def without_span(context: Context, origin: Links | Origin | None) -> Context:
    """Return ``context`` without its span, and with ``origin`` for its later root spans."""
    _check_provider()
    rest = {key: value for key, value in context.items() if key not in (_SPAN_KEY, _SINCE)}
    if origin:
        rest[_ORIGIN] = origin
    return Context(rest) if rest else NO_CONTEXT


def link_to(span: SpanContext, primitive: str | None, reason: str) -> Link | None:
    """Return a link to ``span`` with its reason as an attribute; None if ``span`` is not valid."""
    if not span.is_valid:
        return None
    attributes = {REASON: reason}
    if primitive is not None:
        attributes[PRIMITIVE] = primitive
    return Link(span, attributes)


def keys_of_origin(context: Context) -> dict[str, Any]:
    """Return the keys of ``context`` that hold its span, or what it has in place of a span."""
    return {key: context[key] for key in (_SPAN_KEY, _SINCE, _ORIGIN) if key in context}


def origin_of(context: Context) -> Any:
    """Return what ``context`` has in place of a span: links, an :class:`Origin`, or None."""
    return context.get(_ORIGIN)


def pending(context: Context) -> Links:
    """Return the links that the next root span in ``context`` will have."""
    origin = origin_of(context)
    if origin is None:
        return ()
    ask = getattr(origin, "links", None)
    links: Links = origin if ask is None else ask()
    return links


def instead_of(span: trace.Span, context: Context) -> Links:
    """Return the links that cross with ``context``; none if its ``span`` is valid."""
    return () if span.get_span_context().is_valid else pending(context)


def trace_of(context: Context) -> int | None:
    """Return the id of the trace to which ``context`` belongs or is linked; None if there is none.

    None as well if its links lead to several traces.
    """
    span: Any = context.get(_SPAN_KEY)
    if span is not None:
        return span.get_span_context().trace_id or None
    traces = {link.context.trace_id for link in pending(context)}
    return traces.pop() if len(traces) == 1 else None


def dated(context: Context, since: int) -> Context:
    """Return ``context`` with the time (ns since the epoch) from which its span's age is counted.

    For a span whose end this process cannot see: ``since`` is its end, or the time of the hand-off.
    """
    return Context({**context, _SINCE: (context.get(_SPAN_KEY), since)})


def is_dated(context: Context) -> bool:
    """Whether ``context`` has a time from :func:`dated`."""
    return _SINCE in context


def is_dead(context: Context, span: Any, after: int, now: int | None = None) -> bool:
    """Whether ``span``, the current one in ``context``, ended more than ``after`` ns ago.

    ``now`` is the start time of the child (ns since the epoch), if that is not the present time.

    The end of some spans cannot be seen here: those of another process, and spans that are not
    sampled and not made by the SDK. For these, the age of the hand-off counts.
    """
    end: Any = getattr(span, END, _UNKNOWN)
    if end is _UNKNOWN and type(span) is NonRecordingSpan:
        end = _handed_off_at(context, span)
    if end is None or end is _UNKNOWN:
        return False
    return bool((time.time_ns() if now is None else now) - end > after)


_UNKNOWN: Any = object()


def _handed_off_at(context: Context, span: Any) -> int | None:
    """Return the time that counts as the end of ``span`` for this flow; None if there is none.

    There is one if ``span`` came with a time, or if the present work was handed off in ``span``.
    The clock is not read when work is handed off. The start of the work's first span counts.
    """
    known: Any = context.get(_SINCE)
    if known is not None and known[0] is span:
        since: int = known[1]
        return since
    thread = get_ident()
    body = handoff.bodies.get(thread)
    if body is None or body.get(_SPAN_KEY) is not span:
        return None
    return handoff.ages.setdefault(thread, time.time_ns())


_checked = False


def _check_provider() -> None:
    """Warn once if the tracer provider is not the SDK's, since links can be added only to those."""
    global _checked  # noqa: PLW0603
    if _checked:
        return
    # `get_tracer_provider` might load a provider that the environment names, and set it.
    provider: Any = getattr(trace, "_TRACER_PROVIDER", None)
    if provider is None:
        return  # no provider is set yet
    _checked = True
    if not any(base.__module__.startswith(_SDK) for base in type(provider).__mro__):
        faults.once(
            _logger,
            "provider",
            "The tracer provider %s is not the OpenTelemetry SDK's. A span that should be linked "
            "to its origin starts a new trace without the link, unless it is a span of the SDK.",
            type(provider).__qualname__,
        )
