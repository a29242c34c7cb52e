"""Starts a thread by `_thread`, without the library."""

import _thread
import threading

from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider

trace.set_tracer_provider(TracerProvider())
tracer = trace.get_tracer("broken")

done = threading.Event()


def poll():
    """Work that belongs to the request."""
    with tracer.start_as_current_span("poll"):
        pass
    done.set()


with tracer.start_as_current_span("request"):
    _thread.start_new_thread(poll, ())  # at fault
done.wait(30)
