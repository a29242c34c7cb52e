"""Web applications under uvicorn, each on a port of loopback, and clients that may go away."""

from __future__ import annotations

import contextlib
import http.client
import socket
import threading

import uvicorn
from suite import WAIT


@contextlib.contextmanager
def serving(app, **options):
    """Have uvicorn serve ``app`` from a thread of its own; yield its address."""
    listening = socket.create_server(("127.0.0.1", 0), backlog=128)
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False, **options))
    thread = threading.Thread(target=server.run, args=([listening],))
    thread.start()
    try:
        yield listening.getsockname()
    finally:
        server.should_exit = True
        thread.join(WAIT)
        listening.close()
    assert not thread.is_alive()


@contextlib.contextmanager
def client(address):
    """Yield one connection to the server, which is kept alive from request to request."""
    connection = http.client.HTTPConnection(*address, timeout=WAIT)
    try:
        yield connection
    finally:
        connection.close()


def get(connection, path):
    """Ask for ``path`` and return the whole answer's lines."""
    connection.request("GET", path)
    answer = connection.getresponse()
    lines = answer.read().decode().splitlines()
    assert answer.status == 200, lines
    return lines


def go_away(connection, path, lines):
    """Ask for ``path``, read that many lines of the answer, and hang up in the middle of it."""
    connection.request("GET", path)
    with connection.getresponse() as answer:
        read = [answer.readline() for _ in range(lines)]
        connection.close()
    return read
