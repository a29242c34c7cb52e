"""A worker that gets its jobs out of a list, each handed off by hand in a request of its own."""

import collections
import sys
import threading

from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider

from otel_concurrency import capture

trace.set_tracer_provider(TracerProvider())
tracer = trace.get_tracer(__name__)
jobs, changed = collections.deque(), threading.Condition()


def work():
    """Do three jobs."""
    for _ in range(3):
        with changed:
            changed.wait_for(lambda: jobs)
            handoff, done = jobs.popleft()
        handoff.run(job)
        done.set()


def job():
    """Do one job."""
    with tracer.start_as_current_span("job"):
        pass


worker = threading.Thread(target=work)
if sys.argv[1] == "before any span":
    worker.start()
for _ in range(3):
    with tracer.start_as_current_span("request"):
        if worker.ident is None:
            worker.start()
        finished = threading.Event()
        with changed:
            jobs.append((capture(), finished))
            changed.notify()
        finished.wait()
worker.join()
