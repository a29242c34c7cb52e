"""Serves pipelined requests by uvicorn: each begins inside the one before, without the library."""

import asyncio
import socket

import uvicorn
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider

trace.set_tracer_provider(TracerProvider())
tracer = trace.get_tracer("broken")


async def app(scope, receive, send):
    """Answer in a span."""
    with tracer.start_as_current_span(scope["path"]):
        await receive()
        head = {"type": "http.response.start", "status": 200}
        await send({**head, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body"})  # at fault


async def main():
    """Send three requests at once."""
    listening = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(app, http="h11", lifespan="off", log_config=None, access_log=False)
    server = uvicorn.Server(config)
    serving = asyncio.ensure_future(server.serve([listening]))
    reader, writer = await asyncio.open_connection(*listening.getsockname())
    writer.write(b"".join(b"GET /%d HTTP/1.1\r\nHost: h\r\n\r\n" % n for n in range(3)))
    for _ in range(3):
        await reader.readuntil(b"\r\n\r\n")
    writer.close()
    server.should_exit = True
    await serving


asyncio.run(main())
