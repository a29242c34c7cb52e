"""anyio: memory object streams, under asyncio and under trio; and what needs no adapter."""

from __future__ import annotations

import anyio
import anyio.from_thread
import anyio.streams.memory
import anyio.to_process
import anyio.to_thread
import pytest
from channel_suite import Channels
from opentelemetry import trace
from suite import (
    IN_BOTH_ORDERS,
    check_processes,
    check_processes_off,
    check_processes_under_link,
    check_undo,
    run_program,
)
from suite import PROCESSES as PROCESSES_MODULE


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


PROCESSES = """
import functools, os
import anyio.from_thread, anyio.to_process
starts = anyio.from_thread.start_blocking_portal("{backend}")
portal = starts.__enter__()
def hand_off(function):
    return portal.call(functools.partial(anyio.to_process.run_sync, function))
def close():
    starts.__exit__(None, None, None)
"""


@pytest.mark.decisive
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_worker_processes(backend, tmp_path, monkeypatch):
    """Parent and baggage cross, nothing is left to the next task, and workers' spans arrive."""
    check_processes(PROCESSES.format(backend=backend), tmp_path, monkeypatch)


def test_worker_processes_under_link(tmp_path, monkeypatch):
    """Work in a process is a trace of its own, linked to its origin."""
    check_processes_under_link(PROCESSES.format(backend="asyncio"), tmp_path, monkeypatch)


def test_worker_processes_switched_off(tmp_path, monkeypatch):
    """Nothing crosses where the adapter is left out, or the primitive."""
    check_processes_off(PROCESSES.format(backend="asyncio"), tmp_path, monkeypatch)


TROUBLE = """
import anyio, anyio.to_process, signal, time
from suite_work import *

def fail():
    raise ValueError("the work's")

def stay(path):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    open(path, "w").close()
    time.sleep(60)

async def cancel(path):
    async with anyio.create_task_group() as group:
        run = anyio.to_process.run_sync
        group.start_soon(lambda: run(stay, path, cancellable=True))
        while not os.path.exists(path):
            await anyio.sleep(0.01)
        group.cancel_scope.cancel()

async def main():
    for function in (fail, lambda: 1):
        try:
            await anyio.to_process.run_sync(function)
        except Exception as error:
            print(type(error).__name__, "the work's" in str(error))
    print((await anyio.to_process.run_sync(work))[1])
    await cancel(sys.argv[1])
    print((await anyio.to_process.run_sync(clean)))

if __name__ == "__main__":
    switch_on(flush_timeout=500)
    context.attach(baggage.set_baggage("tenant", "acme"))
    anyio.run(main)
"""


def test_what_goes_wrong_in_a_worker_process(tmp_path, monkeypatch):
    """Exceptions are the work's, what cannot be pickled is not, and the cancelled are killed."""
    (tmp_path / "suite_work.py").write_text(PROCESSES_MODULE, encoding="utf-8")
    monkeypatch.setenv("SPANS", str(tmp_path / "spans"))
    printed = run_program(TROUBLE, str(tmp_path / "started"), directory=tmp_path).splitlines()
    assert printed[0] == "ValueError True"
    assert printed[1].endswith("False")
    assert printed[2] == "acme"
    assert printed[3].startswith("['baggage-")


def test_undo_is_exact():
    """Every attribute that was replaced is what it was, by identity."""
    memory = anyio.streams.memory
    check_undo(memory.MemoryObjectSendStream, memory.MemoryObjectReceiveStream, anyio.to_process)


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
