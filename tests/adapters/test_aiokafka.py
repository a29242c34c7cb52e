"""aiokafka: a consumer, with the mock cluster of librdkafka as the broker."""

from __future__ import annotations

import contextlib

import aiokafka
from aiokafka.consumer.consumer import AIOKafkaConsumer
from record_suite import Records, broker
from suite import IN_BOTH_ORDERS, WAIT, check_undo, run_program

__all__ = ["broker"]


class TestGetOne(Records):
    @contextlib.asynccontextmanager
    async def consuming(self):
        consumer = AIOKafkaConsumer(bootstrap_servers=self.broker)
        await consumer.start()
        try:
            partition = aiokafka.TopicPartition(self.topic, 0)
            consumer.assign([partition])
            consumer.seek(partition, self.sent_before)

            async def many(number):
                (found,) = (await consumer.getmany(timeout_ms=WAIT * 1000)).values()
                assert len(found) == number

            yield self.one(consumer), many
        finally:
            await consumer.stop()

    def one(self, consumer):
        return consumer.getone


class TestIteration(TestGetOne):
    def one(self, consumer):
        return consumer.__anext__


PROGRAM = """
import asyncio
from types import SimpleNamespace
from opentelemetry import trace
from aiokafka.consumer.fetcher import Fetcher

async def next_record(self, partitions):
    parent = b"00-" + b"1" * 32 + b"-" + b"2" * 16 + b"-01"
    return SimpleNamespace(headers=(("traceparent", parent),))

Fetcher.next_record = next_record

async def main():
    consumer = AIOKafkaConsumer(bootstrap_servers="nowhere")
    consumer._coordinator = SimpleNamespace(check_errors=lambda: None)
    consumer._fetcher = Fetcher.__new__(Fetcher)
    consumer._closed = False
    await consumer.getone()
    print(f"{trace.get_current_span().get_span_context().span_id:x}")
    consumer._closed = True

asyncio.run(main())
"""


@IN_BOTH_ORDERS
def test_imported_before_or_after(first):
    """The order of imports does not matter."""
    program = first.format(module="aiokafka") + "from aiokafka import AIOKafkaConsumer\n" + PROGRAM
    assert run_program(program) == "2" * 16 + "\n"


def test_undo_is_exact():
    """Every attribute that was replaced is what it was, by identity."""
    check_undo(AIOKafkaConsumer)
