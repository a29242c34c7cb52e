"""Clients that keep their connections in a queue: whoever gets a connection is handed no work.

No table names these libraries. Where a server is needed, a small one answers, or what the library
lets its user pass (a transport, a way to connect) stands in for the connection. The job for
adapters has all of the libraries; elsewhere, a test of one that is not installed is skipped.
"""

from __future__ import annotations

import asyncio
import socket
from contextlib import asynccontextmanager
from types import SimpleNamespace

import pytest
from opentelemetry import baggage, context
from suite import outside


@asynccontextmanager
async def of_aiomcache(_):
    """Give a use of a memcached client."""

    async def answer(reader, writer):
        while await reader.readline():
            writer.write(b"VERSION 1\r\n")
        writer.close()

    aiomcache = pytest.importorskip("aiomcache")
    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    client = aiomcache.Client(*server.sockets[0].getsockname(), pool_size=1)

    async def use():
        assert await client.version() == b"1"

    yield use
    await client.close()
    server.close()


@asynccontextmanager
async def of_aiosqlitepool(_):
    """Give a use of a pool of one connection, for which a second user has to wait."""
    aiosqlite, aiosqlitepool = map(pytest.importorskip, ("aiosqlite", "aiosqlitepool"))
    pool = aiosqlitepool.SQLiteConnectionPool(lambda: aiosqlite.connect(":memory:"), pool_size=1)

    async def use():
        async with pool.connection() as connection:
            await connection.execute("select 1")
            await asyncio.sleep(0.01)

    yield use
    await pool.close()


@asynccontextmanager
async def of_gel(_):
    """Give a use of a client for threads, whose connection speaks to no server."""
    client = _client_of_gel("blocking_client", "Client", "BlockingIOConnection")

    async def use():
        client.execute("select 1")

    yield use
    client.terminate()


@asynccontextmanager
async def of_gel_for_asyncio(_):
    """Give a use of a client for asyncio, whose connection speaks to no server."""
    client = _client_of_gel("asyncio_client", "AsyncIOClient", "AsyncIOConnection")

    async def use():
        await client.execute("select 1")

    yield use
    client.terminate()


def _client_of_gel(module, client, connection):
    module = pytest.importorskip(f"gel.{module}")

    class Connection(getattr(module, connection)):
        async def connect(self, **_):
            pass

        async def _execute(self, _):
            pass

        connected_addr = is_closed = terminate = lambda self: None

    return getattr(module, client)(
        connection_class=Connection,
        dsn="gel://127.0.0.1",
        tls_security="insecure",
        max_concurrency=1,
    )


@asynccontextmanager
async def of_gremlinpython(_):
    """Give a use of a client whose transport and protocol answer at once."""

    class Transport:
        def connect(self, *_):
            pass

        read = close = lambda self: None

    class Protocol:
        connection_made = write = lambda self, *_: None

        def data_received(self, _, results):
            results.clear()
            return 200

    driver = pytest.importorskip("gremlin_python.driver.client")
    client = driver.Client("ws://127.0.0.1", "g", Protocol, Transport, pool_size=1)

    async def use():
        await asyncio.wrap_future(client.submit("1").done)

    yield use
    client.close()


@asynccontextmanager
async def of_iotdb(monkeypatch):
    """Give a use of a session that is open."""

    class Session:
        def __init__(self, *_, **__):
            pass

        open = close = lambda self, *_: None

        def is_open(self):
            return True

    module = pytest.importorskip("iotdb.SessionPool")
    monkeypatch.setattr(module, "Session", Session)
    configuration = module.PoolConfig("127.0.0.1", "6667", "root", "root")
    pool = module.SessionPool(configuration, 1, 1000)

    async def use():
        pool.put_back(pool.get_session())

    yield use


@asynccontextmanager
async def of_exchangelib(_):
    """Give a use of a session that is not connected."""
    module = pytest.importorskip("exchangelib.protocol")

    class Protocol(module.BaseProtocol):
        get_auth_type = None

        def create_session(self):
            return SimpleNamespace(session_id=1, usage_count=0, close=lambda: None)

    endpoint = SimpleNamespace(
        max_connections=1, service_endpoint="https://127.0.0.1/", credentials=None, server="none"
    )
    protocol = Protocol(endpoint)

    async def use():
        protocol.release_session(protocol.get_session())

    yield use


@asynccontextmanager
async def of_geventhttpclient(_):
    """Give a use of a socket that is connected."""
    module = pytest.importorskip("geventhttpclient.connectionpool")
    ends = socket.socketpair()

    class Pool(module.ConnectionPool):
        def _create_socket(self):
            return ends[0]

    pool = Pool("127.0.0.1", 80, "127.0.0.1", 80, size=1)

    async def use():
        pool.return_socket(pool.get_socket())

    yield use
    for end in ends:
        end.close()


POOLS = [
    of_aiomcache,
    of_aiosqlitepool,
    of_exchangelib,
    of_gel,
    of_gel_for_asyncio,
    of_geventhttpclient,
    of_gremlinpython,
    of_iotdb,
]


@pytest.mark.parametrize("pool", POOLS, ids=[pool.__name__[3:] for pool in POOLS])
def test_a_health_check_after_a_request_starts_a_root_span(pool, instrument, tracer, monkeypatch):
    """It has no baggage of the request either: the first time, later, and with others waiting."""
    instrument()

    async def main():
        async with pool(monkeypatch) as use:

            async def request():
                context.attach(baggage.set_baggage("tenant", "acme"))
                with tracer.start_as_current_span("request"):
                    await use()

            async def check():
                await use()
                with tracer.start_as_current_span("check") as span:
                    return span.parent, span.links, dict(baggage.get_all())

            found = []
            for _ in range(3):
                await asyncio.create_task(request())
                found.append(await asyncio.create_task(check()))
            flows = [request, check, request, check]
            found += (await asyncio.gather(*(asyncio.create_task(flow()) for flow in flows)))[1::2]
            return found

    assert outside(asyncio.run, main()) == [(None, (), {})] * 5
