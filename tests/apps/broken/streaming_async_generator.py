"""Streams from an async generator that holds a span over its yield: see its consumer."""

import asyncio

from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider

trace.set_tracer_provider(TracerProvider())
tracer = trace.get_tracer("broken")


async def stream():
    """Return rows."""
    with tracer.start_as_current_span("stream"):  # at fault
        for row in range(2):
            await asyncio.sleep(0)
            with tracer.start_as_current_span("fetch"):
                pass
            yield row


async def main():
    """Handle each row in a span."""
    with tracer.start_as_current_span("request"):
        async for _ in stream():
            with tracer.start_as_current_span("handle"):
                pass


asyncio.run(main())
