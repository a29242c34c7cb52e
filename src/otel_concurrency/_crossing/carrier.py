"""A captured context as headers, which cross a process boundary, and back.

What crosses to a program's own processes is always W3C trace context and baggage, whatever the
configured propagators are: these say how the program talks to other services. What they add, such
as a vendor's own keys, crosses as well. All of it is plain strings: never a live span, no custom
keys. On the far side the parent is a non-recording remote span, after a fork too: a child must not
write to a copy of its parent's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from weakref import ref

from opentelemetry import baggage, propagate, trace
from opentelemetry.baggage.propagation import W3CBaggagePropagator
from opentelemetry.context import Context
from opentelemetry.propagators.composite import CompositePropagator
from opentelemetry.trace import SpanContext
from opentelemetry.trace.propagation import (
    _SPAN_KEY,  # pyright: ignore[reportPrivateUsage]  # a third of trace.get_current_span's cost
)
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from otel_concurrency._core import handoff
from otel_concurrency._core.handoff import NO_CONTEXT, Seam
from otel_concurrency._crossing import wire_format
from otel_concurrency._linking import origins

Headers = dict[str, str]
"""Header names and values, all of them strings: what is pickled is plain."""

_ENDED = "otel-concurrency-ended"
"""When the span ended (Unix ns), if it had: on the far side nobody sees it end."""

_LINK = "otel-concurrency-link"
"""Why and by whom the far side is linked to the span in the headers, instead of its child."""

_MORE_LINKS = "otel-concurrency-more-links"
"""The other origins of a batch: each as a ``traceparent`` has it, separated by spaces."""


def capture(seam: Seam, work: object) -> Headers | None:
    """Return the current context for ``work`` as headers, or None where nothing is to be carried.

    Never raises: a fault, also one of a propagator's, is reported once.
    """
    try:
        context = seam.capture(work)
        return pack(context) if context else None
    except Exception as error:
        handoff.report("capture", error)
        return None


def capture_packed(seam: Seam, work: object) -> bytes | None:
    """Return what :func:`capture` does, as bytes that are the same for the same context.

    May raise.
    """
    global _packed  # noqa: PLW0603
    context = seam.capture(work)
    if not context:
        return None
    ended = getattr(context.get(_SPAN_KEY), origins.END, None)
    propagator = propagate.get_global_textmap()
    last = _packed
    if last is not None and last[0]() is context and last[1] is propagator and last[2] == ended:
        return last[3]
    headers = pack(context)
    message = None if headers is None else wire_format.encode(headers)
    if _is_pure(propagator) and _LINK not in (headers or ()):
        _packed = ref(context), propagator, ended, message
    return message


def unpack_packed(message: bytes) -> Context:
    """Return the context that :func:`capture_packed` has made ``message`` of. May raise."""
    headers = wire_format.decode(message)
    return NO_CONTEXT if headers is None else unpack(headers)


def pack(context: Context) -> Headers | None:
    """Return ``context`` as headers, or None where it has neither a valid span nor baggage."""
    named, note = named_in(context)
    if named is context:
        headers = _inject(context)
    else:
        headers = _written(named, propagate.get_global_textmap())
    return {**headers, **note} if headers else None


def named_in(context: Context) -> tuple[Context, Headers]:
    """Return what propagators are to be given in the place of ``context``, and a note on it.

    They can name a span that is to be the parent on the far side. The note says what they cannot:
    that it is to be linked to, and with which others, or when it has ended.
    """
    span = trace.get_current_span(context)
    links = origins.instead_of(span, context)
    if links:
        first, *others = links
        attributes = first.attributes or {}
        words = (str(attributes.get(key, "")) for key in (origins.REASON, origins.PRIMITIVE))
        note = {_LINK: " ".join(words)}
        if others:
            note[_MORE_LINKS] = " ".join(traceparent_of(one.context) for one in others)
        return trace.set_span_in_context(trace.NonRecordingSpan(first.context), context), note
    ended = getattr(span, origins.END, None)
    return context, {} if ended is None else {_ENDED: str(ended)}


def unpack(headers: Mapping[str, str]) -> Context:
    """Return the context that ``headers`` speak of. Raises what a propagator raises."""
    return noted(_extract(headers), headers)


def noted(context: Context, headers: Mapping[str, str]) -> Context:
    """Return what propagators have found in ``headers`` as the note among these has it."""
    if _LINK in headers:
        reason, _, primitive = headers[_LINK].partition(" ")
        others = headers.get(_MORE_LINKS, "").split()
        return origins.deferred(context, primitive or None, reason, map(span_of, others))
    if _ENDED in headers:
        context = origins.dated(context, int(headers[_ENDED]))
    return context or NO_CONTEXT


_W3C = TraceContextTextMapPropagator()


def traceparent_of(span: SpanContext) -> str:
    """Return a span in the form of the ``traceparent`` header."""
    headers: Headers = {}
    _W3C.inject(headers, trace.set_span_in_context(trace.NonRecordingSpan(span), NO_CONTEXT))
    return headers["traceparent"]


def span_of(traceparent: str) -> SpanContext:
    """Return the span that ``traceparent`` names; one that is not valid where it names none."""
    context = _W3C.extract({"traceparent": traceparent}, NO_CONTEXT)
    return trace.get_current_span(context).get_span_context()


_PURE = (TraceContextTextMapPropagator, W3CBaggagePropagator)
"""The default propagators. What they make of a context depends on nothing else, nor does what they
make of their headers: much work is handed off in one span, and need not be asked about again."""

_STANDARD = CompositePropagator([TraceContextTextMapPropagator(), W3CBaggagePropagator()])

_packed: tuple[ref[Context], object, int | None, bytes | None] | None = None

_FIELDS = ("traceparent", "tracestate", "baggage")

_injected: tuple[object, ref[Context], Headers] | None = None
_extracted: tuple[object, tuple[str | None, ...], Context] | None = None
"""What the default propagators were last asked, and what they said."""


def _is_pure(propagator: Any) -> bool:
    """Whether a propagator adds nothing to W3C trace context and baggage."""
    parts = getattr(propagator, "_propagators", (propagator,))
    return type(propagator) is CompositePropagator and all(type(part) in _PURE for part in parts)


def _inject(context: Context) -> Headers:
    global _injected  # noqa: PLW0603
    propagator = propagate.get_global_textmap()
    last = _injected
    if last is not None and last[0] is propagator and last[1]() is context:
        return last[2].copy()
    headers = _written(context, propagator)
    if _is_pure(propagator):
        _injected = propagator, ref(context), headers.copy()
    return headers


def _written(context: Context, propagator: Any) -> Headers:
    """Return what the standard says of ``context``, and what ``propagator`` adds to it."""
    headers: Headers = {}
    _STANDARD.inject(headers, context)
    if _is_pure(propagator):
        return headers
    added: Headers = {}
    try:
        propagator.inject(added, context)
    except Exception as error:
        handoff.report("inject", error)
    # A vendor's entry in ``tracestate`` stands in front of those that were there.
    if len(added.get("tracestate", "")) > len(headers.get("tracestate", "")):
        headers["tracestate"] = added["tracestate"]
    return {**added, **headers}


def _extract(headers: Mapping[str, str]) -> Context:
    global _extracted  # noqa: PLW0603
    propagator = propagate.get_global_textmap()
    fields = tuple([headers.get(field) for field in _FIELDS])
    last = _extracted
    if last is not None and last[0] is propagator and last[1] == fields:
        return last[2]
    context = _STANDARD.extract(headers, Context())
    if _is_pure(propagator):
        _extracted = propagator, fields, context
    else:
        context = _with_what_is_added(context, headers, propagator)
    return context


def _with_what_is_added(context: Context, headers: Mapping[str, str], propagator: Any) -> Context:
    """Return ``context`` with what ``propagator`` finds in ``headers`` besides."""
    try:
        found: Context = propagator.extract(headers, context)
    except Exception as error:
        handoff.report("extract", error)
        return context
    # Other formats drop a part: half of a trace identifier, the trace state, the baggage.
    span = trace.get_current_span(context)
    if span.get_span_context().is_valid and trace.get_current_span(found) is not span:
        found = trace.set_span_in_context(span, found)
    entries = baggage.get_all(found)
    for name, value in baggage.get_all(context).items():
        if name not in entries:
            found = baggage.set_baggage(name, value, found)
    return found


def unpack_safely(headers: Mapping[str, str] | None) -> Context | None:
    """Return the context of ``headers``; None without any, and after a reported fault."""
    if not headers:
        return None
    try:
        return unpack(headers)
    except Exception as error:
        handoff.report("extract", error)
        return None
