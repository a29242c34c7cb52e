"""Turns a captured context into headers, which cross a process boundary, and back.

W3C trace context and baggage always cross to a program's own processes, whatever the configured
propagators are: these are chosen for the program's calls to other services. What they add, such as
a vendor's keys, crosses as well. All headers are plain strings: neither live spans nor custom keys
of a context cross. On the far side the parent is a non-recording remote span, after a fork too: a
child must not write to a copy of its parent process's span.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any
from weakref import ref

from opentelemetry import baggage, trace
from opentelemetry.baggage.propagation import W3CBaggagePropagator
from opentelemetry.context import Context
from opentelemetry.propagate import get_global_textmap
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
"""Header names and values, all of them strings, so that their pickles need no classes."""

_END = origins.END

_ENDED = "otel-concurrency-ended"
"""The end time of the span (Unix ns), if it has ended. The far side cannot see it otherwise."""

_LINK = "otel-concurrency-link"
"""Reason and primitive of a link. The far side links to the span in the headers, and does not
become its child."""

_MORE_LINKS = "otel-concurrency-more-links"
"""The other origins of a batch, each in the form of a ``traceparent``, separated by spaces."""


def capture(seam: Seam, work: object) -> Headers | None:
    """Return the current context for ``work`` as headers, or None where nothing is to be carried.

    Never raises: a fault, even of a propagator, is reported once.
    """
    try:
        context = seam.capture(work)
        return pack(context) if context else None
    except Exception as error:
        handoff.report_fault("capture", error)
        return None


def capture_packed(seam: Seam, work: object) -> bytes | None:
    """Return the result of :func:`capture` as bytes, which are the same for the same context.

    May raise.
    """
    context = seam.capture(work)
    return encoded(context) if context else None


def encoded(context: Context) -> bytes | None:
    """Return the result of :func:`pack` as bytes, which are the same for the same context.

    May raise.
    """
    both = encoded_with_trailer(context)
    return None if both is None else both[0]


def encoded_with_trailer(context: Context) -> tuple[bytes, bytes] | None:
    """Return the result of :func:`encoded`, and as a trailer, which can follow a pickle.

    May raise.
    """
    global _encoded  # noqa: PLW0603
    ended = getattr(context.get(_SPAN_KEY), _END, None)
    propagator = get_global_textmap()
    last = _encoded
    if last is not None and last[0]() is context and last[1] is propagator and last[2] == ended:
        return last[3]
    named, note = named_in(context)
    headers = _written(named, propagator)
    both = None
    if headers:
        headers.update(note)
        message = wire_format.encode(headers)
        both = message, wire_format.trailer(message)
    if _LINK not in note and _is_pure(propagator):
        _encoded = ref(context), propagator, ended, both
    return both


def decoded(message: bytes) -> Context | None:
    """Return the context from which :func:`encoded` made ``message``.

    None if the version of the headers is unknown. May raise.
    """
    global _decoded  # noqa: PLW0603
    propagator = get_global_textmap()
    last = _decoded
    if last is not None and last[0] == message and last[1] is propagator:
        return last[2]
    headers = wire_format.decode(message)
    if headers is None:
        return None
    context = noted(_read(headers, propagator), headers)
    if _LINK not in headers and _ENDED not in headers and _is_pure(propagator):
        _decoded = message, propagator, context, wire_format.trailer(message)
    return context


def decoded_behind(message: bytes, behind: Callable[[bytes], bytes | None]) -> Context | None:
    """Return the context in the trailer of ``message``, in which ``behind`` finds the headers.

    None if it finds none, or their version is unknown. May raise.
    """
    last = _decoded
    if last is not None and message.endswith(last[3]) and last[1] is get_global_textmap():
        return last[2]
    headers = behind(message)
    return None if headers is None else decoded(headers)


def pack(context: Context) -> Headers | None:
    """Return ``context`` as headers, or None where it has neither a valid span nor baggage."""
    named, note = named_in(context)
    headers = _inject(context) if named is context else _written(named, get_global_textmap())
    return {**headers, **note} if headers else None


def named_in(context: Context) -> tuple[Context, Headers]:
    """Return the context to inject in place of ``context``, and additional headers.

    Propagators can only name a parent span. The additional headers say what propagators cannot
    express: that the span is to be linked to, further links, or when the span has ended.
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
    """Return the context that ``headers`` describe. Raises what a propagator raises."""
    return noted(_extract(headers), headers)


