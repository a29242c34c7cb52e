"""Makes a span, and starts itself again, as a child that inherits its environment.

Argument: how many generations are to follow.
"""

import subprocess
import sys

import everywhere  # noqa: F401 - it is under a command that may let go of its children
from opentelemetry import baggage, context, trace

generation = int(sys.argv[1])
with trace.get_tracer("starting").start_as_current_span(f"generation {generation}") as span:
    span.set_attribute("order", str(baggage.get_baggage("order")))
    if baggage.get_baggage("order") is None:
        context.attach(baggage.set_baggage("order", "1042"))
    if generation:
        subprocess.run([*sys.orig_argv[:-1], str(generation - 1)], check=True)
