"""Wraps a callback of a C library before there is a span."""

import ctypes

from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider

from otel_concurrency import wrap

trace.set_tracer_provider(TracerProvider())
tracer = trace.get_tracer("broken")

c = ctypes.CDLL(None)
Callback = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p)


def on_data(_):  # at fault
    """Take what the C library has to say."""
    with tracer.start_as_current_span("on_data"):
        pass
    return 0


callback = Callback(wrap(on_data))
with tracer.start_as_current_span("request"):
    thread = ctypes.c_ulong()
    c.pthread_create(ctypes.byref(thread), None, callback, None)
    c.pthread_join(thread, None)
