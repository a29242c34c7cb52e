"""The headers of a hand-off: written to a message or a table row, and read from one.

Incoming headers are untrusted: every broker's client represents headers in its own way, and any
program may have written them. So nothing here raises. Headers from which no context can be
extracted are reported once, and give an empty context.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from opentelemetry import propagate, trace
from opentelemetry.context import Context

from otel_concurrency._core import faults, handoff
from otel_concurrency._core.handoff import NO_CONTEXT
from otel_concurrency._crossing import carrier
from otel_concurrency._linking import origins, span_start

_logger = logging.getLogger(__name__)

Carrier = (
    Mapping[str, Any]
    | Mapping[bytes, Any]
    | Iterable[tuple[str, Any]]
    | Iterable[tuple[bytes, Any]]
)
"""What `HandOff.from_headers` takes: a mapping, or pairs of names and values."""

_JOINED = ("baggage", "tracestate")
"""Headers that may occur several times and are joined by commas (RFC 9110, section 5.3; W3C)."""

_OF_SQS = ("StringValue", "stringValue", "BinaryValue", "binaryValue")
"""Keys of the value in an SQS message attribute, as boto3 and as Lambda's events spell them."""

_MOST_SHOWN = 100
"""The number of characters of a value that a message quotes at most."""


def write(context: Context) -> dict[str, str]:
    """Return the headers that the configured propagators write for ``context``. Never raises."""
    try:
        if context and not propagate.get_global_textmap().fields:
            faults.in_one_line(
                _logger,
                "no propagator",
                "headers() is empty, since the configured propagators carry nothing: name some in "
                "OTEL_PROPAGATORS (by default it is tracecontext,baggage), or set one by "
                "opentelemetry.propagate.set_global_textmap().",
            )
            return {}
        named, note = carrier.named_in(context)
        headers: dict[str, str] = {}
        propagate.inject(headers, named)
        return {**headers, **note} if headers else {}
    except Exception as error:
        handoff.report_fault("inject", error)
        return {}


def read(headers: Any) -> Context:
    """Return the context in ``headers``; an empty one where they have none. Never raises."""
    try:
        return _read(headers)
    except Exception as error:
        handoff.report_fault("extract", error)
        return NO_CONTEXT


def _read(headers: Any) -> Context:
    try:
        pairs = _pairs(headers)
    except _NoHeadersError:
        kind, shown = type(headers).__name__, _shown(headers)
        _report(kind, f"expected a mapping or pairs of names and values, got {kind} {shown}")
        return NO_CONTEXT
    return _context_of(_texts_by_name(pairs))


def _context_of(headers: dict[str, str]) -> Context:
    context = carrier.noted(propagate.extract(headers, Context()), headers)
    if origins.pending(context):
        span_start.give_links()
    elif trace.get_current_span(context).get_span_context().is_valid:
        if not origins.is_dated(context):
            context = origins.dated(context, time.time_ns())
    else:
        for name in propagate.get_global_textmap().fields - {*_JOINED}:
            value = headers.get(name)
            # A B3 value of one character is only a sampling decision.
            if value is not None and not ("b3" in name and len(value) == 1):
                _report(name, f"{name} has the value {_shown(value)}, which names no trace")
    return context


class _NoHeadersError(Exception):
    """The argument is neither a mapping nor pairs."""


def _pairs(headers: Any) -> list[tuple[str, Any]]:
    """Return names and values. Raises _NoHeadersError where there are none."""
    try:
        items = getattr(headers, "items", None)
        pairs = headers if items is None else items()
        return [(_text(name), value) for name, value in map(_pair, pairs)]
    except (TypeError, ValueError, AttributeError):
        raise _NoHeadersError from None


def _pair(pair: Any) -> tuple[Any, Any]:
    if isinstance(pair, _TEXT):  # a text of two characters would unpack as a pair
        raise _NoHeadersError
    name, value = pair
    return name, value


_BYTES: Any = (bytes, bytearray, memoryview)
_TEXT: Any = (str, *_BYTES)
_SEVERAL: Any = (list, tuple)


def _text(value: Any) -> str:
    if isinstance(value, _BYTES):
        return bytes(value).decode(errors="replace")
    if isinstance(value, str):
        return value
    raise TypeError("neither text nor bytes")


def _texts_by_name(pairs: list[tuple[str, Any]]) -> dict[str, str]:
    """Return the values by name; names are spelled as the propagators spell them."""
    spelled = {field.lower(): field for field in propagate.get_global_textmap().fields}
    values: dict[str, list[str]] = {}
    for name, value in pairs:
        key = name.lower()
        values.setdefault(spelled.get(key, key), []).extend(_texts(value))
    texts: dict[str, str] = {}
    for name, found in values.items():
        if name in _JOINED:
            texts[name] = ",".join(found)
        elif len({*found}) == 1:
            texts[name] = found[0]
        elif found and name in spelled.values():
            _report(name, f"there are {len(found)} different values for {name}")
    return texts


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, _TEXT):
        yield _text(value)
    elif isinstance(value, Mapping):
        for key in _OF_SQS:
            if key in value:
                yield from _texts(value[key])
    elif isinstance(value, _SEVERAL):
        for one in value:
            yield from _texts(one)
    elif value is not None:
        yield repr(value)


def _report(cause: str, what: str) -> None:
    """Report headers that give no context, once for each ``cause``."""
    faults.in_one_line(
        _logger, ("malformed", cause), "HandOff.from_headers() found no context: %s.", what
    )


def _shown(value: object) -> str:
    shown = repr(value)
    return shown if len(shown) <= _MOST_SHOWN else f"{shown[:_MOST_SHOWN]}…"
