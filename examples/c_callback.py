"""A callback that a C library makes on a thread of its own: it is wrapped where it is registered.

The library is the C library itself, which runs the callback on a POSIX thread.
"""

from __future__ import annotations

import ctypes

from opentelemetry import trace

from otel_concurrency import wrap

tracer = trace.get_tracer("example")

c = ctypes.CDLL(None)
Callback = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p)


def on_data(_: int | None) -> int:
    """Take what the C library has to say; return what its thread returns."""
    with tracer.start_as_current_span("on_data"):
        return 0


def main() -> None:
    """Have the C library call back inside a request."""
    thread = ctypes.c_ulong()
    with tracer.start_as_current_span("request"):
        callback = Callback(wrap(on_data))
        c.pthread_create(ctypes.byref(thread), None, callback, None)
        c.pthread_join(thread, None)


if __name__ == "__main__":
    main()
