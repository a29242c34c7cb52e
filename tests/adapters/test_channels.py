"""Django Channels: consumers of channels and groups, and a worker, over the layer in memory."""

from __future__ import annotations

import asyncio

import django_site  # noqa: F401 - configures Django
import pytest
from asgiref.testing import ApplicationCommunicator
from channels import consumer, utils
from channels.consumer import AsyncConsumer, SyncConsumer
from channels.layers import InMemoryChannelLayer, channel_layers, get_channel_layer
from channels.routing import ChannelNameRouter
from channels.worker import Worker
from opentelemetry import baggage, context, trace
from suite import IN_BOTH_ORDERS, WAIT, check_undo, run_program


class Seen:
    """What consumers have seen, message by message."""

    def __init__(self):
        self.marks = []

    def mark(self, message):
        span = trace.get_current_span().get_span_context().span_id
        self.marks.append((message.get("number"), span, baggage.get_baggage("tenant")))
        context.attach(context.set_value("forgotten", 1))

    async def next(self):
        async def marked():
            while not self.marks:
                await asyncio.sleep(0.001)

        await asyncio.wait_for(marked(), WAIT)
        return self.marks.pop()


def consumers(seen):
    """Return a consumer of a group, and one that blocks."""

    class Group(AsyncConsumer):
        async def start(self, message):
            await self.channel_layer.group_add("group", self.channel_name)
            seen.mark(message)

        async def job(self, message):
            seen.mark(message)

    class Blocking(SyncConsumer):
        def job(self, message):
            seen.mark(message)

    return Group, Blocking


class Request:
    """A request with baggage."""

    def __init__(self, tracer, tenant):
        self.tracer, self.tenant = tracer, tenant

    def __enter__(self):
        self.token = context.attach(baggage.set_baggage("tenant", self.tenant))
        self.current = self.tracer.start_as_current_span(self.tenant)
        return self.current.__enter__().get_span_context().span_id

    def __exit__(self, *_):
        self.current.__exit__(None, None, None)
        context.detach(self.token)


async def use(tracer, layer):
    """Return what two messages to a consumer have to see, and what they saw; and one without."""
    seen = Seen()
    group, _ = consumers(seen)
    connection = ApplicationCommunicator(group.as_asgi(), {"type": "tests"})
    with Request(tracer, "opener") as opener:
        await connection.send_input({"type": "start"})
    expected, found = [(None, opener, "opener")], [await seen.next()]
    for number, tenant in enumerate(("acme", "umbrella")):
        with Request(tracer, tenant) as span:
            await layer.group_send("group", {"type": "job", "number": number})
        expected.append((number, span, tenant))
        found.append(await seen.next())
    await layer.group_send("group", {"type": "job", "number": 2})
    expected.append((2, 0, None))
    found.append(await seen.next())
    await connection.wait(0)
    return expected, found


@pytest.fixture
def layer(monkeypatch):
    """Return a layer in memory."""
    settings = {"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}}
    monkeypatch.setattr("django.conf.settings.CHANNEL_LAYERS", settings, raising=False)
    channel_layers.backends.clear()
    return get_channel_layer()


@pytest.mark.decisive
def test_a_message_is_handled_in_the_context_in_which_it_was_sent(instrument, tracer, layer):
    """Not in that of the message before; one that was sent in none is in none."""
    instrument()
    expected, found = asyncio.run(use(tracer, layer))
    assert found == expected


@pytest.mark.parametrize("settings", [{"asyncio": "off"}, None], ids=str)
def test_switched_off_nothing_is_carried(settings, instrument, tracer, layer):
    """By its policy, or with all of the library."""
    instrument(**(settings or {}))
    if settings is None:
        instrument.__self__.uninstrument()
    _, found = asyncio.run(use(tracer, layer))
    assert {one[1:] for one in found} == {(0, None)}


@pytest.mark.filterwarnings("ignore:async_to_sync was passed a non-async-marked callable")
def test_a_worker_of_channels(instrument, tracer, layer):
    """It was started in a request; a message is in the one that has sent it, in a thread too."""
    instrument()

    async def work():
        seen, expected, found = Seen(), [], []
        _, blocking = consumers(seen)
        worker = Worker(ChannelNameRouter({"work": blocking.as_asgi()}), ["work"], layer)
        with Request(tracer, "starter"):
            running = asyncio.create_task(worker.handle())
        for number, tenant in enumerate(("acme", "umbrella")):
            with Request(tracer, tenant) as span:
                await layer.send("work", {"type": "job", "number": number})
            expected.append((number, span, tenant))
            found.append(await seen.next())
        running.cancel()
        await asyncio.wait([running])
        return expected, found

    expected, found = asyncio.run(work())
    assert found == expected


PROGRAM = """
import asyncio
from opentelemetry import context
from channels.utils import await_many_dispatch
async def main():
    queue = asyncio.Queue()
    token = context.attach(context.set_value("key", "value"))
    queue.put_nowait(1)
    context.detach(token)
    async def receive():
        return await queue.get()
    async def dispatch(_):
        print(context.get_value("key"))
        raise RuntimeError
    try:
        await await_many_dispatch([receive], dispatch)
    except RuntimeError:
        print(context.get_value("key"))
asyncio.run(main())
"""


@IN_BOTH_ORDERS
def test_imported_before_or_after(first):
    """The order of imports does not matter."""
    assert run_program(first.format(module="channels.utils") + PROGRAM) == "value\nNone\n"


def test_undo_is_exact():
    """Every attribute that was replaced is what it was, by identity."""
    check_undo(utils, consumer, InMemoryChannelLayer)
