"""Forks a child that leaves with its spans still in the batch processor."""

import os

from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

provider = TracerProvider()
provider.add_span_processor(BatchSpanProcessor(InMemorySpanExporter()))
trace.set_tracer_provider(provider)
tracer = trace.get_tracer("broken")

with tracer.start_as_current_span("request"):
    child = os.fork()
    if child == 0:
        with tracer.start_as_current_span("work of the child"):
            pass
        os._exit(0)  # at fault
    os.waitpid(child, 0)
