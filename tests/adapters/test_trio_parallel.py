"""trio-parallel: functions in worker processes, which are spawned or forked."""

from __future__ import annotations

import pytest
import trio_parallel._proc
from suite import (
    check_processes,
    check_processes_off,
    check_processes_under_link,
    check_undo,
    spans_of,
)

WAY = """
import trio, trio_parallel
from anyio.from_thread import start_blocking_portal
trio_parallel.configure_default_context(worker_type=trio_parallel.WorkerType.{kind})
starts = start_blocking_portal("trio")
portal = starts.__enter__()
def hand_off(function):
    return portal.call(trio_parallel.run_sync, function)
def close():
    starts.__exit__(None, None, None)
"""


@pytest.mark.decisive
@pytest.mark.parametrize("kind", ["SPAWN", "FORK"])
def test_it_carries(kind, tmp_path, monkeypatch):
    """Parent and baggage cross, nothing is left to the next task, and workers' spans arrive."""
    check_processes(WAY.format(kind=kind), tmp_path, monkeypatch)


def test_under_link(tmp_path, monkeypatch):
    """Work in a process is a trace of its own, linked to its origin."""
    check_processes_under_link(WAY.format(kind="SPAWN"), tmp_path, monkeypatch)


def test_switched_off(tmp_path, monkeypatch):
    """Nothing crosses where the adapter is left out, or the primitive."""
    check_processes_off(WAY.format(kind="SPAWN"), tmp_path, monkeypatch)


PROGRAM = """
from suite_work import *
{first}
import trio

def fail():
    raise ValueError("the work's")

async def wrong():
    pass

async def main():
    async with trio_parallel.open_worker_context() as workers:
        print((await workers.run_sync(work))[1])
        for function in (fail, wrong):
            try:
                await workers.run_sync(function)
            except Exception as error:
                print(error)

if __name__ == "__main__":
    context.attach(baggage.set_baggage("tenant", "acme"))
    trio.run(main)
"""
ON = "if __name__ == '__main__':\n    switch_on()"
ORDERS = [f"import trio_parallel\n{ON}", f"{ON}\nimport trio_parallel"]


@pytest.mark.parametrize("first", ORDERS, ids=["imported first", "instrumented first"])
def test_it_does_not_matter_which_is_first(first, tmp_path, monkeypatch):
    """Imported before the library is switched on, or after it; what goes wrong is the work's."""
    printed, _ = spans_of(PROGRAM.format(first=first), tmp_path, monkeypatch)
    assert printed.splitlines()[:2] == ["acme", "the work's"]
    assert "but 'wrong' appears to be asynchronous" in printed


def test_undo_is_exact():
    """Every attribute that was replaced is what it was, by identity."""
    check_undo(trio_parallel._proc.SpawnProcWorker)
