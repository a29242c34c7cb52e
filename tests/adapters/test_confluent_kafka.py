"""confluent-kafka: consumers and producers, with the mock cluster of librdkafka as the broker."""

from __future__ import annotations

import contextlib
from concurrent.futures import Future

import confluent_kafka
import pytest
from confluent_kafka import TopicPartition, aio
from opentelemetry import context, trace
from record_suite import Records, broker
from suite import IN_BOTH_ORDERS, WAIT, Calls, check_undo, outside, run_program

__all__ = ["broker"]

PLAIN = confluent_kafka.Consumer, confluent_kafka.Producer


class TestPoll(Records):
    kind = "Consumer"

    @contextlib.asynccontextmanager
    async def consuming(self):
        settings = {"bootstrap.servers": self.broker, "group.id": "tests", "log_level": 0}
        consumer = getattr(confluent_kafka, self.kind)(settings)
        consumer.assign([TopicPartition(self.topic, 0, self.sent_before)])

        async def one():
            return consumer.poll(WAIT)

        async def many(number):
            found = consumer.consume(number, WAIT)
            assert len(found) == number

        yield one, many
        consumer.close()

    def test_being_told_once_that_there_is_none_does_not_end_a_batch(self, instrument):
        """The second time does."""
        instrument()
        sent = self.send("acme", "umbrella")

        async def use(one, _):
            await one()
            await one()
            self.poll(0)
            return self.span()

        async def twice(one, _):
            await one()
            await one()
            self.poll(0)
            self.poll(0)
            return dict(context.get_current())

        @contextlib.asynccontextmanager
        async def consuming():
            async with type(self).consuming(self) as (one, many):
                self.poll = one.__closure__[0].cell_contents.poll
                yield one, many

        self.consuming = consuming
        assert self.consume(use) == (None, sent, None)
        assert self.consume(twice) == {}


class TestDeserializing(TestPoll):
    kind = "DeserializingConsumer"

    test_records_that_are_got_together_are_a_batch = None  # it has no `consume`


class TestPollInPool(Records):
    @contextlib.asynccontextmanager
    async def consuming(self):
        settings = {"bootstrap.servers": self.broker, "group.id": "tests", "log_level": 0}
        consumer = aio.AIOConsumer(settings)
        await consumer.assign([TopicPartition(self.topic, 0, self.sent_before)])

        async def one():
            return await consumer.poll(WAIT)

        async def many(number):
            found = await consumer.consume(number, WAIT)
            assert len(found) == number

        yield one, many
        await consumer.close()


class TestDelivery(Calls):
    setting = "futures"
    kind = "Producer"

    @pytest.fixture(autouse=True)
    def log(self, broker):
        self.settings = {"bootstrap.servers": broker, "log_level": 0}

    def hand_off(self, work):
        done = Future()

        def delivered(error, message):
            assert error is None
            try:
                done.set_result(work())
            except Exception as raised:
                done.set_exception(raised)

        producer = getattr(confluent_kafka, self.kind)(self.settings)
        producer.produce("deliveries", b"", on_delivery=delivered)
        assert not outside(producer.flush, WAIT)
        return done.result(0)


class TestSerializingDelivery(TestDelivery):
    kind = "SerializingProducer"

    def hand_off(self, work):
        self.settings = {**self.settings, "value.serializer": lambda value, _: value}
        return super().hand_off(work)


def test_a_callback_is_taken_by_every_name_and_by_its_place(instrument, tracer, broker):
    """Each is called in the context of its own `produce()`."""
    instrument()
    producer = confluent_kafka.Producer({"bootstrap.servers": broker, "log_level": 0})
    seen, spans = [], []

    def delivered(error, message):
        seen.append((message.value(), trace.get_current_span()))

    for value, produce in {
        b"1": lambda: producer.produce("places", b"1", b"", 0, delivered),
        b"2": lambda: producer.produce("places", b"2", b"", 0, callback=delivered),
        b"3": lambda: producer.produce("places", b"3", b"", 0, on_delivery=delivered),
    }.items():
        with tracer.start_as_current_span("origin") as span:
            produce()
        spans.append((value, span))
    with tracer.start_as_current_span("flush"):
        assert not producer.flush(WAIT)
    assert sorted(seen, key=lambda one: one[0]) == spans


def test_what_is_refused_raises_what_it_raises(instrument, tracer):
    """Wrong arguments, with a callback or without."""
    instrument()
    producer = confluent_kafka.Producer({"log_level": 0})
    with tracer.start_as_current_span("origin"):
        for arguments in ({}, {"topic": "t", "nothing": 1}):
            with pytest.raises(TypeError) as raised:
                producer.produce(on_delivery=print, **arguments)
            with pytest.raises(TypeError) as expected:
                PLAIN[1]({"log_level": 0}).produce(on_delivery=print, **arguments)
            assert str(raised.value) == str(expected.value)


def test_the_classes_stand_for_those_of_before(instrument):
    """Objects that were made before count as theirs, and so do the library's subclasses."""
    made = [plain({"group.id": "tests", "log_level": 0}) for plain in PLAIN]
    instrument()
    kinds = confluent_kafka.Consumer, confluent_kafka.Producer
    assert not set(kinds) & set(PLAIN)
    for one, kind, plain in zip(made, kinds, PLAIN, strict=True):
        assert isinstance(one, kind)
        assert isinstance(kind({"group.id": "tests", "log_level": 0}), plain)
        assert (kind.__name__, kind.__module__) == (plain.__name__, plain.__module__)
    assert issubclass(confluent_kafka.SerializingProducer, confluent_kafka.Producer)


@IN_BOTH_ORDERS
def test_imported_before_or_after(first):
    """The order of imports does not matter."""
    program = """
from opentelemetry import context
context.attach(context.set_value("key", "value"))
producer = confluent_kafka.Producer({"test.mock.num.brokers": 1, "log_level": 0})
producer.produce("topic", b"", on_delivery=lambda *_: print(context.get_value("key")))
context.attach({})
producer.flush(20)
"""
    assert run_program(first.format(module="confluent_kafka") + program) == "value\n"


def test_undo_is_exact():
    """Every attribute that was replaced is what it was, by identity."""
    check_undo(
        confluent_kafka,
        confluent_kafka.DeserializingConsumer,
        confluent_kafka.SerializingProducer,
        aio.AIOConsumer,
    )
