"""Connections of an event loop, and the contexts that their callbacks run in: for any kind of loop.

Contexts are told apart by one value, ``request``; :func:`seen` returns it, or None.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from pathlib import Path

from opentelemetry import context

PROGRAM = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from connections import *
def main():
    return three_requests(open_as("tcp", None, Requests, started_in="starter"))
print(run(main, LOOP))
"""
"""For a process of its own, in which it can be seen whether it matters what is imported first."""

EXPECTED = "{'a': [None], 'b': [None], 'c': [None]}\n"
"""What it prints."""

WAIT = 10
"""Seconds after which something that is waited for will not happen any more."""


def seen():
    """Return which request's context is the current one."""
    return context.get_value("request")


@contextlib.contextmanager
def request(name):
    """Have the context of a request current."""
    token = context.attach(context.set_value("request", name, context.Context()))
    try:
        yield
    finally:
        context.detach(token)


def run(main, new_event_loop=asyncio.new_event_loop):
    """Run a coroutine function in a loop of its own, with a time limit."""
    loop = new_event_loop()
    try:
        return loop.run_until_complete(asyncio.wait_for(main(), WAIT))
    finally:
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()


def tls(purpose):
    """Return settings for TLS without certificates: nobody is to be sure of who that is."""
    settings = ssl.SSLContext(purpose)
    settings.check_hostname = False
    settings.verify_mode = ssl.CERT_NONE
    settings.maximum_version = ssl.TLSVersion.TLSv1_2
    settings.set_ciphers("aNULL:@SECLEVEL=0")
    return settings


class Recording(asyncio.Protocol):
    """Notes the context of each of its callbacks."""

    def __init__(self):
        self.seen = {}
        self.received = b""
        self._changed = asyncio.Event()

    def _see(self, callback):
        self.seen.setdefault(callback, []).append(seen())
        self._changed.set()

    async def until(self, condition):
        """Wait until a condition holds, which is asked again after each callback."""
        while not condition():
            self._changed.clear()
            await self._changed.wait()

    async def called(self, callback, times=1):
        """Wait until a callback has been called that often; return what it has seen."""
        await self.until(lambda: len(self.seen.get(callback, ())) >= times)
        return self.seen[callback]

    def connection_made(self, transport):
        self.transport = transport
        self._see("connection_made")

    def data_received(self, data):
        self.received += data
        self._see("data_received")

    def eof_received(self):
        self._see("eof_received")

    def pause_writing(self):
        self._see("pause_writing")

    def resume_writing(self):
        self._see("resume_writing")

    def connection_lost(self, error):
        self._see("connection_lost")

    def datagram_received(self, data, address):
        self.received += data
        self._see("datagram_received")


class Requests(Recording):
    """Serves each byte as a request, in a task that lets the next one in while it is current."""

    def data_received(self, data):
        super().data_received(data)
        self.transport.pause_reading()
        self.serving = asyncio.get_running_loop().create_task(self._serve(data.decode()))

    async def _serve(self, name):
        self._see(name)
        self.transport.write(b"!")
        await several_turns()  # in which the next one arrives, and has to wait
        with request(name):
            self.transport.resume_reading()


async def several_turns():
    """Let the loop do all that it can do at present."""
    for _ in range(20):
        await asyncio.sleep(0)