def noted(context: Context, headers: Mapping[str, str]) -> Context:
    """Apply the additional headers of :func:`named_in` to the ``context`` that was extracted."""
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
    """Return the span that ``traceparent`` names; an invalid span context if it names none."""
    context = _W3C.extract({"traceparent": traceparent}, NO_CONTEXT)
    return trace.get_current_span(context).get_span_context()


_PURE = (TraceContextTextMapPropagator, W3CBaggagePropagator)
"""The default propagators. Their results depend only on the context, or only on the headers. So
results are cached, since much work is often handed off in one span."""

_STANDARD = CompositePropagator([TraceContextTextMapPropagator(), W3CBaggagePropagator()])

_encoded: tuple[ref[Context], object, int | None, tuple[bytes, bytes] | None] | None = None
_decoded: tuple[bytes, object, Context, bytes] | None = None

_FIELDS = ("traceparent", "tracestate", "baggage")

_injected: tuple[object, ref[Context], Headers] | None = None
_extracted: tuple[object, tuple[str | None, ...], Context] | None = None
"""The last arguments and results of the default propagators: a cache of one entry each."""

_purity: tuple[object, bool] = None, False
"""The last propagator that was looked at, and whether it is pure."""


def _is_pure(propagator: Any) -> bool:
    """Whether a propagator adds nothing to W3C trace context and baggage."""
    global _purity  # noqa: PLW0603
    last = _purity
    if last[0] is propagator:
        return last[1]
    parts = getattr(propagator, "_propagators", (propagator,))
    pure = type(propagator) is CompositePropagator and all(type(part) in _PURE for part in parts)
    _purity = propagator, pure
    return pure


def _inject(context: Context) -> Headers:
    global _injected  # noqa: PLW0603
    propagator = get_global_textmap()
    last = _injected
    if last is not None and last[0] is propagator and last[1]() is context:
        return last[2].copy()
    headers = _written(context, propagator)
    if _is_pure(propagator):
        _injected = propagator, ref(context), headers.copy()
    return headers


def _written(context: Context, propagator: Any) -> Headers:
    """Return the W3C headers of ``context``, and what ``propagator`` adds to them."""
    headers: Headers = {}
    _STANDARD.inject(headers, context)
    if _is_pure(propagator):
        return headers
    added: Headers = {}
    try:
        propagator.inject(added, context)
    except Exception as error:
        handoff.report_fault("inject", error)
    # A vendor's propagator puts its entry in front of the entries that ``tracestate`` has.
    if len(added.get("tracestate", "")) > len(headers.get("tracestate", "")):
        headers["tracestate"] = added["tracestate"]
    return {**added, **headers}


def _extract(headers: Mapping[str, str]) -> Context:
    global _extracted  # noqa: PLW0603
    propagator = get_global_textmap()
    fields = tuple([headers.get(field) for field in _FIELDS])
    last = _extracted
    if last is not None and last[0] is propagator and last[1] == fields:
        return last[2]
    context = _read(headers, propagator)
    if _is_pure(propagator):
        _extracted = propagator, fields, context
    return context


def know(headers: Headers) -> None:
    """Have a child that is forked next know the context of ``headers``. May raise.

    What it need not find out itself, it need not touch: each page of memory that a child touches is
    copied first.
    """
    if _is_pure(get_global_textmap()):
        _extract(headers)


def _read(headers: Mapping[str, str], propagator: Any) -> Context:
    """Return the context of the W3C headers, and what ``propagator`` finds in addition."""
    context = _STANDARD.extract(headers, Context())
    return context if _is_pure(propagator) else _with_what_is_added(context, headers, propagator)


def _with_what_is_added(context: Context, headers: Mapping[str, str], propagator: Any) -> Context:
    """Return ``context`` with what ``propagator`` finds in ``headers`` in addition."""
    try:
        found: Context = propagator.extract(headers, context)
    except Exception as error:
        handoff.report_fault("extract", error)
        return context
    # Other formats lose half of the trace id, the trace state, or the baggage: keep W3C's.
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
        handoff.report_fault("extract", error)
        return None
