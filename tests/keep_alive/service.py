"""What the servers serve: each request answers with the context that it began in, and its parent.

A request under ``/spans`` does what OpenTelemetry's own instrumentors do: it reads the headers only
where no span is current. One under ``/plain`` has no span, and attaches baggage alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import json

from opentelemetry import baggage, context, trace
from opentelemetry.propagate import extract
from opentelemetry.sdk.trace import TracerProvider

provider = TracerProvider()
tracer = provider.get_tracer("keep alive")


def _span_id(span):
    given = None if span is None else span.get_span_context()
    return None if given is None or not given.is_valid else trace.format_span_id(given.span_id)


def _parent(span):
    parent = getattr(span, "parent", None)
    return None if parent is None else trace.format_span_id(parent.span_id)


instrumented = False
"""Whether OpenTelemetry's own instrumentor makes a span of each request."""


class Request:
    """One request: what it began in, and what is current until it is answered."""

    def __init__(self, path, headers):
        self.path = path
        self.headers = {name.lower(): value for name, value in headers.items()}
        self.answer = {
            "path": path,
            "current": _span_id(trace.get_current_span()),
            "tenant": baggage.get_baggage("tenant"),
        }
        if instrumented:
            self.answer |= {"current": None, "parent": _parent(trace.get_current_span())}
        self._until_answered = contextlib.ExitStack()

    def __enter__(self):
        if self.answer["current"] is None and not instrumented:
            self._attach(extract(self.headers, context.get_current()))
        self._attach(baggage.set_baggage("tenant", self.path))
        if self.path.startswith("/spans"):
            span = self._until_answered.enter_context(tracer.start_as_current_span(self.path))
            self.answer.setdefault("parent", _parent(span))
        return self

    def __exit__(self, *error):
        self._until_answered.close()

    def _attach(self, given):
        self._until_answered.callback(context.detach, context.attach(given))

    def body(self, received):
        """Return the answer to a request, of which so many bytes were received."""
        return json.dumps({**self.answer, "received": received}).encode()


async def asgi(scope, receive, send):
    """Serve as an ASGI application that reads its body inside the request's span."""
    if scope["type"] == "lifespan":
        for event in ("startup", "shutdown"):
            await receive()
            await send({"type": f"lifespan.{event}.complete"})
        return
    headers = {name.decode(): value.decode() for name, value in scope["headers"]}
    with Request(scope["path"], headers) as request:
        received, more = 0, True
        while more:
            message = await receive()
            received += len(message.get("body", b""))
            more = message.get("more_body", False)
        await asyncio.sleep(0)
        body = request.body(received)
        length = [(b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": length})
        await send({"type": "http.response.body", "body": body})


def instrumented_asgi():
    """Return the ASGI application inside OpenTelemetry's own instrumentor."""
    from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware

    global instrumented
    instrumented = True
    return OpenTelemetryMiddleware(asgi, tracer_provider=provider)


def wsgi(environ, start_response):
    """Serve as a WSGI application."""
    headers = {
        name[5:].replace("_", "-"): value
        for name, value in environ.items()
        if name.startswith("HTTP_")
    }
    with Request(environ["PATH_INFO"], headers) as request:
        received = len(environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0)))
        body = request.body(received)
        start_response("200 OK", [("Content-Length", str(len(body)))])
        return [body]


def aiohttp_application():
    """Return an application of aiohttp's."""
    from aiohttp import web

    async def handle(given):
        with Request(given.path, dict(given.headers)) as request:
            received = len(await given.read())
            await asyncio.sleep(0)
            return web.Response(body=request.body(received))

    application = web.Application(client_max_size=1 << 22)
    application.router.add_route("*", "/{path:.*}", handle)
    return application


def tornado_application():
    """Return an application of tornado's, which reads bodies piece by piece."""
    from tornado import web

    @web.stream_request_body
    class Handler(web.RequestHandler):
        def prepare(self):
            self._received = 0
            self._request = Request(self.request.path, dict(self.request.headers)).__enter__()

        async def data_received(self, chunk):
            self._received += len(chunk)
            await asyncio.sleep(0)

        async def post(self):
            await asyncio.sleep(0)
            self.finish(self._request.body(self._received))

        def on_finish(self):
            self._request.__exit__()

    return web.Application([("/.*", Handler)])
