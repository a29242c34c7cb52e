"""Runs one block of a page as a program: ``run_block.py FILE [library] [span]``.

The block finds a tracer of the SDK under the name `tracer`, unless it makes a provider itself. With
`library` the library is on, with `span` a span and baggage are current. It must end, log nothing
and leave nothing attached.
"""

from __future__ import annotations

import logging
import runpy
import sys
from pathlib import Path

from opentelemetry import baggage, context, trace
from opentelemetry.sdk.trace import TracerProvider


def main():
    """Run the block in the file that the command line names."""
    file, *how = sys.argv[1:]
    code = Path(file).read_text(encoding="utf-8")
    logged = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = logged.append
    logging.getLogger().addHandler(handler)
    if "TracerProvider()" not in code:
        trace.set_tracer_provider(TracerProvider())
    if "library" in how:
        from otel_concurrency import ConcurrencyInstrumentor

        ConcurrencyInstrumentor().instrument()
    tracer = trace.get_tracer("docs")
    if "span" in how:
        context.attach(baggage.set_baggage("tenant", "acme"))
        context.attach(trace.set_span_in_context(tracer.start_span("request")))
    before = context.get_current()
    runpy.run_path(file, {"tracer": tracer}, "__main__")
    # A consumer on the main thread rests in the context of its last item, as the page says.
    if how != ["library"]:
        assert context.get_current() is before, "a context was left attached"
    assert not logged, [record.getMessage() for record in logged]


if __name__ == "__main__":
    main()
