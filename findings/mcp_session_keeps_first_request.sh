#!/usr/bin/env bash
# In MCP 1.x over HTTP, every call of a session runs in the context of the request that opened it.
#
# One would guess: a tool is called in the context of the HTTP request that calls it, so a context
# variable that a middleware sets for each request (OpenTelemetry's current span is one) is that
# request's in the tool.
# What happens: the first request of a session starts one task that serves the session
# (StreamableHTTPSessionManager._handle_stateful_request, run_server), and requests reach it as items of
# a memory stream. Each call gets a task started by that one (Server.run), with a copy of its context: of
# the request "initialize", for as long as the session lives.
# Why it matters: with an instrumented ASGI application all calls of a client, hours later too, are
# children of the request that opened its session, and have its baggage. MCP 2 sends the context with
# each message.
# Seen with mcp 1.30.0, uvicorn 0.40.0 on Python 3.13.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"${PYTHON:-python3}" -m venv env
env/bin/python -m pip install --quiet --disable-pip-version-check mcp==1.30.0 uvicorn==0.40.0

cat >program.py <<'PYTHON'
import asyncio
import contextvars
import itertools
import socket
import threading

import uvicorn
from mcp import ClientSession
from mcp.client.streamable_http import streamable_http_client
from mcp.server.fastmcp import FastMCP

variable = contextvars.ContextVar("variable", default="no request")
server = FastMCP("server", json_response=True, log_level="CRITICAL")


@server.tool()
async def which() -> str:
    return variable.get()


def numbered(application):
    numbers = itertools.count(1)

    async def middleware(scope, receive, send):
        if scope["type"] == "http" and scope["method"] == "POST":
            variable.set(f"request {next(numbers)}")
        await application(scope, receive, send)

    return middleware


async def use(port):
    async with (
        streamable_http_client(f"http://127.0.0.1:{port}/mcp") as (reading, writing, _),
        ClientSession(reading, writing) as client,
    ):
        await client.initialize()
        for number in (1, 2):
            result = await client.call_tool("which", {})
            print(f"call {number} finds {result.content[0].text}")


listening = socket.create_server(("127.0.0.1", 0))
web = uvicorn.Server(uvicorn.Config(numbered(server.streamable_http_app()), log_level="error"))
thread = threading.Thread(target=web.run, kwargs={"sockets": [listening]})
thread.start()
asyncio.run(use(listening.getsockname()[1]))
web.should_exit = True
thread.join()
PYTHON

env/bin/python -c 'import sys; from importlib.metadata import version as v
print("mcp", v("mcp"), "uvicorn", v("uvicorn"), "Python", sys.version.split()[0])'
found=$(env/bin/python program.py)
echo "$found"
[ "$found" = "call 1 finds request 1
call 2 finds request 1" ] # "initialize" was request 1
