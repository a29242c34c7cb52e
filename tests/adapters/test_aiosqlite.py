"""aiosqlite: what its connections call in their threads."""

from __future__ import annotations

import asyncio

import aiosqlite
import pytest
from opentelemetry import baggage, context
from suite import IN_BOTH_ORDERS, Calls, check_undo, run_program


class _Connection(Calls):
    setting = "queue"

    @pytest.fixture(autouse=True)
    def worker(self):
        self.loop = asyncio.new_event_loop()
        self.connection = self.loop.run_until_complete(self.connect())
        yield
        self.loop.run_until_complete(self.connection.close())
        getattr(self.connection, "_thread", self.connection).join()  # it was one to 0.21
        self.loop.close()

    async def connect(self):
        return await aiosqlite.connect(":memory:")


class TestExecute(_Connection):
    """A connection calls everything in its thread by one method."""

    def hand_off(self, work):
        return self.loop.run_until_complete(self.connection._execute(work))


def test_a_function_of_the_program_is_called_in_the_statements_context(instrument, tracer):
    """An SQL function sees the baggage of who executes, and nothing after it."""
    instrument()
    seen = []

    async def main():
        with tracer.start_as_current_span("opener"):
            connection = await aiosqlite.connect(":memory:")
        function = lambda: seen.append(baggage.get_baggage("tenant"))  # noqa: E731
        await connection.create_function("seen", 0, function)
        for tenant in ("acme", "umbrella"):
            token = context.attach(baggage.set_baggage("tenant", tenant))
            await connection.execute_fetchall("SELECT seen()")
            context.detach(token)
        await connection.execute_fetchall("SELECT seen()")
        await connection.close()

    asyncio.run(main())
    assert seen == ["acme", "umbrella", None]


@IN_BOTH_ORDERS
def test_imported_before_or_after(first):
    """The order of imports does not matter."""
    program = (
        first.format(module="aiosqlite")
        + """
import asyncio
from opentelemetry import context
async def main():
    async with aiosqlite.connect(":memory:") as connection:
        await connection.create_function("seen", 0, lambda: context.get_value("key"))
        token = context.attach(context.set_value("key", "value"))
        print(*(await connection.execute_fetchall("SELECT seen()"))[0])
        context.detach(token)
        print(*(await connection.execute_fetchall("SELECT seen()"))[0])
asyncio.run(main())
"""
    )
    assert run_program(program) == "value\nNone\n"


def test_undo_is_exact():
    """The attribute that was replaced is what it was, by identity."""
    check_undo(aiosqlite.core.Connection)
