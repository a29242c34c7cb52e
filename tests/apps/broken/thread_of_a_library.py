"""Starts a library's own thread inside a request, and makes spans in what that calls."""

import logging.handlers
import queue

from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider

trace.set_tracer_provider(TracerProvider())
tracer = trace.get_tracer("broken")


class Handler(logging.Handler):
    """Makes a span for every record."""

    def emit(self, record):
        """Make it."""
        with tracer.start_as_current_span("emit"):
            pass


records = queue.Queue()
listener = logging.handlers.QueueListener(records, Handler())
with tracer.start_as_current_span("request"):
    listener.start()  # at fault
    records.put(logging.makeLogRecord({"msg": "done"}))
listener.stop()