@contextlib.asynccontextmanager
async def server_and_client(make=Recording, *, path=None, over_tls=False, started_in=None):
    """Yield both ends of a connection, as protocols; the client is made in no context."""
    loop = asyncio.get_running_loop()
    accepted = loop.create_future()

    def accept():
        protocol = make()
        accepted.set_result(protocol)
        return protocol

    theirs = {"ssl": tls(ssl.PROTOCOL_TLS_CLIENT)} if over_tls else {}
    ours = {"ssl": tls(ssl.PROTOCOL_TLS_SERVER)} if over_tls else {}
    with request(started_in) if started_in else contextlib.nullcontext():
        if path is None:
            server = await loop.create_server(accept, "127.0.0.1", 0, **ours)
        else:
            server = await loop.create_unix_server(accept, str(path), **ours)
    if path is None:
        address = server.sockets[0].getsockname()[:2]
        _, client = await loop.create_connection(Recording, *address, **theirs)
    else:
        names = {"server_hostname": ""} if over_tls else {}
        _, client = await loop.create_unix_connection(Recording, str(path), **theirs, **names)
    try:
        yield await accepted, client
    finally:
        client.transport.abort()
        (await accepted).transport.abort()
        await client.called("connection_lost")
        await (await accepted).called("connection_lost")
        server.close()


FORMS = ("tcp", "unix", "tls")
"""How a stream may come to be; each is a way in which :func:`open_as` opens one."""


def open_as(form, directory, make=Recording, **given):
    """Return :func:`server_and_client` over one of :data:`FORMS`."""
    if form == "unix":
        given["path"] = directory / "socket"
    return server_and_client(make, over_tls=form == "tls", **given)


async def three_requests(opened):
    """Return what three requests on one connection begin in, by their names."""
    async with opened as (server, client):
        for number, name in enumerate(("a", "b", "c")):
            await client.until(lambda answers=number: len(client.received) == answers)
            client.transport.write(name.encode())
        await server.called("c")
        await server.serving
        return {name: server.seen[name] for name in "abc"}


async def callbacks_after_requests(opened):
    """Return what a server's callbacks see after requests have written, read on, and closed.

    Not those that are called by the request itself, in the middle of what it does.
    """
    async with opened as (server, client):
        client.transport.pause_reading()
        await server.called("connection_made")
        with request("a"):
            while "pause_writing" not in server.seen:
                server.transport.write(bytes(1 << 20))
        del server.seen["pause_writing"]
        client.transport.resume_reading()
        await server.called("resume_writing")
        with request("b"):
            server.transport.pause_reading()
            server.transport.resume_reading()
        client.transport.write(b"1")
        await server.called("data_received")
        with request("c"):
            server.transport.close()
        await server.called("connection_lost")
        return server.seen


async def datagram_endpoint_of_a_request(*, connected):
    """Return what the callbacks see of a datagram socket that a request has made."""
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
        peer.bind(("127.0.0.1", 0))
        given = {"remote_addr": peer.getsockname()} if connected else {}
        with request("its own"):
            transport, protocol = await loop.create_datagram_endpoint(
                Recording, ("127.0.0.1", 0), **given
            )
        peer.sendto(b"1", transport.get_extra_info("sockname"))
        await protocol.called("datagram_received")
        transport.abort()
        await protocol.called("connection_lost")
    return protocol.seen


async def handler_of_a_server_that_starts_later(how):
    """Return what a handler sees of a server that one request has made, and another started."""
    handled = asyncio.get_running_loop().create_future()

    async def handle(reader, writer):
        handled.set_result(seen())
        writer.close()

    with request("a"):
        server = await asyncio.start_server(handle, "127.0.0.1", 0, start_serving=False)
    with request("b"):
        serving = asyncio.ensure_future(getattr(server, how)())
        await asyncio.sleep(0)
    _, writer = await asyncio.open_connection(*server.sockets[0].getsockname()[:2])
    result = await handled
    writer.close()
    await asyncio.sleep(0)
    serving.cancel()
    await asyncio.gather(serving, return_exceptions=True)
    server.close()
    return result


async def client_of_a_request():
    """Return what the callbacks of a client see that one request has made, and another used."""
    loop = asyncio.get_running_loop()
    here, there = socket.socketpair()
    with there:
        with request("its own"):
            transport, client = await loop.create_connection(Recording, sock=here)
        with request("another"):
            transport.pause_reading()
            transport.resume_reading()
        there.send(b"1")
        await client.called("data_received")
        with request("another"):
            transport.abort()
        await client.called("connection_lost")
    return client.seen
