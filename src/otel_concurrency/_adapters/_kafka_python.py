"""kafka-python: a consumer that iterates adopts the context in the headers of each record.

The setting QUEUE covers it, and a record is treated as an item: its context stays attached until
the consumer asks for the next record. OpenTelemetry's own instrumentor sends the headers; its
receive span has ended when the consumer gets the record. What ``poll`` returns is a batch: it is
handled in the context that its records have in common.
"""

from __future__ import annotations

import functools
from types import ModuleType
from typing import Any

from opentelemetry import propagate
from opentelemetry.context import Context

from otel_concurrency._core import handoff
from otel_concurrency._core.callers import caller
from otel_concurrency._core.handoff import NO_CONTEXT, Seam
from otel_concurrency._core.patching import Layer, Patch
from otel_concurrency._items import adoption
from otel_concurrency._linking import batches

TESTED = ("2.1.5", "3.0.12")


def _layers(group: ModuleType, seam: Seam) -> list[Patch]:
    consumer = vars(group)["KafkaConsumer"]
    return [
        Layer(consumer, "__next__", lambda raw: _next(raw, seam)),
        Layer(consumer, "poll", lambda raw: _poll(raw, vars(group), seam)),
    ]


MODULES = {"queue": {"kafka.consumer.group": _layers}}


def _next(original: Any, seam: Seam) -> Any:
    @functools.wraps(original)
    def __next__(self: Any) -> Any:  # noqa: N807
        adoption.let_go()
        record = original(self)
        try:
            if seam.active:
                _arrive(record.headers, seam)
        except Exception as error:
            handoff.report_fault("get", error)
        return record

    return __next__


def _poll(original: Any, library: dict[str, Any], seam: Seam) -> Any:
    @functools.wraps(original)
    def poll(self: Any, *args: Any, **kwargs: Any) -> Any:
        frame = caller()
        if frame is not None and frame.f_globals is library:  # `__next__`, which polls itself
            return original(self, *args, **kwargs)
        adoption.let_go()
        polled = original(self, *args, **kwargs)
        try:
            if polled and seam.active:
                _arrive_together([one.headers for some in polled.values() for one in some], seam)
        except Exception as error:
            handoff.report_fault("get", error)
        return polled

    return poll


def _arrive(headers: Any, seam: Seam) -> None:
    """Make the consumer adopt the context in ``headers``. May raise."""
    adoption.hand_over(seam, _context_in(headers))


def _arrive_together(all_headers: list[Any], seam: Seam) -> None:
    """Make the consumer adopt what the contexts in the headers have in common. May raise."""
    known: dict[Any, Context] = {}  # records of one request mostly have the same headers
    contexts: list[Context] = []
    for headers in all_headers:
        pairs: list[Any] = headers or []
        key = tuple(tuple(pair) for pair in pairs)
        if key not in known:
            known[key] = _context_in(headers)
        contexts.append(known[key])
    if any(contexts):
        adoption.hand_over(seam, batches.merged(contexts))
        adoption.found_none()  # the batch is complete: its span is the only one


def _context_in(headers: Any) -> Context:
    """Return the context in the headers of a record. May raise.

    The record may come from another service, so the configured propagators read it.
    """
    texts = {key: value.decode("utf-8", "replace") for key, value in headers or () if value}
    return propagate.extract(texts, NO_CONTEXT) if texts else NO_CONTEXT
