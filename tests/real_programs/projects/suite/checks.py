"""Tests for pytest-xdist: each is a span, and hands work to a pool, a thread and an event loop."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from spans import span


def work(name, parent):
    """Do a part of the test ``parent``."""
    with span(name, parent):
        return name


@pytest.fixture(scope="session")
def pool():
    """Return a pool that all tests in one process share."""
    with ThreadPoolExecutor(2) as pool:
        yield pool


async def in_the_loop(name):
    """Do a part in a thread of the event loop's."""
    return await asyncio.to_thread(work, f"{name}/loop", name)


@pytest.mark.parametrize("number", range(8))
def test_work(pool, number):
    """Work that is handed over is done; the last test fails."""
    name = f"test{number}"
    with span(name):
        assert list(pool.map(work, [f"{name}/pool"], [name])) == [f"{name}/pool"]
        thread = threading.Thread(target=work, args=(f"{name}/thread", name))
        thread.start()
        thread.join()
        assert asyncio.run(in_the_loop(name)) == f"{name}/loop"
    assert number != 7
