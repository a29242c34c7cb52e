"""Pools of connections in the libraries themselves: who gets one has been handed no work."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

import aio_pika.pool
import fakeredis
import pytest
import redis
import sqlalchemy
import sqlalchemy.ext.asyncio
from opentelemetry import baggage, context
from suite import outside

from otel_concurrency._items import known_queues


@asynccontextmanager
async def of_redis(_):
    """Give what uses a connection of a pool of redis', which is a `LifoQueue`."""
    pool = redis.BlockingConnectionPool(
        connection_class=fakeredis.FakeRedisConnection, server=fakeredis.FakeServer()
    )
    client = redis.Redis(connection_pool=pool)

    async def use():
        assert client.ping()

    yield use


@asynccontextmanager
async def of_sqlalchemy(directory):
    """Give what uses a connection of a pool of SQLAlchemy's, which is a queue of asyncio's."""
    engine = sqlalchemy.ext.asyncio.create_async_engine(
        f"sqlite+aiosqlite:///{directory}/database", poolclass=sqlalchemy.AsyncAdaptedQueuePool
    )

    async def use():
        async with engine.connect() as connection:
            assert (await connection.execute(sqlalchemy.text("select 1"))).scalar() == 1

    yield use
    await engine.dispose()


@asynccontextmanager
async def of_aio_pika(_):
    """Give what uses something of a pool of aio-pika's."""

    async def make():
        return object()

    pool = aio_pika.pool.Pool(make, max_size=1)

    async def use():
        async with pool.acquire() as connection:
            assert connection

    yield use


pools = pytest.mark.parametrize(
    "pool", [of_redis, of_sqlalchemy, of_aio_pika], ids=["redis", "SQLAlchemy", "aio-pika"]
)


def tenants(pool, tracer):
    """Return the baggage of those who use a pool outside of everything, after a request each."""

    async def main():
        async with pool as use:

            async def request():
                context.attach(baggage.set_baggage("tenant", "acme"))
                with tracer.start_as_current_span("request"):
                    await use()

            async def other():
                await use()
                return baggage.get_baggage("tenant")

            flows = [request, other, request, other]
            return [await asyncio.create_task(flow()) for flow in flows][1::2]

    return outside(asyncio.run, main())


@pools
def test_who_gets_a_connection_stays_where_he_is(pool, instrument, tracer, tmp_path):
    """A use outside of everything is nobody's, whoever has used the connection before."""
    instrument()
    assert tenants(pool(tmp_path), tracer) == [None, None]


@pools
def test_it_is_so_without_the_table_of_pools(pool, instrument, tracer, tmp_path, monkeypatch):
    """One that it does not name is found out by the connections that come back.

    aio-pika asks how many there are before it makes one, and nothing else: the first is handed on.
    """
    instrument()
    monkeypatch.setattr(known_queues, "_ALL", known_queues.PLUMBING)
    first = "acme" if pool is of_aio_pika else None
    assert tenants(pool(tmp_path), tracer) == [first, None]
