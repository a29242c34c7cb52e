"""Reads on inside a request, in whose context all later ones of the connection then begin."""

import asyncio

from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider

trace.set_tracer_provider(TracerProvider())
tracer = trace.get_tracer("broken")


class Protocol(asyncio.Protocol):
    """Serves each byte as a request, in a span, while reading is paused."""

    def connection_made(self, transport):
        """Keep the transport."""
        self.transport = transport

    def data_received(self, data):
        """Begin a request."""
        self.transport.pause_reading()
        self.task = asyncio.get_running_loop().create_task(self.serve())

    async def serve(self):
        """Serve it."""
        with tracer.start_as_current_span("request"):
            self.transport.resume_reading()  # at fault
            await asyncio.sleep(0)
        self.transport.write(b"!")


async def main():
    """Send three requests over one connection."""
    server = await asyncio.get_running_loop().create_server(Protocol, "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    for _ in range(3):
        writer.write(b"?")
        await reader.readexactly(1)
    writer.close()
    server.close()


asyncio.run(main())
