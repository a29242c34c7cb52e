"""anyio: memory object streams, under asyncio and under trio; and what needs no adapter."""

from __future__ import annotations

import anyio
import anyio.from_thread
import anyio.streams.memory
import anyio.to_thread
import pytest
from channel_suite import Channels
from opentelemetry import trace
from suite import IN_BOTH_ORDERS, run_program

from otel_concurrency import ConcurrencyInstrumentor


class TestUnderAsyncio(Channels):
    backend = "asyncio"

    def make(self, size=10):
        ends = anyio.create_memory_object_stream(size)
        self.ends.append(ends)
        return ends

    def run_async(self, function, *arguments):
        self.ends = []
        try:
            return anyio.run(function, *arguments, backend=self.backend)
        finally:
            for end in (end for ends in self.ends for end in ends):
                end.close()

    def tasks(self):
        return anyio.create_task_group(), anyio.sleep


class TestUnderTrio(TestUnderAsyncio):
    backend = "trio"


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_threads_portals_and_tasks_need_no_adapter(backend, instrument, tracer):
    """They carry context natively."""
    instrument(adapters="-*")
    seen = []

    async def task():
        seen.append(trace.get_current_span())

    def thread():
        seen.append(trace.get_current_span())
        anyio.from_thread.run_sync(lambda: seen.append(trace.get_current_span()))
        anyio.from_thread.run(task)

    async def main():
        async with anyio.create_task_group() as group:
            group.start_soon(task)
        await anyio.to_thread.run_sync(thread)

    with tracer.start_as_current_span("origin") as origin:
        anyio.run(main, backend=backend)
        with anyio.from_thread.start_blocking_portal(backend) as portal:
            portal.call(task)
    assert seen == [origin] * 5


def test_undo_is_exact():
    """Every attribute that was replaced is what it was, by identity."""
    memory = anyio.streams.memory
    owners = [memory.MemoryObjectSendStream, memory.MemoryObjectReceiveStream]
    before = [dict(vars(owner)) for owner in owners]
    ConcurrencyInstrumentor().instrument()
    assert all(dict(vars(owner)) != was for owner, was in zip(owners, before, strict=True))
    ConcurrencyInstrumentor().uninstrument()
    assert [dict(vars(owner)) for owner in owners] == before


@IN_BOTH_ORDERS
def test_it_does_not_matter_which_is_first(first):
    """Imported before the library is switched on, or after it."""
    program = """
import anyio
from opentelemetry import context
async def main():
    sender, receiver = anyio.create_memory_object_stream(1)
    with sender, receiver:
        token = context.attach(context.set_value("key", "carried"))
        await sender.send(1)
        context.detach(token)
        await receiver.receive()
        print(context.get_value("key"))
anyio.run(main)
"""
    assert run_program(first.format(module="anyio.streams.memory") + program) == "carried\n"
