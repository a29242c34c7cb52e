"""pebble: its pools of processes and of threads, and processes and threads of one task."""

from __future__ import annotations

import pebble
import pebble.concurrent
import pebble.pool.process
import pytest
from pebble import ThreadPool
from suite import (
    WAIT,
    Calls,
    check_processes,
    check_processes_off,
    check_processes_under_link,
    check_undo,
)

POOL = """
import multiprocessing
from pebble import ProcessPool
from opentelemetry import baggage, context
token = context.attach(baggage.set_baggage("maker", "of the pool"))
pool = ProcessPool(1, context=multiprocessing.get_context("{method}"))
pool.schedule(int).result()
context.detach(token)
def hand_off(function):
    return pool.schedule(function).result(timeout=60)
def close():
    pool.close()
    pool.join()
"""
METHODS = ["fork", "spawn"]


@pytest.fixture(autouse=True)
def _at_once(monkeypatch):
    """Have spans exported when they end: pebble kills its workers, with all that they have."""
    monkeypatch.setenv("AT_ONCE", "1")


@pytest.mark.decisive
@pytest.mark.parametrize("method", METHODS)
def test_a_pool_of_processes(method, tmp_path, monkeypatch):
    """Parent and baggage cross; nothing is left to the next task, nor of who made the pool."""
    check_processes(POOL.format(method=method), tmp_path, monkeypatch)


def test_under_link(tmp_path, monkeypatch):
    """Work in a process is a trace of its own, linked to its origin."""
    check_processes_under_link(POOL.format(method="spawn"), tmp_path, monkeypatch)


def test_switched_off(tmp_path, monkeypatch):
    """Nothing crosses where the adapter is left out, or the primitive."""
    check_processes_off(POOL.format(method="spawn"), tmp_path, monkeypatch)


class TestThreadPool(Calls):
    setting = "queue"
    needs_adapter = False

    @pytest.fixture(autouse=True)
    def worker(self):
        self.pool = ThreadPool(1)
        yield
        self.pool.close()
        self.pool.join()

    def hand_off(self, work):
        return self.pool.schedule(work).result(WAIT)


class TestThread(Calls):
    setting = "threading"
    needs_adapter = False

    def hand_off(self, work):
        return pebble.concurrent.thread(work)().result(WAIT)


def test_undo_is_exact():
    """Every attribute that was replaced is what it was, by identity."""
    check_undo(pebble.pool.process, pebble.pool.process.TaskPayload)
