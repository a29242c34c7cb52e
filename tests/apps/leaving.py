"""Leaves with work pending everywhere: in a pool, a timer, a scheduler and daemon threads."""

import concurrent.futures
import contextlib
import sched
import sys
import threading
import time

from opentelemetry import baggage, context, trace

tracer = trace.get_tracer("leaving")


def work(name):
    """Make a span."""
    with tracer.start_as_current_span(name):
        pass


def keep_handing_on():
    """Hand work on until the interpreter refuses to take any."""
    with contextlib.suppress(RuntimeError):
        while True:
            executor.submit(int).result()
            thread = threading.Thread(target=int, daemon=True)
            thread.start()
            thread.join()


executor = concurrent.futures.ThreadPoolExecutor(1)
scheduler = sched.scheduler()
context.attach(baggage.set_baggage("order", "1042"))
with tracer.start_as_current_span("request"):
    executor.submit(time.sleep, 0.05)
    executor.submit(work, "queued in the pool")
    executor.submit(time.sleep, 0.05).add_done_callback(lambda _: work("done-callback"))
    threading.Timer(0.05, work, ("timer",)).start()
    never = threading.Timer(3600, work, ("never",))
    never.daemon = True
    never.start()
    scheduler.enter(3600, 1, work, ("never",))
    threading.Thread(target=threading.Event().wait, daemon=True).start()
    for _ in range(3):
        threading.Thread(target=keep_handing_on, daemon=True).start()
sys.exit(3)
