"""What brokers' clients have received, and keep in queues: whose it is, its headers say.

The reader of a connection was started in a request, before the library was switched on, and lives
on in that; who subscribes is in no context.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars

import aio_pika
import nats
import pytest
from opentelemetry import baggage, context
from servers import INSTALLED
from suite import WAIT

from otel_concurrency import ConcurrencyInstrumentor


class Nats:
    """A subject whose messages are iterated over."""

    server = "nats"

    async def connect(self, port):
        self._client = await nats.connect(
            f"nats://127.0.0.1:{port}", max_reconnect_attempts=100, reconnect_time_wait=0.1
        )

    async def consume(self, ready, handle):
        """Call ``handle`` with each message."""
        subscription = await self._subscribe(ready)
        async for _ in subscription.messages:
            handle()

    async def _subscribe(self, ready, **options):
        subscription = await self._client.subscribe("news", **options)
        await self._client.flush()
        ready.set()
        return subscription

    async def publish(self):
        await self._client.publish("news", b"message")

    async def close(self):
        await self._client.close()


class NatsNext(Nats):
    """A subject of which messages are asked for one by one."""

    async def consume(self, ready, handle):
        subscription = await self._subscribe(ready)
        while await subscription.next_msg(WAIT):
            handle()


class NatsCallback(Nats):
    """A subject with a callback."""

    async def consume(self, ready, handle):
        async def called(_):
            handle()

        await self._subscribe(ready, cb=called)


class AioPika:
    """A queue that is iterated over."""

    server = "rabbitmq"

    async def connect(self, port):
        self._connection = await aio_pika.connect(f"amqp://guest:guest@127.0.0.1:{port}/")
        self._channel = await self._connection.channel()

    async def consume(self, ready, handle):
        queue = await self._channel.declare_queue("news", auto_delete=True)
        ready.set()
        async with queue.iterator(no_ack=True) as messages:
            async for _ in messages:
                handle()

    async def publish(self):
        message = aio_pika.Message(b"message")
        await self._channel.default_exchange.publish(message, routing_key="news")

    async def close(self):
        await self._connection.close()


BROKERS = [
    pytest.param(
        broker,
        id=broker.__name__,
        marks=pytest.mark.skipif(
            not INSTALLED[broker.server], reason="its server is not installed"
        ),
    )
    for broker in (Nats, NatsNext, NatsCallback, AioPika)
]


@pytest.mark.parametrize("broker", BROKERS)
def test_a_message_is_in_no_context(broker, ports, instrument, tracer):
    """Not in that of the request that happened to connect, nor has it that one's baggage."""
    port = ports(broker.server)
    instrumentor, client, seen = ConcurrencyInstrumentor(), broker(), []
    ready, three = asyncio.Event(), asyncio.Event()

    async def connect():
        token = context.attach(baggage.set_baggage("tenant", "acme"))
        with tracer.start_as_current_span("request"):
            await client.connect(port)
        context.detach(token)

    def handle():
        with tracer.start_as_current_span("message") as span:
            seen.append((span.parent, baggage.get_baggage("tenant")))
        if len(seen) == 3:
            three.set()

    async def main():
        await asyncio.wait_for(connect(), WAIT)
        instrumentor.instrument()
        loop = asyncio.get_running_loop()
        consumer = contextvars.Context().run(loop.create_task, client.consume(ready, handle))
        await asyncio.wait_for(ready.wait(), WAIT)
        for _ in range(3):
            await client.publish()
        await asyncio.wait_for(three.wait(), WAIT)
        instrumentor.uninstrument()
        consumer.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await consumer
        await client.close()

    contextvars.Context().run(asyncio.run, main())
    assert seen == [(None, None)] * 3
