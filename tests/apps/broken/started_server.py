"""Starts a server inside a span: all of its connections are that span's, without the library."""

import asyncio

from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider

trace.set_tracer_provider(TracerProvider())
tracer = trace.get_tracer("broken")


async def handle(reader, writer):
    """Serve one request."""
    with tracer.start_as_current_span("request"):
        writer.write(await reader.read(1))
    writer.close()


async def main():
    """Connect twice to a server that a span has started."""
    with tracer.start_as_current_span("start-up"):
        server = await asyncio.start_server(handle, "127.0.0.1", 0)  # at fault
    for _ in range(2):
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        writer.write(b"?")
        await reader.readexactly(1)
        writer.close()
    server.close()


asyncio.run(main())
