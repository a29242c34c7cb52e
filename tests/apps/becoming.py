"""Becomes another program, itself, after it has handed work off."""

import os
import sys
from concurrent.futures import ThreadPoolExecutor

from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider

trace.set_tracer_provider(TracerProvider())
tracer = trace.get_tracer("becoming")
again = sys.argv[1:]


def work():
    """Make a span."""
    with tracer.start_as_current_span("work again" if again else "work"):
        pass


with ThreadPoolExecutor(1) as executor, tracer.start_as_current_span("request"):
    executor.submit(work).result(30)
if not again:
    os.execv(sys.executable, [sys.executable, __file__, "again"])
