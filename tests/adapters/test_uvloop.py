"""uvloop: executors of the user's own, and what its loops carry natively."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from concurrent.futures import Executor, Future, ThreadPoolExecutor

import pytest
import uvloop
from opentelemetry import trace
from suite import IN_BOTH_ORDERS, WAIT, Calls, check_undo, outside, run_program


class OwnWorker(Executor):
    """A home-made executor with one thread, started at once, which reads from a plain list."""

    def __init__(self):
        self._calls, self._there = [], threading.Semaphore(0)
        self._thread = threading.Thread(target=self._work)
        outside(self._thread.start)

    def submit(self, fn, /, *args, **kwargs):
        future = Future()
        self._calls.append((future, fn, args, kwargs))
        self._there.release()
        return future

    def _work(self):
        while self._there.acquire() and (call := self._calls.pop(0)):
            future, fn, args, kwargs = call
            try:
                future.set_result(fn(*args, **kwargs))
            except Exception as error:
                future.set_exception(error)
            del call, future, fn, args, kwargs

    def shutdown(self, wait=True, *, cancel_futures=False):
        self._calls.append(None)
        self._there.release()
        self._thread.join(WAIT)


class TestOwnExecutor(Calls):
    setting = "asyncio"
    make = OwnWorker

    @pytest.fixture(autouse=True)
    def worker(self):
        self.executor = self.make()
        self.loop = uvloop.new_event_loop()
        yield
        self.loop.close()
        self.executor.shutdown()

    def hand_off(self, work):
        async def main():
            return await asyncio.wait_for(self.loop.run_in_executor(self.executor, work), WAIT)

        return self.loop.run_until_complete(main())


@pytest.mark.parametrize("settings", [{}, {"futures": "off"}, {"adapters": "-*"}], ids=str)
@pytest.mark.parametrize("given", [True, False], ids=["a pool", "the default one"])
def test_pools_of_threads(given, settings, instrument, tracer):
    """They go by FUTURES, and by ASYNCIO where that is off, as in asyncio's own loops."""
    instrument(**settings)

    async def main():
        loop = asyncio.get_running_loop()
        with ThreadPoolExecutor(1) as pool, tracer.start_as_current_span("origin") as origin:
            executor = pool if given else None
            return await loop.run_in_executor(executor, trace.get_current_span) is origin

    assert uvloop.run(main())


def test_callbacks_carry_natively(instrument, tracer):
    """From another thread, soon and later; the adapter has no part in it."""
    instrument(adapters="-*")
    seen = []

    async def main():
        loop = asyncio.get_running_loop()
        done = asyncio.Event()

        def see():
            seen.append(trace.get_current_span())
            if len(seen) == 3:
                done.set()

        thread = threading.Thread(target=loop.call_soon_threadsafe, args=(see,))
        thread.start()
        loop.call_soon(see)
        loop.call_later(0.001, see)
        await asyncio.wait_for(done.wait(), WAIT)
        thread.join(WAIT)

    with tracer.start_as_current_span("origin") as origin:
        uvloop.run(main())
    assert seen == [origin] * 3


def test_what_is_cancelled_or_refused_is_let_go(instrument, tracer):
    """A coroutine function is refused, and a call that never runs keeps no context."""
    instrument()

    class Never(Executor):
        def submit(self, fn, /, *args, **kwargs):
            self.last = fn
            return Future()

    async def coroutine():
        pass

    async def main():
        loop, executor = asyncio.get_running_loop(), Never()
        with tracer.start_as_current_span("origin") as span:
            future = loop.run_in_executor(executor, int)
            with pytest.raises(TypeError):
                loop.run_in_executor(executor, coroutine)
        reference = weakref.ref(span)
        del span
        future.cancel()
        for _ in range(5):
            await asyncio.sleep(0)
        del future
        gc.collect()
        assert executor.last() == 0
        return reference()

    assert uvloop.run(main()) is None


def test_undo_is_exact():
    """Every attribute that was replaced is what it was, by identity."""
    check_undo(uvloop.Loop)


@IN_BOTH_ORDERS
def test_it_does_not_matter_which_is_first(first):
    """Imported before the library is switched on, or after it."""
    program = """
import asyncio, contextvars, threading
from concurrent.futures import Executor, Future
from opentelemetry import context

class Own(Executor):
    def submit(self, fn, *args):
        future = Future()
        thread = threading.Thread(target=lambda: future.set_result(fn(*args)))
        contextvars.Context().run(thread.start)
        return future

async def main():
    context.attach(context.set_value("key", "carried"))
    loop = asyncio.get_running_loop()
    print(await loop.run_in_executor(Own(), context.get_value, "key"))
uvloop.run(main())
"""
    assert run_program(first.format(module="uvloop") + program) == "carried\n"
