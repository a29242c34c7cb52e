"""Generators that stream: web frameworks and clients of models, with their official instrumentors.

A stream holds a span while it yields chunks. Each span that is made for a chunk belongs to its
stream, and whatever the program does beside or after it belongs to the request.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from fastapi import FastAPI
from fastapi.responses import StreamingResponse as FastAPIStream
from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Route
from suite import WAIT
from web import client, get, go_away, serving

from otel_concurrency._generators import monitoring

pytestmark = pytest.mark.skipif(
    not monitoring.IS_THERE, reason="before CPython 3.12 a suspension is not heard of"
)

CLIENTS = 50


class Service:
    """The endpoints, and what their streams do."""

    def __init__(self, tracer):
        self.tracer = tracer
        self.left = threading.Semaphore(0)
        """Released by each stream that ends."""
        self._connected = 0
        self._all = asyncio.Event()

    def span(self, name):
        """Make a span, and end it."""
        self.tracer.start_span(name).end()

    def chunks(self, number):
        """Stream as many lines, from whichever threads."""
        try:
            with self.tracer.start_as_current_span("stream"):
                try:
                    for each in range(number):
                        self.span("chunk")
                        yield f"{each}\n"
                finally:
                    self.span("cleanup")
        finally:
            self.left.release()

    async def chunks_async(self, number):
        """Stream as many lines."""
        try:
            with self.tracer.start_as_current_span("stream"):
                try:
                    for each in range(number):
                        await asyncio.sleep(0)
                        self.span("chunk")
                        yield f"{each}\n"
                finally:
                    self.span("cleanup")
        finally:
            self.left.release()

    async def events(self, number):
        """Send events, the first of them when all clients are there."""
        try:
            with self.tracer.start_as_current_span("stream"):
                self._connected += 1
                if self._connected == CLIENTS:
                    self._all.set()
                await self._all.wait()
                for each in range(number):
                    self.span("chunk")
                    yield f"data: {each}\n\n"
                    await asyncio.sleep(0)
        finally:
            self.left.release()

    def respond(self, kind, chunks):
        """Return a response of a framework that streams, and does something after it."""
        return kind(chunks, background=BackgroundTask(self.span, "background"))

    async def first(self):
        """Read a stream, and leave it early."""
        found = None
        async for line in self.chunks_async(10):
            self.span("reader")
            found = line
            break
        self.span("reader")
        return found

    def ended(self, number):
        """Wait until as many streams have ended; some are left to the collector by the server."""
        for _ in range(number):
            for _ in range(WAIT):
                if self.left.acquire(timeout=1):
                    break
                gc.collect()
            else:
                pytest.fail("a stream has not ended")


def starlette_app(service):
    """Return the service for Starlette."""

    async def stream(request):
        chunks = getattr(service, request.path_params["kind"])
        return service.respond(StreamingResponse, chunks(request.path_params["number"]))

    async def first(_request):
        return PlainTextResponse(await service.first())

    async def plain(_request):
        service.span("plain")
        return PlainTextResponse("plain")

    return Starlette(
        routes=[
            Route("/first", first),
            Route("/plain", plain),
            Route("/{kind}/{number:int}", stream),
        ]
    )


def fastapi_app(service):
    """Return the service for FastAPI."""
    app = FastAPI()

    @app.get("/first", response_class=PlainTextResponse)
    async def first():
        return await service.first()

    @app.get("/plain", response_class=PlainTextResponse)
    async def plain():
        service.span("plain")
        return "plain"

    @app.get("/{kind}/{number}")
    def stream(kind: str, number: int):
        return service.respond(FastAPIStream, getattr(service, kind)(number))

    return app


APPS = {"starlette": starlette_app, "fastapi": fastapi_app}
COLOURS = ["chunks", "chunks_async"]
FOREVER = 10**9


@pytest.fixture
def service(request, tracer):
    """Return the service, with the library on."""
    gc.collect()  # a generator of an earlier test, in which it was on, too, would log when it ends
    request.getfixturevalue("instrumented")
    return Service(tracer)


@pytest.fixture(params=APPS)
def app(request, service, tracer_provider):
    """Return an application of one of the frameworks, under the official middleware."""
    return OpenTelemetryMiddleware(
        APPS[request.param](service),
        tracer_provider=tracer_provider,
        exclude_spans=["receive", "send"],
    )


@pytest.fixture
def tracer_provider(exporter):
    """Return a provider that ``exporter`` hears of."""
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    yield provider
    provider.shutdown()


@pytest.fixture
def tracer(tracer_provider):
    """Return a tracer of it."""
    return tracer_provider.get_tracer("tests")


class Parents:
    """The spans that were exported, each with the name of its parent."""

    def __init__(self, exporter):
        self.spans = exporter.get_finished_spans()
        self._by_id = {span.context.span_id: span for span in self.spans}

    def parent(self, span):
        """Return the span's parent, which has to be of the same trace; None: it is a root."""
        if span.parent is None:
            return None
        parent = self._by_id[span.parent.span_id]
        assert parent.context.trace_id == span.context.trace_id
        return parent

    def of(self, name):
        """Return the names of the parents of all spans of a name."""
        parents = [self.parent(span) for span in self.spans if span.name == name]
        return [parent and parent.name for parent in parents]

    def children(self, name):
        """Return, for each span of a name, the names of its children."""
        above = [span for span in self.spans if span.name == name]
        return [
            sorted(one.name for one in self.spans if one.parent and self.parent(one) is span)
            for span in above
        ]


