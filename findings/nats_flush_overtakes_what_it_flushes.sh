#!/usr/bin/env bash
# In nats-py, flush() can end before the server has read what was sent ahead of it.
#
# One would guess: `await client.subscribe(...)` and then `await client.flush()` is how a program knows
# that the server has the subscription, and publish() and flush() how it knows that a message has arrived.
# The server answers a PING in the order of what it reads, so the PING has to come last.
# What happens: commands wait for a task that writes them (Client._flusher), but flush() writes its PING
# to the transport itself, at once (Client._send_ping). The server reads PING, answers it, and reads the
# subscription or the message afterwards. A second flush() comes after both.
# Why it matters: another client that publishes as soon as flush() has ended may be quicker than the
# subscription, and its message is lost: some 5 of 100 times with nats-server 2.9.10 on one machine, in
# which a test of this project waited for it in vain.
# Seen with nats-py 2.16.0 on Python 3.13.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"${PYTHON:-python3}" -m venv env
env/bin/python -m pip install --quiet --disable-pip-version-check nats-py==2.16.0

# What stands for a server answers each PING, and notes the commands in the order in which it reads them.
cat >program.py <<'PYTHON'
import asyncio

import nats

INFO = b'INFO {"server_id":"A","version":"2.9.10","proto":1,"max_payload":1048576}\r\n'
commands = []


async def serve(reader, writer):
    writer.write(INFO)
    while line := await reader.readline():
        commands.append(line.split()[0].decode())
        if line.startswith(b"PUB"):
            await reader.readline()
        if line.startswith(b"PING"):
            writer.write(b"PONG\r\n")
    writer.close()


async def main():
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    client = await nats.connect(f"nats://127.0.0.1:{port}")
    for send in (client.subscribe("news"), client.publish("news", b"message")):
        commands.clear()
        await send
        await client.flush()
        await client.flush()
        print(*commands)
    await client.close()


asyncio.run(main())
PYTHON

env/bin/python -c 'import sys; from importlib.metadata import version as v
print("nats-py", v("nats-py"), "Python", sys.version.split()[0])'
found=$(env/bin/python program.py)
echo "$found"
[ "$found" = "PING SUB PING
PING PUB PING" ]
