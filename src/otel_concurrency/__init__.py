"""OpenTelemetry context that follows the work: threads, pools, timers, schedulers, queues.

Switched on once, it carries the context over every hand-off of the standard library::

    from otel_concurrency import ConcurrencyInstrumentor

    ConcurrencyInstrumentor().instrument()  # or run the program by `opentelemetry-instrument`

What no hook can see is handed off by hand, whether it is switched on or not::

    from otel_concurrency import capture

    handoff = capture()  # where the work is handed off

    with handoff:  # where it is picked up
        work()

``capture("link")`` starts a trace of its own, linked to this one. ``wrap(f)`` binds a callable to
the current context. ``handoff.headers()`` goes into a message, and ``HandOff.from_headers()`` makes
a hand-off of it. ``batch(handoffs)`` is for work that is done for several at once. Inside
``with clean():`` nothing is current.

(PYTEST_DONT_REWRITE: nothing here asserts, and pytest need not warn where it was imported first.)
"""

from __future__ import annotations

from otel_concurrency.version import __version__

TYPE_CHECKING = False  # `typing` is not imported: a child process may have no use for it
if TYPE_CHECKING:
    from otel_concurrency._by_hand.handoffs import HandOff, batch, capture, clean, wrap
    from otel_concurrency._instrumentor import ConcurrencyInstrumentor
    from otel_concurrency._linking.policies import Policy

__all__ = [
    "ConcurrencyInstrumentor",
    "HandOff",
    "Policy",
    "__version__",
    "batch",
    "capture",
    "clean",
    "wrap",
]


def __getattr__(name: str) -> object:
    # On first use (PEP 562): `opentelemetry-instrument` imports this package in its own process
    # only to read its settings, and must not pay for, or fail over, anything else.
    if name in ("HandOff", "batch", "capture", "clean", "wrap"):
        from otel_concurrency._by_hand import handoffs

        return getattr(handoffs, name)
    if name == "ConcurrencyInstrumentor":
        from otel_concurrency._instrumentor import ConcurrencyInstrumentor

        return ConcurrencyInstrumentor
    if name == "Policy":
        from otel_concurrency._linking.policies import Policy

        return Policy
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
