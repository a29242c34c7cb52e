"""trio: memory channels; and what needs no adapter."""

from __future__ import annotations

import threading

import trio
import trio._channel
from channel_suite import Channels
from opentelemetry import trace
from suite import IN_BOTH_ORDERS, WAIT, check_undo, run_program


class TestChannels(Channels):
    def make(self, size=10):
        return trio.open_memory_channel(size)

    def run_async(self, function, *arguments):
        return trio.run(function, *arguments)

    def tasks(self):
        return trio.open_nursery(), trio.sleep


def test_threads_and_tasks_need_no_adapter(instrument, tracer):
    """They carry context natively, and so does a token's `run_sync_soon`."""
    instrument(adapters="-*")
    seen = []
    soon = threading.Event()

    async def task():
        seen.append(trace.get_current_span())

    def look():
        seen.append(trace.get_current_span())
        soon.set()

    def thread():
        seen.append(trace.get_current_span())
        trio.from_thread.run_sync(look)
        trio.from_thread.run(task)

    async def main():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(task)
        await trio.to_thread.run_sync(thread)
        soon.clear()
        trio.lowlevel.current_trio_token().run_sync_soon(look)
        while not soon.is_set():
            await trio.sleep(0.001)

    with tracer.start_as_current_span("origin") as origin:
        trio.run(main)
    assert soon.wait(WAIT)
    assert seen == [origin] * 5


def test_undo_is_exact():
    """Every attribute that was replaced is what it was, by identity."""
    check_undo(trio._channel.MemorySendChannel, trio._channel.MemoryReceiveChannel)


@IN_BOTH_ORDERS
def test_it_does_not_matter_which_is_first(first):
    """Imported before the library is switched on, or after it."""
    program = """
import trio
from opentelemetry import context
async def main():
    sender, receiver = trio.open_memory_channel(1)
    token = context.attach(context.set_value("key", "carried"))
    await sender.send(1)
    context.detach(token)
    await receiver.receive()
    print(context.get_value("key"))
trio.run(main)
"""
    assert run_program(first.format(module="trio") + program) == "carried\n"