def roots(parents):
    """Return the names of all root spans."""
    return [span.name for span in parents.spans if span.parent is None]


@pytest.mark.parametrize("colour", COLOURS)
def test_a_chunk_is_under_its_stream(colour, app, service, exporter, caplog):
    """What follows the stream belongs to the request; so does the next one on the connection."""
    with caplog.at_level(logging.WARNING), serving(app) as address, client(address) as connection:
        for _ in range(2):
            assert get(connection, f"/{colour}/3") == ["0", "1", "2"]
        assert get(connection, "/plain") == ["plain"]
    parents = Parents(exporter)
    assert parents.children("stream") == [["chunk", "chunk", "chunk", "cleanup"]] * 2
    request = f"GET /{colour}/3"
    assert parents.of("stream") == parents.of("background") == [request] * 2
    assert parents.of("plain") == ["GET /plain"]
    assert roots(parents) == [request, request, "GET /plain"]
    assert not caplog.records


@pytest.mark.parametrize("colour", COLOURS)
def test_clients_that_go_away_in_the_middle(colour, app, service, exporter, caplog):
    """A stream that is left ends under its own span, and the next request is a root."""
    with caplog.at_level(logging.WARNING), serving(app) as address:
        for _ in range(3):
            with client(address) as connection:
                assert go_away(connection, f"/{colour}/{FOREVER}", 2) == [b"0\n", b"1\n"]
        service.ended(3)
        with client(address) as connection:
            for _ in range(2):
                assert get(connection, "/plain") == ["plain"]
    parents = Parents(exporter)
    assert parents.of("stream") == [f"GET /{colour}/{FOREVER}"] * 3
    if colour == "chunks_async":
        # The others are left to the collector, which may end the span before the generator.
        assert parents.of("cleanup") == ["stream"] * 3
    assert set(parents.of("chunk")) == {"stream"}
    assert parents.of("plain") == ["GET /plain"] * 2
    requests = [f"GET /{colour}/{FOREVER}"] * 3 + ["GET /plain"] * 2
    assert sorted(name for name in roots(parents) if name != "cleanup") == requests
    assert not caplog.records


def test_a_stream_that_is_left_early_by_the_endpoint(app, service, exporter, caplog):
    """What the endpoint does for a chunk, and after it has left, belongs to its request."""
    with caplog.at_level(logging.WARNING), serving(app) as address, client(address) as connection:
        for _ in range(3):
            assert get(connection, "/first") == ["0"]
        service.ended(3)
        assert get(connection, "/plain") == ["plain"]
    parents = Parents(exporter)
    assert parents.children("stream") == [["chunk", "cleanup"]] * 3
    assert parents.of("reader") == ["GET /first"] * 6
    assert parents.of("plain") == ["GET /plain"]
    assert len(roots(parents)) == 4
    assert not caplog.records


def test_events_to_fifty_clients_at_once(app, service, exporter, caplog):
    """Half of them go away: the others' events, and their next requests, are where they belong."""

    def listen(number):
        with client(address) as connection:
            if number % 2:
                assert go_away(connection, f"/events/{FOREVER}", 2) == [b"data: 0\n", b"\n"]
                return
            assert len(get(connection, "/events/5")) == 10
            assert get(connection, "/plain") == ["plain"]

    with caplog.at_level(logging.WARNING), serving(app) as address:
        with ThreadPoolExecutor(CLIENTS) as pool:
            list(pool.map(listen, range(CLIENTS)))
        service.ended(CLIENTS)
    parents = Parents(exporter)
    streams = parents.of("stream")
    assert streams.count("GET /events/5") == streams.count(f"GET /events/{FOREVER}") == CLIENTS / 2
    finished = [
        children
        for children, request in zip(parents.children("stream"), streams, strict=True)
        if request == "GET /events/5"
    ]
    assert finished == [["chunk"] * 5] * (CLIENTS // 2)
    assert set(parents.of("chunk")) == {"stream"}
    assert parents.of("plain") == ["GET /plain"] * (CLIENTS // 2)
    assert sorted(set(roots(parents))) == sorted({*streams, "GET /plain"})
    assert not caplog.records
