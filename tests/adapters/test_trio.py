"""trio: memory channels, calls that are handed to the event loop; and what needs no adapter."""

from __future__ import annotations

import threading
from concurrent.futures import Future

import pytest
import trio
import trio._channel
from channel_suite import Channels
from opentelemetry import context, trace
from suite import IN_BOTH_ORDERS, WAIT, Calls, check_undo, outside, run_program


class TestChannels(Channels):
    def make(self, size=10):
        return trio.open_memory_channel(size)

    def run_async(self, function, *arguments):
        return trio.run(function, *arguments)

    def tasks(self):
        return trio.open_nursery(), trio.sleep


@pytest.fixture(scope="module")
def token():
    """Return the token of an event loop that runs in another thread, in no context."""
    tokens, stop = Future(), trio.Event()

    async def main():
        tokens.set_result(trio.lowlevel.current_trio_token())
        await stop.wait()

    thread = threading.Thread(target=outside, args=(trio.run, main))
    thread.start()
    found = tokens.result(WAIT)
    yield found
    found.run_sync_soon(stop.set)
    thread.join(WAIT)


class TestRunSyncSoon(Calls):
    """From a thread of whatever kind, into a loop that it has not started."""

    setting = "asyncio"

    @pytest.fixture(autouse=True)
    def worker(self, token):
        """Use the one loop."""
        self.token = token

    def hand_off(self, work):
        done = Future()

        def run():
            try:
                done.set_result(work())
            except Exception as error:
                done.set_exception(error)

        self.token.run_sync_soon(run)
        return done.result(WAIT)


def test_a_call_without_context_is_not_in_that_of_the_loop(instrument, tracer):
    """Handed over outside any span, to a loop that was started inside one."""
    instrument()
    seen = []

    async def main():
        token, done = trio.lowlevel.current_trio_token(), trio.Event()

        def look():
            seen.append(context.get_current())
            done.set()

        outside(token.run_sync_soon, look)
        await done.wait()

    with tracer.start_as_current_span("main"):
        trio.run(main)
    assert seen == [{}]


def test_calls_that_are_equal_are_still_made_once(instrument):
    """With `idempotent=True`, whatever context each was handed over in: in that of the first."""
    instrument()
    seen = []

    async def main():
        token, done = trio.lowlevel.current_trio_token(), trio.Event()
        for name in ("a", "b"):
            attached = context.attach(context.set_value("key", name))
            token.run_sync_soon(look, 1, idempotent=True)
            context.detach(attached)
        token.run_sync_soon(done.set, idempotent=True)
        await done.wait()

    def look(number):
        seen.append((number, context.get_value("key")))

    trio.run(main)
    assert seen == [(1, "a")]


def test_a_loop_that_has_ended_says_so(instrument, tracer):
    """Handing a call to it raises the same error, and the call keeps no span."""
    instrument()
    tokens = []

    async def main():
        tokens.append(trio.lowlevel.current_trio_token())

    trio.run(main)
    with tracer.start_as_current_span("origin"), pytest.raises(trio.RunFinishedError):
        tokens[0].run_sync_soon(int)


def test_threads_and_tasks_need_no_adapter(instrument, tracer):
    """They carry context natively."""
    instrument(adapters="-*")
    seen = []

    async def task():
        seen.append(trace.get_current_span())

    def thread():
        seen.append(trace.get_current_span())
        trio.from_thread.run_sync(lambda: seen.append(trace.get_current_span()))
        trio.from_thread.run(task)

    async def main():
        with tracer.start_as_current_span("origin") as origin:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(task)
            await trio.to_thread.run_sync(thread)
        assert seen == [origin] * 4

    trio.run(main)


def test_undo_is_exact():
    """Every attribute that was replaced is what it was, by identity."""
    check_undo(
        trio._channel.MemorySendChannel,
        trio._channel.MemoryReceiveChannel,
        trio.lowlevel.TrioToken,
    )


@IN_BOTH_ORDERS
def test_it_does_not_matter_which_is_first(first):
    """Imported before the library is switched on, or after it."""
    program = """
import threading
import trio
from opentelemetry import context
async def main():
    sender, receiver = trio.open_memory_channel(1)
    token = context.attach(context.set_value("key", "carried"))
    await sender.send(1)
    context.detach(token)
    await receiver.receive()
    print(context.get_value("key"))
    token, done = trio.lowlevel.current_trio_token(), trio.Event()
    def thread():
        context.attach(context.set_value("key", "carried"))
        token.run_sync_soon(lambda: (print(context.get_value("key")), done.set()))
    threading.Thread(target=thread).start()
    await done.wait()
trio.run(main)
"""
    assert run_program(first.format(module="trio") + program) == "carried\n" * 2
