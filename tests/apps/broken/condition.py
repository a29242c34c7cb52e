"""Hands work over in a list, and wakes the worker up by a condition."""

import threading

from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider

trace.set_tracer_provider(TracerProvider())
tracer = trace.get_tracer("broken")

jobs = []
there_is_work = threading.Condition()
worker_waits = threading.Event()


def consume():
    """Work on one job after the other."""
    while True:
        with there_is_work:
            while not jobs:
                worker_waits.set()
                there_is_work.wait(30)
            job = jobs.pop(0)
        if job is None:
            return
        with tracer.start_as_current_span(f"job {job}"):
            pass


worker = threading.Thread(target=consume)
worker.start()
worker_waits.wait(30)
for number in range(3):
    with tracer.start_as_current_span("request"), there_is_work:
        jobs.append(number)
        there_is_work.notify()  # at fault
with there_is_work:
    jobs.append(None)
    there_is_work.notify()
worker.join(30)
