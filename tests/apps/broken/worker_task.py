"""Starts a task in the first request, which then serves others and cleans up in its span."""

import asyncio

from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider

trace.set_tracer_provider(TracerProvider())
tracer = trace.get_tracer("broken")


async def serve(jobs):
    """Work on one item after the other, and clean up at the end."""
    while (job := await jobs.get()) is not None:
        with tracer.start_as_current_span(f"job {job}"):
            pass
        jobs.task_done()
    with tracer.start_as_current_span("clean up"):
        pass


async def main():
    """Serve three requests."""
    jobs = asyncio.Queue()
    worker = None
    for number in range(3):
        with tracer.start_as_current_span("request"):
            if worker is None:
                worker = asyncio.create_task(serve(jobs))  # at fault
            jobs.put_nowait(number)
        await jobs.join()
    jobs.put_nowait(None)
    await worker


asyncio.run(main())
