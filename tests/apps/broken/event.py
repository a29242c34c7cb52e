"""Hands work over in a list, and wakes the worker up by an event."""

import threading

from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider

trace.set_tracer_provider(TracerProvider())
tracer = trace.get_tracer("broken")

jobs = []
there_is_work = threading.Event()
worked = threading.Semaphore(0)


def consume():
    """Work on what there is, each time that there is some."""
    while True:
        there_is_work.wait(30)
        there_is_work.clear()
        while jobs:
            job = jobs.pop(0)
            if job is None:
                return
            with tracer.start_as_current_span(f"job {job}"):
                pass
            worked.release()


worker = threading.Thread(target=consume)
worker.start()
for number in range(3):
    with tracer.start_as_current_span("request"):
        jobs.append(number)
        there_is_work.set()  # at fault
    worked.acquire(timeout=30)
jobs.append(None)
there_is_work.set()
worker.join(30)
