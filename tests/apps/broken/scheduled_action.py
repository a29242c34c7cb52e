"""Runs an action that was entered outside any span on a thread that a request has started."""

import sched
import threading

from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider

trace.set_tracer_provider(TracerProvider())
tracer = trace.get_tracer("broken")

scheduler = sched.scheduler()
has_ended = threading.Event()


def act():
    """Do what no request has asked for."""
    with tracer.start_as_current_span("act"):
        pass


def loop():
    """Run what was entered, once the request is over."""
    has_ended.wait(30)
    scheduler.run()


scheduler.enter(0, 1, act)
with tracer.start_as_current_span("request"):
    thread = threading.Thread(target=loop)
    thread.start()  # at fault
has_ended.set()
thread.join(30)
