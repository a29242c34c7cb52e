"""Attaches the context of each item that it works on, and detaches none."""

import concurrent.futures

from opentelemetry import context, trace
from opentelemetry.sdk.trace import TracerProvider

trace.set_tracer_provider(TracerProvider())
tracer = trace.get_tracer("broken")


def work(carried, number):
    """Work in the context that was passed along."""
    context.attach(carried)  # at fault
    with tracer.start_as_current_span(f"work {number}"):
        pass


with concurrent.futures.ThreadPoolExecutor(1) as executor:
    for number in range(3):
        with tracer.start_as_current_span("request"):
            executor.submit(work, context.get_current(), number)
    with tracer.start_as_current_span("last request"):
        executor.submit(tracer.start_span, "unrelated").result(30).end()
