"""uvloop: connections, executors of the user's own, and what its loops carry natively."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from concurrent.futures import Executor, Future, ThreadPoolExecutor

import pytest
import uvloop
from opentelemetry import trace
from opentelemetry.context import attach, set_value
from suite import IN_BOTH_ORDERS, WAIT, Calls, check_undo, outside, run_program

from connections import (
    EXPECTED,
    FORMS,
    PROGRAM,
    Recording,
    Requests,
    callbacks_after_requests,
    client_of_a_request,
    datagram_endpoint_of_a_request,
    handler_of_a_server_that_starts_later,
    open_as,
    request,
    run,
    seen,
    server_and_client,
    three_requests,
)
from otel_concurrency import ConcurrencyInstrumentor

LOOP = uvloop.new_event_loop


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


every_form = pytest.mark.parametrize("form", FORMS)


@every_form
def test_a_request_that_reads_on_leaves_nothing_to_the_next_one(form, tmp_path, instrument):
    """Each request on a connection begins in the context of the connection, which is none."""
    instrument()
    entered = run(lambda: three_requests(open_as(form, tmp_path, Requests)), LOOP)
    assert entered == {"a": [None], "b": [None], "c": [None]}


@every_form
def test_callbacks_are_in_the_context_of_the_connection(form, tmp_path, instrument):
    """Also when a request has filled the buffer, has read on, or has closed the transport."""
    instrument()
    found = run(lambda: callbacks_after_requests(open_as(form, tmp_path)), LOOP)
    assert {callback for callback, values in found.items() if any(values)} == set()
    assert found["data_received"]
    assert found["connection_lost"] == [None]


@every_form
def test_a_server_accepts_in_no_context(form, tmp_path, instrument):
    """Wherever it was started, a connection is that of whoever opens it."""
    instrument()

    async def main():
        async with open_as(form, tmp_path, started_in="a") as (server, client):
            client.transport.write(b"1")
            await server.called("data_received")
        return server.seen

    found = run(main, LOOP)
    assert set(found) >= {"connection_made", "data_received"}
    assert {value for values in found.values() for value in values} == {None}


def test_a_connection_finds_nothing_that_another_one_has_left(instrument):
    """All of a server's connections have one `contextvars.Context`; each begins in no context."""
    instrument()
    accepted = []

    class Leaves(Recording):
        def __init__(self):
            super().__init__()
            accepted.append(self)

        def data_received(self, data):
            super().data_received(data)
            attach(set_value("request", "left behind"))

    async def main():
        server = await asyncio.get_running_loop().create_server(Leaves, "127.0.0.1", 0)
        for number in range(2):
            _, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            writer.write(b"1")
            while len(accepted) == number:
                await asyncio.sleep(0)
            await accepted[number].called("data_received")
            writer.close()
            await accepted[number].called("connection_lost")
        server.close()

    run(main, LOOP)
    assert [protocol.seen["connection_made"] for protocol in accepted] == [[None], [None]]
    assert [protocol.seen["data_received"] for protocol in accepted] == [[None], [None]]


@pytest.mark.parametrize("how", ["start_serving", "serve_forever"])
def test_a_server_that_starts_later_accepts_in_no_context(how, instrument):
    """Where it was made in one request and starts in another."""
    instrument()
    assert run(lambda: handler_of_a_server_that_starts_later(how), LOOP) is None


@pytest.mark.parametrize("connected", [False, True], ids=["from everybody", "from one"])
def test_datagrams(connected, instrument):
    """A socket that receives from everybody does so in no context; one of a peer in its own."""
    instrument()
    found = run(lambda: datagram_endpoint_of_a_request(connected=connected), LOOP)
    values = {value for values in found.values() for value in values}
    assert values == {"its own" if connected else None}


def test_a_client_stays_in_the_context_that_it_was_made_in(instrument):
    """Whoever uses it later: its callbacks see the request that has opened it."""
    instrument()
    found = run(client_of_a_request, LOOP)
    assert {value for values in found.values() for value in values} == {"its own"}


def test_servers_go_on_when_the_library_is_switched_off(instrument):
    """One that was started before accepts as uvloop does: in the context of whoever started it."""
    instrument()

    async def main():
        async with server_and_client(started_in="a"):
            pass
        loop, accepted = asyncio.get_running_loop(), asyncio.Queue()

        def accept():
            accepted.put_nowait(seen())
            return asyncio.Protocol()

        with request("a"):
            server = await loop.create_server(accept, "127.0.0.1", 0)
        ConcurrencyInstrumentor().uninstrument()
        _, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        found = await accepted.get()
        writer.close()
        server.close()
        return found

    assert run(main, LOOP) == "a"


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


@IN_BOTH_ORDERS
def test_connections_whichever_is_first(first):
    """Uvloop imported before the library is switched on, or after it."""
    program = first.format(module="uvloop") + PROGRAM.replace("LOOP", "uvloop.new_event_loop")
    assert run_program(program.replace("from connections", "import uvloop\nfrom connections")) == (
        EXPECTED
    )
