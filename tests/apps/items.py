"""Hands items over by every queue of the standard library that stays in its process."""

import asyncio
import queue
import threading

from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider

trace.set_tracer_provider(TracerProvider())
tracer = trace.get_tracer("items")


def consume(jobs):
    """Make a span for each item."""
    while (job := jobs.get()) is not None:
        with tracer.start_as_current_span(job):
            pass


def through(jobs, name):
    """Hand an item over."""
    worker = threading.Thread(target=consume, args=(jobs,))
    worker.start()
    for number in range(2):
        with tracer.start_as_current_span(f"request of {name} {number}"):
            jobs.put(f"{name} {number}")
    jobs.put(None)
    worker.join(30)


async def through_asyncio():
    """Hand an item over from task to task."""
    jobs = asyncio.Queue()

    async def consume():
        while (job := await jobs.get()) is not None:
            with tracer.start_as_current_span(job):
                pass

    consumer = asyncio.create_task(consume())
    for number in range(2):
        with tracer.start_as_current_span(f"request of asyncio.Queue {number}"):
            await jobs.put(f"asyncio.Queue {number}")
    await jobs.put(None)
    await consumer


through(queue.Queue(), "Queue")
through(queue.SimpleQueue(), "SimpleQueue")
asyncio.run(through_asyncio())
