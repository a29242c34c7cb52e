"""What becomes of a span that is not to be prolonged: the origin that later spans link to.

A context that is deferred has all that the captured one had but its span, which it remembers. Every
span that is started there without a parent is the root of a new trace, with a link to that origin.
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
"""Why it is a link: ``policy``, ``ended`` (the origin had, long before), ``periodic``, ``batch``.
"""

PRIMITIVE = "otel_concurrency.link.primitive"
"""Which primitive handed the work off, where that is known."""

END = "_end_time"
"""Where the SDK's spans have the time of their end, since 1.0; to ask the property costs more."""

_ORIGIN = create_key("otel-concurrency-origin")
_SINCE = create_key("otel-concurrency-since")
_SDK = "opentelemetry.sdk.trace"


Links = tuple[Link, ...]
"""What a span is linked to that is started in the place of a child: of a batch, several origins."""


class Origin(Protocol):
    """What a context remembers in the place of a span, if not the links themselves."""

    def links(self) -> Links:
        """Return the links that spans are to have which are started now."""
        ...


def deferred(
    context: Context,
    primitive: str | None,
    reason: str = "policy",
    others: Iterable[SpanContext] = (),
) -> Context:
    """Return ``context`` without its span, which it remembers; itself where it has none.

    ``others`` are spans that it remembers besides.
    """
    span: Any = context.get(_SPAN_KEY)
    if span is None:
        return context
    spans = (span.get_span_context(), *others)
    links = [link_to(one, primitive, reason) for one in spans]
    return without_span(context, tuple(link for link in links if link is not None))


def without_span(context: Context, origin: Links | Origin | None) -> Context:
    """Return the rest of ``context``, and what its later spans are to be linked to."""
    _check_provider()
    rest = {key: value for key, value in context.items() if key not in (_SPAN_KEY, _SINCE)}
    if origin:
        rest[_ORIGIN] = origin
    return Context(rest) if rest else NO_CONTEXT


def link_to(span: SpanContext, primitive: str | None, reason: str) -> Link | None:
    """Return a link that says why it is one; None where there is nothing to link to."""
    if not span.is_valid:
        return None
    attributes = {REASON: reason}
    if primitive is not None:
        attributes[PRIMITIVE] = primitive
    return Link(span, attributes)


def keys_of_origin(context: Context) -> dict[str, Any]:
    """Return that part of ``context`` which is its span, or stands in the place of one."""
    return {key: context[key] for key in (_SPAN_KEY, _SINCE, _ORIGIN) if key in context}


def origin_of(context: Context) -> Any:
    """Return what ``context`` remembers in the place of a span: links, an Origin, or None."""
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
    """Return the links that cross with ``context`` where its current ``span`` is none."""
    return () if span.get_span_context().is_valid else pending(context)


def trace_of(context: Context) -> int | None:
    """Return the id of the trace that ``context`` belongs to, or is linked to; None: of no one."""
    span: Any = context.get(_SPAN_KEY)
    if span is not None:
        return span.get_span_context().trace_id or None
    traces = {link.context.trace_id for link in pending(context)}
    return traces.pop() if len(traces) == 1 else None


def dated(context: Context, since: int) -> Context:
    """Return ``context`` with the time (ns since the epoch) from which its span grows old."""
    return Context({**context, _SINCE: (context.get(_SPAN_KEY), since)})


def is_dated(context: Context) -> bool:
    """Whether it is known from when on the span of ``context`` grows old."""
    return _SINCE in context


def is_dead(context: Context, span: Any, after: int, now: int | None = None) -> bool:
    """Whether ``span``, the current one in ``context``, ended more than ``after`` ns ago.

    ``now`` is when its child starts, where that is not at present (ns since the epoch).

    Where nobody here sees its end (it is another process's, or not sampled and made by hand), the
    age of the hand-off counts.
    """
    end: Any = getattr(span, END, _UNKNOWN)
    if end is _UNKNOWN and type(span) is NonRecordingSpan:
        end = _handed_off_at(context, span)
    if end is None or end is _UNKNOWN:
        return False
    return bool((time.time_ns() if now is None else now) - end > after)


_UNKNOWN: Any = object()


def _handed_off_at(context: Context, span: Any) -> int | None:
    """Return from when on ``span`` grows old for this flow; None where it was not handed off in it.

    The clock is not read where work is handed off: the first span that it starts is its birth.
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
    """Warn once if spans come from a provider that links cannot be given to."""
    global _checked  # noqa: PLW0603
    if _checked:
        return
    # To ask for it by `get_tracer_provider` is to have one loaded and set by the environment.
    provider: Any = getattr(trace, "_TRACER_PROVIDER", None)
    if provider is None:
        return  # it is still to be set
    _checked = True
    if not any(base.__module__.startswith(_SDK) for base in type(provider).__mro__):
        faults.once(
            _logger,
            "provider",
            "The tracer provider %s is not the OpenTelemetry SDK's: unless it makes its spans with "
            "that, what is to be linked to its origin starts a new trace, but without the link.",
            type(provider).__qualname__,
        )
