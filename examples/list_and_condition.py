"""Jobs in a list beside a condition: the hand-off goes into the list with its job."""

from __future__ import annotations

import threading
from collections import deque

from opentelemetry import trace

from otel_concurrency import HandOff, capture

tracer = trace.get_tracer("example")

jobs: deque[tuple[HandOff, str] | None] = deque()
changed = threading.Condition()


def worker() -> None:
    """Print what there is to print, until there is None."""
    while True:
        with changed:
            changed.wait_for(lambda: jobs)
            job = jobs.popleft()
        if job is None:
            return
        handoff, name = job
        with handoff, tracer.start_as_current_span(f"print {name}"):
            pass


def enqueue(job: tuple[HandOff, str] | None) -> None:
    """Give the worker something to do."""
    with changed:
        jobs.append(job)
        changed.notify()


def main() -> None:
    """Handle two orders, each with something to print."""
    thread = threading.Thread(target=worker)
    thread.start()
    for name in ("label", "invoice"):
        with tracer.start_as_current_span(f"order {name}"):
            enqueue((capture(), name))
    enqueue(None)
    thread.join()


if __name__ == "__main__":
    main()
