"""Leaves a process with one span that was not exported, beside others that were: `way` is how."""

import os
import sys

from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import (
    BatchSpanProcessor,
    SimpleSpanProcessor,
    SpanExporter,
    SpanExportResult,
)

way = sys.argv[1]
tracer = trace.get_tracer("exporting")


class Exporter(SpanExporter):
    """Takes spans."""

    def export(self, spans):
        """Take them."""
        return SpanExportResult.SUCCESS


class Derived(Exporter):
    """Leaves it to its base."""

    def export(self, spans):
        """Take them."""
        return super().export(spans)


class Several(SpanExporter):
    """Leaves it to several others."""

    def export(self, spans):
        """Have them taken."""
        for each in (Exporter(), Derived()):
            each.export(spans)
        return SpanExportResult.SUCCESS


class Replaced(SpanExporter):
    """Has a method of this one object that takes spans."""

    def __init__(self):
        """Replace the method."""
        self.export = lambda spans: SpanExportResult.SUCCESS


shared = Exporter()
PROCESSORS = {
    "simple": lambda: (BatchSpanProcessor(Exporter()), SimpleSpanProcessor(Exporter())),
    "same": lambda: (BatchSpanProcessor(shared), SimpleSpanProcessor(shared)),
    "batch": lambda: (BatchSpanProcessor(Exporter()), BatchSpanProcessor(Exporter())),
    "derived": lambda: (BatchSpanProcessor(Derived()), BatchSpanProcessor(Derived())),
    "several": lambda: (BatchSpanProcessor(Several()),),
    "replaced": lambda: (BatchSpanProcessor(Replaced()),),
    "exec": lambda: (BatchSpanProcessor(Exporter()),),
}


def work():
    """Make a span."""
    with tracer.start_as_current_span("work"):
        pass


if way != "become":
    provider = TracerProvider()
    for processor in PROCESSORS[way]():
        provider.add_span_processor(processor)
    trace.set_tracer_provider(provider)
    for _ in range(3):
        work()
    if os.fork() == 0:
        work()
        provider.force_flush()
        if way == "replaced":
            os._exit(0)
        work()
        if way == "exec":
            os.execv(sys.executable, [sys.executable, __file__, "become"])
        os._exit(0)
    os.wait()
