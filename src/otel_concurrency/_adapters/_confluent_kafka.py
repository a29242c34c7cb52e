"""confluent-kafka: records that a consumer gets, and delivery callbacks of a producer.

The setting QUEUE covers the records. A consumer that polls adopts the context in the headers of
each, until it polls again. Records that it gets before it starts a span are a batch, and so is what
``consume`` returns. FUTURES covers the callback of a ``produce()``, which runs in the context of
that call, whichever thread polls.

The library's own classes are C types that cannot be patched, so subclasses take their names.
"""

from __future__ import annotations

import functools
from types import ModuleType
from typing import Any

from otel_concurrency._core import handoff
from otel_concurrency._core.handoff import Call, Seam
from otel_concurrency._core.patching import Layer, Patch, StandIn
from otel_concurrency._items import adoption, records

TESTED = ("2.13.0", "2.16.1")


def _consumer_layers(confluent_kafka: ModuleType, seam: Seam) -> list[Patch]:
    deserializing = vars(confluent_kafka)["DeserializingConsumer"]
    return [
        Layer(confluent_kafka, "Consumer", lambda raw: _consumer_class(raw, seam)),
        Layer(deserializing, "poll", lambda raw: _poll(raw, seam)),
    ]


def _aio_layers(module: ModuleType, seam: Seam) -> list[Patch]:
    consumer = vars(module)["AIOConsumer"]  # it polls in a thread of a pool
    return [
        Layer(consumer, "poll", lambda raw: _poll_in_pool(raw, seam)),
        Layer(consumer, "consume", lambda raw: _consume_in_pool(raw, seam)),
    ]


def _producer_layers(confluent_kafka: ModuleType, seam: Seam) -> list[Patch]:
    serializing = vars(confluent_kafka)["SerializingProducer"]
    return [
        Layer(confluent_kafka, "Producer", lambda raw: _producer_class(raw, seam)),
        Layer(serializing, "produce", lambda raw: _produce(raw, seam)),
    ]


MODULES = {
    "queue": {
        "confluent_kafka": _consumer_layers,
        "confluent_kafka.aio._AIOConsumer": _aio_layers,
    },
    "futures": {"confluent_kafka": _producer_layers},
}


def _consumer_class(plain: Any, seam: Seam) -> Any:
    class Consumer(plain, metaclass=StandIn):  # type: ignore[misc]  # a base known at run time
        stands_in_for = plain
        __module__ = plain.__module__
        poll = _poll(plain.poll, seam)
        consume = _consume(plain.consume, seam)

    return Consumer


def _producer_class(plain: Any, seam: Seam) -> Any:
    class Producer(plain, metaclass=StandIn):  # type: ignore[misc]  # a base known at run time
        stands_in_for = plain
        __module__ = plain.__module__
        produce = _produce(plain.produce, seam)

    return Producer


def _poll(original: Any, seam: Seam) -> Any:
    @functools.wraps(original)
    def poll(self: Any, *args: Any, **kwargs: Any) -> Any:
        aside = adoption.set_aside()  # callbacks that it calls are not part of the last record
        record = original(self, *args, **kwargs)
        _is_polled(record, aside, seam)
        return record

    return poll


def _poll_in_pool(original: Any, seam: Seam) -> Any:
    @functools.wraps(original)
    async def poll(self: Any, *args: Any, **kwargs: Any) -> Any:
        aside = adoption.set_aside()
        record = await original(self, *args, **kwargs)
        _is_polled(record, aside, seam)
        return record

    return poll


def _is_polled(record: Any, aside: Any, seam: Seam) -> None:
    try:
        if seam.active and (record is None or record.error() is None):
            adoption.take_up(aside)
            if record is None:
                adoption.found_none()
            else:
                records.arrive(record.headers(), seam)
    except Exception as error:
        adoption.cannot_tell(error)


def _consume(original: Any, seam: Seam) -> Any:
    @functools.wraps(original)
    def consume(self: Any, *args: Any, **kwargs: Any) -> Any:
        adoption.let_go()
        found = original(self, *args, **kwargs)
        _are_consumed(found, seam)
        return found

    return consume


def _consume_in_pool(original: Any, seam: Seam) -> Any:
    @functools.wraps(original)
    async def consume(self: Any, *args: Any, **kwargs: Any) -> Any:
        adoption.let_go()
        found = await original(self, *args, **kwargs)
        _are_consumed(found, seam)
        return found

    return consume


def _are_consumed(found: Any, seam: Seam) -> None:
    try:
        if found and seam.active:
            headers = [one.headers() for one in found if one.error() is None]
            records.arrive_together(headers, seam)
    except Exception as error:
        handoff.report_fault("get", error)


def _produce(original: Any, seam: Seam) -> Any:
    @functools.wraps(original)
    def produce(self: Any, *args: Any, **kwargs: Any) -> Any:
        given = [*map(functools.partial(handoff.bind, seam), args)]
        named = {name: handoff.bind(seam, value) for name, value in kwargs.items()}
        try:
            return original(self, *given, **named)
        except BaseException:
            for one in (*given, *named.values()):
                if isinstance(one, Call):
                    one.release()
            raise

    return produce
