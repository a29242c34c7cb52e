"""Events of web frameworks, and Django's tasks: their listeners are in the request that sends them.

They need no adapter. litestar's listeners get events from a stream of anyio, which carries; those
of sanic's signals are tasks of asyncio, and Django's backend for development runs a task at once.
"""

from __future__ import annotations

import asyncio

import django_site  # noqa: F401 - configures Django
import pytest
from django.tasks import task
from litestar import Litestar, get
from litestar.events import listener
from litestar.testing import AsyncTestClient
from opentelemetry import baggage, context, trace
from sanic import Sanic
from suite import WAIT

pytestmark = pytest.mark.usefixtures("instrumented")

marks = []
"""What was current where a listener ran."""


def mark(*_):
    """Note what is current here."""
    marks.append((trace.get_current_span(), baggage.get_baggage("tenant")))


async def until(count):
    """Wait until there are so many marks; return and forget them."""
    async with asyncio.timeout(WAIT):
        while len(marks) < count:
            await asyncio.sleep(0.001)
    found = marks.copy()
    marks.clear()
    return found


class Request:
    """A request with baggage."""

    def __init__(self, tracer, tenant):
        self.tracer, self.tenant = tracer, tenant

    def __enter__(self):
        self.token = context.attach(baggage.set_baggage("tenant", self.tenant))
        self.current = self.tracer.start_as_current_span(self.tenant)
        return self.current.__enter__(), self.tenant

    def __exit__(self, *_):
        self.current.__exit__(None, None, None)
        context.detach(self.token)


def test_litestar(tracer):
    """A listener that is a coroutine function, and one in a thread, whoever started the server."""
    seen = []

    @listener("event")
    async def coroutine() -> None:
        mark()

    @listener("event")
    def function() -> None:
        mark()

    tenants = iter(["acme", "umbrella"])

    @get("/")
    async def handle() -> None:
        with Request(tracer, next(tenants)) as expected:
            app.emit("event")
        seen.append(expected)

    app = Litestar(
        [handle], listeners=[coroutine, function], openapi_config=None, logging_config=None
    )

    async def use():
        client = AsyncTestClient(app)
        with Request(tracer, "starter"):
            await client.__aenter__()
        for _ in range(2):
            await client.get("/")
            assert await until(2) == [seen.pop()] * 2
        await client.__aexit__(None, None, None)

    asyncio.run(use())


def test_sanic(tracer):
    """A signal's handler, whether it is waited for or not."""
    app = Sanic("tests", configure_logging=False)

    @app.signal("tests.event.sent")
    async def handler(**_):
        mark()

    async def use():
        app.signal_router.finalize()
        for tenant in ("acme", "umbrella"):
            for inline in (False, True):
                with Request(tracer, tenant) as expected:
                    await app.dispatch("tests.event.sent", inline=inline)
                assert await until(1) == [expected]

    asyncio.run(use())


@task
def enqueued():
    """Do what a task does."""
    mark()


def test_django_tasks(tracer):
    """The backend that runs a task at once does so in the flow that enqueues it."""
    for tenant in ("acme", "umbrella"):
        with Request(tracer, tenant) as expected:
            enqueued.enqueue()
        assert marks == [expected]
        marks.clear()
