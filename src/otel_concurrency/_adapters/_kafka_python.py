"""kafka-python: a consumer that iterates adopts the context in the headers of each record.

The setting QUEUE covers it, and a record is treated as an item: its context stays attached until
the consumer asks for the next record. OpenTelemetry's own instrumentor sends the headers; its
receive span has ended when the consumer gets the record. ``poll`` returns records in batches, and
the context of none of them is adopted.
"""

from __future__ import annotations

import functools
from types import ModuleType
from typing import Any

from opentelemetry import propagate

from otel_concurrency._core import handoff
from otel_concurrency._core.handoff import NO_CONTEXT, Seam
from otel_concurrency._core.patching import Layer, Patch
from otel_concurrency._items import adoption

TESTED = ("2.1.5", "3.0.12")


def _layers(group: ModuleType, seam: Seam) -> list[Patch]:
    consumer = vars(group)["KafkaConsumer"]
    return [
        Layer(consumer, "__next__", lambda raw: _next(raw, seam)),
        Layer(consumer, "poll", _poll),
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


def _poll(original: Any) -> Any:
    @functools.wraps(original)
    def poll(self: Any, *args: Any, **kwargs: Any) -> Any:
        adoption.let_go()
        return original(self, *args, **kwargs)

    return poll


def _arrive(headers: Any, seam: Seam) -> None:
    """Make the consumer adopt the context in ``headers``. May raise."""
    texts = {key: value.decode("utf-8", "replace") for key, value in headers or () if value}
    # The record may come from another service, so the configured propagators read it.
    adoption.hand_over(seam, propagate.extract(texts, NO_CONTEXT))
