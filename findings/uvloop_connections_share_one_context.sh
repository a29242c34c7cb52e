#!/usr/bin/env bash
# All connections that one uvloop server accepts run in one and the same contextvars.Context.
#
# One would guess: each connection has a copy of the context that the server was started in, as under
# asyncio, so what a protocol's callback sets in a context variable stays with its connection.
# What happens: the first time the server listens it takes one copy of the context
# (uvloop.loop.UVStreamServer.listen), calls the protocol factory in it, and hands that very object to
# the transport of every connection (UVStreamServer._on_listen, UVBaseTransport.context). What one
# connection sets in connection_made or data_received, all others find there, those too that are open
# already; tasks that their callbacks start copy it. asyncio keeps connections apart.
# Why it matters: a protocol that attaches a context (OpenTelemetry's is one variable) for a request and
# detaches it in a later callback puts every request of the process into that request's trace and baggage
# meanwhile. A context that was left attached is there for good, and only under uvloop.
# Seen with uvloop 0.23.0 on Python 3.13; asyncio of the same Python beside it.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"${PYTHON:-python3}" -m venv env
env/bin/python -m pip install --quiet --disable-pip-version-check uvloop==0.23.0

cat >program.py <<'PYTHON'
import asyncio
import contextvars
import sys

import uvloop

variable = contextvars.ContextVar("variable", default="nothing")
found = {}


class Protocol(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        found[data.decode()] = variable.get()
        variable.set(f"set by {data.decode()}")
        self.transport.write(b"!")


async def main():
    server = await asyncio.get_running_loop().create_server(Protocol, "127.0.0.1", 0)
    address = server.sockets[0].getsockname()
    clients = [await asyncio.open_connection(*address) for _ in range(2)]
    for (reader, writer), name in zip(clients, ("one", "two")):
        writer.write(name.encode())
        await reader.readexactly(1)
    for _, writer in clients:
        writer.close()
    server.close()


(uvloop.run if sys.argv[1] == "uvloop" else asyncio.run)(main())
print(f"connection two finds {found['two']}")
PYTHON

env/bin/python -c 'import sys, uvloop; print("uvloop", uvloop.__version__, "Python", sys.version.split()[0])'
under_uvloop=$(env/bin/python program.py uvloop)
under_asyncio=$(env/bin/python program.py asyncio)
echo "under uvloop:  $under_uvloop"
echo "under asyncio: $under_asyncio"
[ "$under_uvloop" = "connection two finds set by one" ] &&
    [ "$under_asyncio" = "connection two finds nothing" ]
