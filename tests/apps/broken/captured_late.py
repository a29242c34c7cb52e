"""Captures the context in the worker, and not where it hands the work off."""

import concurrent.futures

from opentelemetry import context, trace
from opentelemetry.sdk.trace import TracerProvider

trace.set_tracer_provider(TracerProvider())
tracer = trace.get_tracer("broken")


def work(name):
    """Work in the context of the request, or so it was meant."""
    captured = context.get_current()  # at fault
    with tracer.start_as_current_span(name, context=captured):
        pass


with concurrent.futures.ThreadPoolExecutor(1) as executor, tracer.start_as_current_span("request"):
    executor.submit(work, "work").result(30)
