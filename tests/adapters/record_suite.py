"""What holds for consumers of records, with the mock cluster of librdkafka as the broker."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import confluent_kafka.cimpl
import pytest
from opentelemetry import baggage, context, propagate, trace
from suite import WAIT, outside

numbers = itertools.count()


@contextlib.contextmanager
def cluster() -> Iterator[str]:
    """Run a broker; yield its address."""
    settings = {"test.mock.num.brokers": 1, "log_level": 0, "log.connection.close": False}
    owner = confluent_kafka.cimpl.Producer(settings)
    (broker,) = owner.list_topics(timeout=WAIT).brokers.values()
    yield f"{broker.host}:{broker.port}"


@pytest.fixture(scope="session")
def broker() -> Iterator[str]:
    """Give the address of a broker."""
    with cluster() as address:
        yield address


class Records:
    """A way to consume records, one by one and several at once."""

    def consuming(self) -> Any:
        """Return an asynchronous context manager: coroutine functions to get one, and so many."""
        raise NotImplementedError

    @pytest.fixture(autouse=True)
    def log(self, broker: str, tracer: Any) -> Iterator[None]:
        """Prepare to send to a topic of the test's own."""
        self.broker, self.tracer, self.topic = broker, tracer, f"orders-{next(numbers)}"
        settings = {"bootstrap.servers": broker, "log_level": 0, "linger.ms": 100}
        self.producer = confluent_kafka.cimpl.Producer(settings)
        self.send(None)  # a topic that is not known yet is sent to one by one
        self.sent_before = 1
        yield
        del self.producer  # pytest keeps this object up to its end, and the client has threads

    def send(self, *tenants: str | None) -> list[int | None]:
        """Send a record in a span for each tenant, or in none; return the ids of the spans."""
        sent: list[int | None] = []
        for tenant in tenants:
            headers: dict[str, str] = {}
            if tenant is not None:
                token = context.attach(baggage.set_baggage("tenant", tenant))
                with self.tracer.start_as_current_span("origin") as span:
                    propagate.inject(headers)
                context.detach(token)
            sent.append(None if tenant is None else span.get_span_context().span_id)
            given = [(name, value.encode()) for name, value in headers.items()]
            self.producer.produce(self.topic, b"", partition=0, headers=given or None)
        assert not self.producer.flush(WAIT)
        return sent

    def span(self) -> tuple[Any, list[int], Any]:
        """Return the parent and the links of a span that is started now, and the baggage."""
        with self.tracer.start_as_current_span("work") as span:
            links = [link.context.span_id for link in span.links]
            return span.parent and span.parent.span_id, links, baggage.get_baggage("tenant")

    def consume(self, use: Callable[[Any, Any], Any]) -> Any:
        """Return what the coroutine function ``use(one, many)`` returns, in no context."""

        async def main() -> Any:
            async with self.consuming() as (one, many):
                return await use(one, many)

        return outside(asyncio.run, main())

    @pytest.mark.decisive
    def test_a_record_is_handled_in_its_own_context(self, instrument):
        """Each of them, and one that has none in no context."""
        instrument()
        first, second, _ = self.send("acme", "umbrella", None)

        async def use(one, _):
            found = []
            for _ in range(3):
                await one()
                found.append(self.span())
            return found

        expected = [(first, [], "acme"), (second, [], "umbrella"), (None, [], None)]
        assert self.consume(use) == expected

    def test_records_that_are_got_before_a_span_are_a_batch(self, instrument):
        """The span has a link to each, and the next one is a root."""
        instrument()
        sent = self.send("acme", "umbrella")

        async def use(one, _):
            await one()
            await one()
            return [self.span(), self.span()]

        assert self.consume(use) == [(None, sent, None), (None, [], None)]

    def test_records_that_are_got_together_are_a_batch(self, instrument):
        """The span has a link to each, and the baggage that they agree on."""
        instrument()
        sent = self.send("acme", "acme")

        async def use(_, many):
            await many(2)
            return self.span()

        assert self.consume(use) == (None, sent, "acme")

    def test_who_has_a_span_keeps_it(self, instrument):
        """A request that collects records stays in its own span."""
        instrument()
        self.send("acme")

        async def use(one, _):
            with self.tracer.start_as_current_span("own") as own:
                await one()
                return trace.get_current_span() is own

        assert self.consume(use)

    def test_under_link_a_record_starts_a_trace(self, instrument):
        """It has a link to its sender, and the baggage."""
        instrument(queue="link")
        sent = self.send("acme")
        assert self.consume(self.first) == (None, sent, "acme")

    async def first(self, one, _):
        await one()
        return self.span()

    @pytest.mark.parametrize("how", ["policy", "adapter", "after uninstrument()"])
    def test_switched_off_it_carries_nothing(self, how, instrument):
        """By the policy, by the adapter's name, and with all of the library."""
        if how == "after uninstrument()":
            instrument()
            instrument.__self__.uninstrument()
        else:
            instrument(**({"queue": "off"} if how == "policy" else {"adapters": "-*"}))
        self.send("acme")
        assert self.consume(self.first) == (None, [], None)

    def test_nothing_is_left_when_the_consumer_asks_again(self, instrument):
        """It is back in the context that it was in before."""
        instrument()
        self.send("acme", None)

        async def use(one, _):
            await one()
            self.span()
            await one()
            return dict(context.get_current())

        assert self.consume(use) == {}
