"""Starts a thread in the first request, which then serves others and cleans up in its span."""

import queue
import threading

from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider

trace.set_tracer_provider(TracerProvider())
tracer = trace.get_tracer("broken")

jobs = queue.Queue()


def serve():
    """Work on one item after the other, and clean up at the end."""
    while (job := jobs.get()) is not None:
        with tracer.start_as_current_span(f"job {job}"):
            pass
        jobs.task_done()
    with tracer.start_as_current_span("clean up"):
        pass


worker = threading.Thread(target=serve)
for number in range(3):
    with tracer.start_as_current_span("request"):
        if number == 0:
            worker.start()  # at fault
        jobs.put(number)
    jobs.join()
jobs.put(None)
worker.join(30)
