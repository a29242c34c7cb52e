"""What is expected of connections: a transport's callbacks belong to nobody who uses it later.

The same is expected of uvloop's, in ``tests/adapters``.
"""

from __future__ import annotations

import asyncio
import gc
import os
import socket
import socketserver
import subprocess
import sys
import threading

import pytest
from opentelemetry import context

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
    three_requests,
)
from interpreters import weak_reference

every_form = pytest.mark.parametrize("form", FORMS)


@every_form
def test_a_request_that_reads_on_leaves_nothing_to_the_next_one(form, tmp_path, instrumented):
    """Each request on a connection begins in the context of the connection, which is none."""
    entered = run(lambda: three_requests(open_as(form, tmp_path, Requests)))
    assert entered == {"a": [None], "b": [None], "c": [None]}


ON = "from otel_concurrency import ConcurrencyInstrumentor as I; I().instrument()"


@pytest.mark.parametrize(
    "first", [f"import asyncio; {ON}", ON], ids=["imported first", "instrumented first"]
)
def test_it_does_not_matter_which_is_first(first):
    """Asyncio imported before the library is switched on, or after it."""
    program = first + PROGRAM.replace("LOOP", "asyncio.new_event_loop")
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.stdout, done.stderr) == (EXPECTED, "")


@every_form
def test_callbacks_are_in_the_context_of_the_connection(form, tmp_path, instrumented):
    """After a request has filled the buffer, has read on or has closed the transport, too."""
    found = run(lambda: callbacks_after_requests(open_as(form, tmp_path)))
    assert {callback for callback, values in found.items() if any(values)} == set()
    assert found["resume_writing"]
    assert found["data_received"]
    assert found["connection_lost"] == [None]


def test_a_client_stays_in_the_context_that_it_was_made_in(instrumented):
    """Whoever uses it later: its callbacks see the request that has opened it."""
    found = run(client_of_a_request)
    assert {value for values in found.values() for value in values} == {"its own"}


@every_form
def test_a_server_accepts_in_no_context(form, tmp_path, instrumented):
    """Wherever it was started, a connection is that of whoever opens it."""

    async def main():
        async with open_as(form, tmp_path, started_in="a") as (server, client):
            client.transport.write(b"1")
            await server.called("data_received")
            await client.called("connection_made")
            return server.seen

    found = run(main)
    assert set(found) >= {"connection_made", "data_received"}
    assert {value for values in found.values() for value in values} == {None}


@pytest.mark.parametrize("how", ["start_serving", "serve_forever"])
def test_a_server_that_starts_later_accepts_in_no_context(how, instrumented):
    """Where it was made in one request and starts in another."""
    assert run(lambda: handler_of_a_server_that_starts_later(how)) is None


@pytest.mark.parametrize("connected", [False, True], ids=["from everybody", "from one"])
def test_datagrams(connected, instrumented):
    """A socket that receives from everybody does so in no context; one of a peer in its own."""
    found = run(lambda: datagram_endpoint_of_a_request(connected=connected))
    values = {value for values in found.values() for value in values}
    assert values == {"its own" if connected else None}


@pytest.mark.skipif(sys.platform == "win32", reason="pipes are read by selectors")
def test_a_pipe_stays_in_the_context_that_it_was_opened_in(instrumented):
    """What is read from it, and its end, after another request has paused it and gone on."""

    async def main():
        loop = asyncio.get_running_loop()
        read, write = os.pipe()
        with request("its own"):
            transport, protocol = await loop.connect_read_pipe(Recording, os.fdopen(read, "rb", 0))
            writing, writer = await loop.connect_write_pipe(Recording, os.fdopen(write, "wb", 0))
        with request("another"):
            transport.pause_reading()
            transport.resume_reading()
            writing.write(b"1")
        await protocol.called("data_received")
        with request("another"):
            writing.close()
            transport.close()
        await protocol.called("connection_lost")
        await writer.called("connection_lost")
        return protocol.seen, writer.seen

    for found in run(main):
        assert {value for values in found.values() for value in values} == {"its own"}
        assert "connection_lost" in found


