"""Serves in a process of its own, until it is killed: ``python server.py SERVER LIBRARY``.

It prints its port. The server is started inside a span with baggage, as one that is started when it
is first needed. LIBRARY is one of :data:`LIBRARY`.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import importlib
import socket
import sys

LIBRARY = ("on first", "imported first", "off")
"""Whether this library is on, and whether it was before the server's own library was imported."""


@contextlib.contextmanager
def started_in_a_span():
    """Have a span and baggage current, which no request is to see."""
    import service
    from opentelemetry import baggage, context

    token = context.attach(baggage.set_baggage("tenant", "whoever has started the server"))
    with service.tracer.start_as_current_span("start the server"):
        yield
    context.detach(token)


def application(*, instrumented):
    """Return the ASGI application, inside OpenTelemetry's own instrumentor or as it is."""
    import service

    return service.instrumented_asgi() if instrumented else service.asgi


async def uvicorn(listening, http, *, instrumented=False):
    """Serve by uvicorn."""
    import uvicorn as library

    config = library.Config(
        application(instrumented=instrumented),
        http=http,
        lifespan="off",
        log_level="warning",
        timeout_keep_alive=60,
    )
    await library.Server(config).serve(sockets=[listening])


async def hypercorn(listening, *, instrumented=False):
    """Serve by hypercorn."""
    from hypercorn.asyncio import serve
    from hypercorn.config import Config

    config = Config()
    config.bind = [f"fd://{listening.fileno()}"]
    config.keep_alive_timeout = 60
    config.loglevel = "warning"
    await serve(
        application(instrumented=instrumented), config, shutdown_trigger=asyncio.Event().wait
    )


async def aiohttp(listening):
    """Serve by aiohttp."""
    import service
    from aiohttp import web

    runner = web.AppRunner(service.aiohttp_application(), access_log=None)
    await runner.setup()
    await web.SockSite(runner, listening).start()
    await asyncio.Event().wait()


async def tornado(listening):
    """Serve by tornado."""
    import service
    from tornado.httpserver import HTTPServer

    listening.setblocking(False)
    HTTPServer(service.tornado_application()).add_socket(listening)
    await asyncio.Event().wait()


def gunicorn(listening):
    """Serve by gunicorn, in a process that it forks, with threads."""
    import service
    from gunicorn.app.base import BaseApplication

    class Application(BaseApplication):
        def load_config(self):
            settings = {
                "bind": f"fd://{listening.fileno()}",
                "worker_class": "gthread",
                "threads": 8,
                "keepalive": 60,
                "loglevel": "warning",
            }
            for name, value in settings.items():
                self.cfg.set(name, value)

        def load(self):
            return service.wsgi

    with started_in_a_span():
        Application().run()


def in_a_loop(serve, loop="asyncio"):
    """Return what serves in an event loop, inside a span."""

    def start(listening):
        async def main():
            with started_in_a_span():
                task = asyncio.ensure_future(serve(listening))
                await asyncio.sleep(0)
            await task

        if loop == "uvloop":
            importlib.import_module("uvloop").run(main())
        else:
            asyncio.run(main())

    return start


INSTRUMENTED = ", instrumented"

NEEDED = {
    "asyncio": (),
    "uvloop": ("uvloop",),
    "": (),
    INSTRUMENTED: ("opentelemetry.instrumentation.asgi",),
}
"""By what a name says: the modules that it needs."""

SERVERS = {
    **{
        f"uvicorn, {loop}, {http}{beside}": (
            in_a_loop(functools.partial(uvicorn, http=http, instrumented=bool(beside)), loop),
            ("uvicorn", http, *NEEDED[loop], *NEEDED[beside]),
        )
        for loop in ("asyncio", "uvloop")
        for http in ("h11", "httptools")
        for beside in ("", INSTRUMENTED)
    },
    **{
        f"hypercorn, {loop}{beside}": (
            in_a_loop(functools.partial(hypercorn, instrumented=bool(beside)), loop),
            ("hypercorn.asyncio", *NEEDED[loop], *NEEDED[beside]),
        )
        for loop in ("asyncio", "uvloop")
        for beside in ("", INSTRUMENTED)
    },
    "aiohttp": (in_a_loop(aiohttp), ("aiohttp.web",)),
    "aiohttp, uvloop": (in_a_loop(aiohttp, "uvloop"), ("aiohttp.web", "uvloop")),
    "tornado": (in_a_loop(tornado), ("tornado.httpserver",)),
    "gunicorn, gthread": (gunicorn, ("gunicorn",)),
}
"""By name: what serves on a listening socket, and the modules that it needs."""


def main(name, library):
    """Serve, with the library on or off."""
    from otel_concurrency import ConcurrencyInstrumentor

    serve, modules = SERVERS[name]
    if library == "imported first":
        for module in ("asyncio", *modules):
            importlib.import_module(module)
    if library != "off":
        ConcurrencyInstrumentor().instrument()
    listening = socket.create_server(("127.0.0.1", 0), backlog=100)
    listening.set_inheritable(True)
    print(listening.getsockname()[1], flush=True)
    serve(listening)


if __name__ == "__main__":
    main(*sys.argv[1:])
