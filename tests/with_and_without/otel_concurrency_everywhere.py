"""Switches the library on in every interpreter that an environment's site module starts.

``MODE`` is written above this line of the copy that is put into the environment.
"""

from __future__ import annotations


def start(mode):
    """Make this interpreter what ``mode`` says: ``sdk``, ``none``, ``span`` or ``link``."""
    if mode != "sdk":
        from otel_concurrency import ConcurrencyInstrumentor

        policy = "link" if mode == "link" else "parent"
        ConcurrencyInstrumentor().instrument(policy=policy, **OPT_IN)
    if mode != "none":
        from opentelemetry import baggage, context, trace
        from opentelemetry.sdk.trace import TracerProvider

        trace.set_tracer_provider(TracerProvider(shutdown_on_exit=False))
        span = trace.get_tracer(__name__).start_span("root of the tests")
        context.attach(baggage.set_baggage("tenant", "acme", trace.set_span_in_context(span)))


OPT_IN = {"subprocess": "parent"}
"""What is off by default, and on here."""
