"""MCP: a session that is opened in one request and used in others, over each transport.

It needs no adapter. MCP 2 sends the context with each message. What MCP 1 hands on goes through
streams of anyio, which carry; over HTTP the context comes with the headers of the instrumentors.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import importlib
import sys
from importlib.metadata import version

import mcp
import mcp_server
import pytest
from mcp import ClientSession, StdioServerParameters, stdio_client, types
from mcp.client.streamable_http import streamable_http_client
from opentelemetry import baggage, context, propagate
from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware
from opentelemetry.sdk.trace import TracerProvider
from web import serving

SECOND = version("mcp") >= "2"


@contextlib.contextmanager
def request(tracer, tenant):
    """Be in a request with baggage; yield what a tool says of that."""
    token = context.attach(baggage.set_baggage("tenant", tenant))
    with tracer.start_as_current_span(tenant):
        yield mcp_server.here()
    context.detach(token)


async def sample(_context, _question):
    """Answer the question of a server, with the context that this is done in."""
    text = types.TextContent(type="text", text=mcp_server.here())
    return types.CreateMessageResult(role="assistant", content=text, model="none")


@contextlib.asynccontextmanager
async def in_memory(**options):
    """Connect to a server in this task group."""
    if SECOND:
        async with mcp.Client(mcp_server.made(), **options) as client:
            yield client
        return
    from mcp.shared.memory import create_connected_server_and_client_session

    server = mcp_server.made()._mcp_server
    async with create_connected_server_and_client_session(server, **options) as client:
        yield client


@contextlib.asynccontextmanager
async def over(streams, **options):
    """Connect to what ``streams`` lead to."""
    if SECOND:
        async with mcp.Client(streams, **options) as client:
            yield client
        return
    async with streams as (reading, writing, *_), ClientSession(reading, writing) as client:
        await client.initialize()
        yield client


@contextlib.asynccontextmanager
async def over_http(address, **options):
    """Connect over HTTP, with what the instrumentor of the client does."""

    async def inject(request):
        propagate.inject(request.headers)

    http = importlib.import_module("httpx2" if SECOND else "httpx")
    url = "http://{}:{}/mcp".format(*address)
    async with (
        http.AsyncClient(event_hooks={"request": [inject]}) as client,
        over(streamable_http_client(url, http_client=client), **options) as session,
    ):
        yield session


def over_stdio():
    """Connect to a process of its own."""
    server = StdioServerParameters(command=sys.executable, args=[mcp_server.__file__])
    return over(stdio_client(server))


async def use(connected, tracer, *tools):
    """Open a session in a request, use it in two others; return what differs from what it is."""
    wrong = []
    opener = contextlib.ExitStack()
    opener.enter_context(request(tracer, "opener"))
    async with connected() as client:
        opener.close()

        async def call(tenant):
            with request(tracer, tenant) as expected:

                async def progress(*_):
                    seen.append(("progress", mcp_server.here()))

                seen = []
                for tool in tools:
                    result = await client.call_tool(tool, {}, progress_callback=progress)
                    seen.append((tool, result.content[0].text))
                wrong.extend((tenant, *one, expected) for one in seen if one[1] != expected)
                assert len(seen) > len(tools)

        await call("acme")
        await asyncio.gather(call("acme"), call("umbrella"))
        await call("umbrella")
    return wrong


LEGACY = {"mode": "legacy"} if SECOND else {}
"""How MCP 2 is told to use the protocol in which a server can ask its client."""


def test_in_memory(instrumented, tracer):
    """Each call, in a task and in a thread, is in its request, and so is its progress."""
    assert asyncio.run(use(in_memory, tracer, "coroutine", "function")) == []


@pytest.mark.filterwarnings("ignore:The sampling capability is deprecated")
def test_a_server_asks_its_client(instrumented, tracer):
    """The answer is made in the request, too."""
    connect = functools.partial(in_memory, sampling_callback=sample, **LEGACY)
    assert asyncio.run(use(connect, tracer, "coroutine", "function", "asks")) == []


@pytest.mark.parametrize("options", [{}, LEGACY] if SECOND else [{}], ids=str)
def test_over_http(options, instrumented, tracer):
    """Where the HTTP server is instrumented, as the client is, the baggage crosses with it."""
    app = mcp_server.made().streamable_http_app()
    app = OpenTelemetryMiddleware(app, tracer_provider=TracerProvider())
    with serving(app) as address:
        connect = functools.partial(over_http, address, **options)
        assert asyncio.run(use(connect, tracer, "coroutine", "function")) == []


def test_over_stdio(instrumented, tracer):
    """MCP 2 itself sends the span, without the baggage; MCP 1 sends nothing.

    A callback for progress is in the context in which the session was opened.
    """
    wrong = asyncio.run(use(over_stdio, tracer, "coroutine", "function"))
    tools = [one for one in wrong if one[1] != "progress"]
    assert {seen.split()[1] for _, _, seen, _ in tools} == {"None"}
    other_traces = [one for one in tools if one[2].split()[0] != one[3].split()[0]]
    assert (other_traces == []) is SECOND
