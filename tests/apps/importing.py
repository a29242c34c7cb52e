"""Switches the library on in a program that has imported none of the modules it patches.

What the library's own dependencies have imported is forgotten first (wrapt 2.5 imports asyncio).
"""

import sys

import wrapt  # noqa: F401
from opentelemetry import baggage, context, trace
from opentelemetry.instrumentation import instrumentor  # noqa: F401

PATCHED_OR_HEAVY = ("asyncio", "concurrent", "multiprocessing", "sched", "subprocess")


def imported():
    """Return the names of those modules that are imported."""
    return {name for name in sys.modules if name.split(".")[0] in PATCHED_OR_HEAVY}


for name in imported():
    del sys.modules[name]

from otel_concurrency import ConcurrencyInstrumentor  # noqa: E402

ConcurrencyInstrumentor().instrument()
by_us = sorted(imported())

import concurrent.futures  # noqa: E402
import sched  # noqa: E402

scheduler = sched.scheduler()
orders = []
token = context.attach(baggage.set_baggage("order", "1042"))
with concurrent.futures.ThreadPoolExecutor(1) as executor:
    orders.append(executor.submit(baggage.get_baggage, "order").result(30))
scheduler.enter(0, 1, lambda: orders.append(baggage.get_baggage("order")))
context.detach(token)
scheduler.run()

with trace.get_tracer("importing").start_as_current_span("report") as span:
    span.set_attribute("imported", by_us)
    span.set_attribute("orders", [str(order) for order in orders])
