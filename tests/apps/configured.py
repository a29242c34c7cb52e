"""Hands work to processes in several ways, inside a span with baggage; prints what the work saw.

The SDK is configured by a file: by ``opentelemetry-instrument``, or here, before or after the
library is switched on.
"""

import json
import multiprocessing
import os
import sys
from concurrent.futures import ProcessPoolExecutor

from opentelemetry import baggage, context, trace


def look(*_):
    """Make a span; return the identifier of its parent, and the baggage."""
    parent = trace.get_current_span().get_span_context()
    with trace.get_tracer("configured").start_as_current_span("work"):
        return f"{parent.trace_id:032x} {parent.span_id:016x}", baggage.get_baggage("tenant")


def look_into(connection):
    """Send what is seen to another process."""
    connection.send(look())


def look_for_items(items, connection):
    """Send what is seen while an item is handled."""
    items.get()
    connection.send(look())


def configure(order):
    """Configure the SDK by the file and switch the library on, in that order or the other."""
    from opentelemetry.configuration import configure_sdk, load_config_file

    from otel_concurrency import ConcurrencyInstrumentor

    steps = [
        lambda: configure_sdk(load_config_file(os.environ["CONFIGURED_BY"])),
        ConcurrencyInstrumentor().instrument,
    ]
    for step in steps if order == "first" else reversed(steps):
        step()


def main(method, order):
    """Do all of it with processes that are started by ``method``."""
    if order != "loader":
        configure(order)
    ctx = multiprocessing.get_context(method)
    seen = {}
    items = ctx.Queue()
    receiver, sender = ctx.Pipe(duplex=False)
    consumer = ctx.Process(target=look_for_items, args=(items, sender))
    consumer.start()
    token = context.attach(baggage.set_baggage("tenant", "acme"))
    with trace.get_tracer("configured").start_as_current_span("request") as span:
        items.put("item")
        seen["queue"] = receiver.recv()
        consumer.join()
        for name in ("process", "process started anew"):
            process = ctx.Process(target=look_into, args=(sender,))
            process.start()
            seen[name] = receiver.recv()
            process.join()
        with ctx.Pool(1) as pool:
            seen["pool"] = pool.apply(look)
        with ctx.Pool(1, maxtasksperchild=1) as pool:
            seen["first worker"], seen["restarted worker"] = (pool.apply(look) for _ in range(2))
        with ProcessPoolExecutor(1, mp_context=ctx) as executor:
            seen["executor"] = executor.submit(look).result()
        here = span.get_span_context()
    context.detach(token)
    print(json.dumps({"span": f"{here.trace_id:032x} {here.span_id:016x}", **seen}))


if __name__ == "__main__":
    main(*sys.argv[1:])
