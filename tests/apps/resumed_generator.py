"""Reads a generator that holds a span in another thread than the one that has started it."""

import threading

from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider

trace.set_tracer_provider(TracerProvider())
tracer = trace.get_tracer("resumed")


def stream():
    """Return rows."""
    with tracer.start_as_current_span("stream"):  # started
        for _ in range(4):
            with tracer.start_as_current_span("fetch"):
                pass
            yield


def read():
    """Read two more rows, and look at each of them."""
    for _ in range(2):
        next(rows)  # resumed
        with tracer.start_as_current_span("look"):
            pass


with tracer.start_as_current_span("request"):
    rows = stream()
    next(rows)
    reader = threading.Thread(target=read, name="reader")
    reader.start()
    reader.join()
    next(rows)
    rows.close()
