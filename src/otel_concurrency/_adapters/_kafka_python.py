"""kafka-python: a consumer that iterates adopts the context in the headers of each record.

It goes by QUEUE, as items do: until the consumer asks for the next record. What sends with headers
is OpenTelemetry's own instrumentor; its span of the receipt has ended when the consumer gets the
record. The records of ``poll`` come in batches, and are nobody's.
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
            handoff.report("get", error)
        return record

    return __next__


def _poll(original: Any) -> Any:
    @functools.wraps(original)
    def poll(self: Any, *args: Any, **kwargs: Any) -> Any:
        adoption.let_go()
        return original(self, *args, **kwargs)

    return poll


def _arrive(headers: Any, seam: Seam) -> None:
    """Have the consumer adopt the context that ``headers`` speak of. May raise."""
    texts = {key: value.decode("utf-8", "replace") for key, value in headers or () if value}
    # The record may be another service's: the configured propagators have the word.
    adoption.hand_over(seam, propagate.extract(texts, NO_CONTEXT))
