"""Pools of connections: who gets one from a queue has been handed no work."""

from __future__ import annotations

import asyncio
import http.server
import queue
import threading

import pytest
import urllib3
from forms import WAIT, without_context
from opentelemetry import baggage
from opentelemetry.context import attach, get_current

from otel_concurrency import ConcurrencyInstrumentor
from otel_concurrency._items import known_queues


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # connections are kept

    def do_GET(self):
        self.send_response(204)
        self.end_headers()

    def log_message(self, *arguments):
        pass


@pytest.fixture
def url():
    """Return where a server answers."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join(WAIT)


@pytest.fixture
def client():
    """Return urllib3's client; its pool of connections is a `LifoQueue`."""
    with urllib3.PoolManager() as client:
        yield client


def with_baggage(function, *args):
    """Call a function with baggage that says so."""

    def call():
        attach(baggage.set_baggage("tenant", "acme"))
        return function(*args)

    return without_context(call)


def tenant_after(function, *args):
    """Return the tenant that is current after a call in none."""

    def call():
        function(*args)
        return baggage.get_baggage("tenant")

    return without_context(call)


@pytest.mark.parametrize("first", ["inside", "outside"])
def test_who_gets_a_connection_stays_where_he_is(first, url, client, instrumented):
    """A request outside of everything is nobody's, whoever has used the connection before."""
    if first == "inside":
        with_baggage(client.request, "GET", url)
    assert tenant_after(client.request, "GET", url) is None
    with_baggage(client.request, "GET", url)
    assert tenant_after(client.request, "GET", url) is None


@pytest.mark.parametrize("before", ["nothing", "a request", "a request, and the library off"])
def test_a_consumer_keeps_its_item_while_it_uses_a_connection(before, url, client, instrument):
    """Waiting for a connection is part of the work on the item."""
    if before != "a request":
        instrument()
    if before != "nothing":
        with_baggage(client.request, "GET", url)
    if before == "a request, and the library off":
        ConcurrencyInstrumentor().uninstrument()
    if before != "nothing":
        instrument()
    items = queue.Queue()
    with_baggage(items.put, 1)
    with_baggage(items.put, 2)
    seen = []

    def consume():
        for _ in range(2):
            items.get()
            client.request("GET", url)
            seen.append(baggage.get_baggage("tenant"))
            client.request("GET", url)
            seen.append(baggage.get_baggage("tenant"))

    thread = threading.Thread(target=consume)
    thread.start()
    thread.join(WAIT)
    assert seen == ["acme"] * 4


POOL = """
async def use(connections):
    connection = await connections.get()
    connections.put_nowait(connection)

def fill(connections):
    connections.put_nowait(object())
"""


@pytest.mark.parametrize("kind", ["Queue", "LifoQueue"])
@pytest.mark.parametrize("made", ["before", "after"])
def test_a_pool_of_asyncios(kind, made, instrument):
    """As of threads'; the code of the pool is known by its module, wherever the queue was made."""
    library = {"__name__": "asyncpg.pool"}
    exec(POOL, library)
    connections = getattr(asyncio, kind)() if made == "before" else None
    instrument()
    connections = connections or getattr(asyncio, kind)()
    with_baggage(library["fill"], connections)

    async def main():
        items = asyncio.Queue()
        with_baggage(items.put_nowait, 1)
        await library["use"](connections)
        seen = [baggage.get_baggage("tenant")]
        await items.get()
        await library["use"](connections)
        seen.append(baggage.get_baggage("tenant"))
        with_baggage(connections.put_nowait, connections.get_nowait())
        await library["use"](connections)
        return [*seen, baggage.get_baggage("tenant")]

    assert without_context(asyncio.run, main()) == [None, "acme", "acme"]
    assert not get_current()


def test_only_what_is_named_is_a_pool(instrumented):
    """The same code in another module hands items on."""
    library = {"__name__": "program.pool"}
    exec(POOL, library)
    assert "program.pool" not in known_queues.POOLS
    items = asyncio.Queue()
    with_baggage(library["fill"], items)

    async def main():
        await library["use"](items)
        return baggage.get_baggage("tenant")

    assert without_context(asyncio.run, main()) == "acme"
