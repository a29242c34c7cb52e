"""aiokafka: a consumer adopts the context in the headers of each record that it gets.

The setting QUEUE covers it, and a record is treated as an item: its context stays attached until
the consumer asks for the next record. Records that it gets before it starts a span are a batch, and
so is what ``getmany`` returns.
"""

from __future__ import annotations

import functools
from types import ModuleType
from typing import Any

from otel_concurrency._core.handoff import Seam
from otel_concurrency._core.patching import Layer, Patch
from otel_concurrency._items import adoption, records

TESTED = ("0.11.0", "0.14.0")


def _layers(consumer: ModuleType, seam: Seam) -> list[Patch]:
    owner = vars(consumer)["AIOKafkaConsumer"]
    return [
        Layer(owner, "getone", lambda raw: _getone(raw, seam)),
        Layer(owner, "getmany", lambda raw: _getmany(raw, seam)),
    ]


MODULES = {"queue": {"aiokafka.consumer.consumer": _layers}}


def _getone(original: Any, seam: Seam) -> Any:
    @functools.wraps(original)
    async def getone(self: Any, *partitions: Any) -> Any:
        aside = adoption.set_aside()
        record = await original(self, *partitions)
        try:
            if seam.active:
                adoption.take_up(aside)
                aside = None
                records.arrive(record.headers, seam)
        except Exception as error:
            adoption.cannot_tell(error)
        return record

    return getone


def _getmany(original: Any, seam: Seam) -> Any:
    @functools.wraps(original)
    async def getmany(self: Any, *partitions: Any, **kwargs: Any) -> Any:
        adoption.let_go()
        found = await original(self, *partitions, **kwargs)
        try:
            if found and seam.active:
                headers = [one.headers for some in found.values() for one in some]
                records.arrive_together(headers, seam)
        except Exception as error:
            adoption.cannot_tell(error)
        return found

    return getmany
