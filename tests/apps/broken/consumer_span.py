"""Consumes items inside a span of the consumer's own."""

import queue
import threading

from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider

trace.set_tracer_provider(TracerProvider())
tracer = trace.get_tracer("broken")

jobs = queue.Queue()


def consume():
    """Work on one item after the other."""
    with tracer.start_as_current_span("consumer"):  # at fault
        while (job := jobs.get()) is not None:
            with tracer.start_as_current_span(f"job {job}"):
                pass


worker = threading.Thread(target=consume)
worker.start()
for number in range(3):
    with tracer.start_as_current_span("request"):
        jobs.put(number)
jobs.put(None)
worker.join(30)
