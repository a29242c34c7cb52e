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

from otel_concurrency._core.callers import caller
from otel_concurrency._core.handoff import Seam
from otel_concurrency._core.patching import Layer, Patch
from otel_concurrency._items import adoption, records

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
                records.arrive(record.headers, seam)
        except Exception as error:
            adoption.cannot_tell(error)
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
                headers = [one.headers for some in polled.values() for one in some]
                records.arrive_together(headers, seam)
        except Exception as error:
            adoption.cannot_tell(error)
        return polled

    return poll