def test_a_server_that_serves_in_its_starters_thread_does_so_in_no_context(instrumented):
    """A request of `socketserver` belongs to its sender; the starter goes on where it was."""
    found = []

    class Handler(socketserver.BaseRequestHandler):
        def handle(self):
            found.append(seen())
            threading.Thread(target=self.server.shutdown).start()

    with socketserver.TCPServer(("127.0.0.1", 0), Handler) as server:
        client = socket.create_connection(server.server_address)
        with request("a"):
            server.serve_forever(poll_interval=0.01)
            found.append(seen())
        client.close()
    assert found == [None, "a"]


@pytest.mark.skipif(sys.version_info >= (3, 15), reason="a transport itself keeps its context")
def test_a_closed_transport_keeps_no_context(instrumented, tracer):
    """Whoever keeps the transport, and its protocol, keeps no span of the request that made it."""

    async def main():
        here, there = socket.socketpair()
        with there, tracer.start_as_current_span("request") as span:
            kept = await asyncio.get_running_loop().create_connection(Recording, sock=here)
        reference = weak_reference(span)
        transport, protocol = kept
        transport.pause_reading()
        transport.resume_reading()
        transport.abort()
        del span
        await protocol.called("connection_lost")
        return kept, reference

    kept, reference = run(main)
    gc.collect()
    assert reference() is None
    assert kept


def test_connections_go_on_when_the_library_is_switched_off(instrumented):
    """A transport that was made in a request before works as before, as asyncio has it then."""

    async def main():
        here, there = socket.socketpair()
        with there:
            with request("its own"):
                transport, protocol = await asyncio.get_running_loop().create_connection(
                    Recording, sock=here
                )
            instrumented.uninstrument()
            transport.pause_reading()
            transport.resume_reading()
            there.send(b"1")
            await protocol.called("data_received")
            transport.abort()
            await protocol.called("connection_lost")
            return protocol.received

    assert run(main) == b"1"


def test_a_transport_from_before_the_library_was_switched_on(instrument):
    """Nobody knows what it was made in: later requests find nothing there."""

    async def main():
        here, there = socket.socketpair()
        with there:
            transport, protocol = await asyncio.get_running_loop().create_connection(
                Recording, sock=here
            )
            instrument()
            with request("a"):
                transport.pause_reading()
                transport.resume_reading()
            there.send(b"1")
            found = await protocol.called("data_received")
            transport.abort()
            await protocol.called("connection_lost")
            return found

    assert run(main) == [None]


def test_what_the_protocol_raises_is_reported_by_the_loop(instrumented):
    """An exception in `connection_lost` reaches the loop's handler, and the socket is closed."""

    class Raises(Recording):
        def connection_lost(self, error):
            super().connection_lost(error)
            raise ValueError("from the protocol")

    async def main():
        caught = []
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, details: caught.append(details["exception"]))
        here, there = socket.socketpair()
        with there:
            transport, protocol = await loop.create_connection(Raises, sock=here)
            with request("a"):
                transport.abort()
            await protocol.called("connection_lost")
            await asyncio.sleep(0)
            there.settimeout(10)
            return caught, there.recv(1)

    (error,), rest = run(main)
    assert str(error) == "from the protocol"
    assert rest == b""
    assert not context.get_current()


def test_off_is_off(instrument):
    """With ASYNCIO off, asyncio's own way is kept."""
    instrument(asyncio="off")

    async def main():
        here, there = socket.socketpair()
        with there:
            transport, protocol = await asyncio.get_running_loop().create_connection(
                Recording, sock=here
            )
            with request("a"):
                transport.abort()
            return await protocol.called("connection_lost")

    assert run(main) == ([None] if sys.version_info >= (3, 15) else ["a"])
