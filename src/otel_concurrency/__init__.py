"""OpenTelemetry context that follows the work: threads, pools, timers, schedulers, queues.

Names are resolved on first use (PEP 562): ``opentelemetry-instrument`` imports this package in its
own process only to read :mod:`otel_concurrency.environment_variables`, and must not pay for, or
fail over, anything else.

PYTEST_DONT_REWRITE: nothing here asserts, and pytest need not warn where we were imported first.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from otel_concurrency.version import __version__

if TYPE_CHECKING:
    from otel_concurrency._instrumentor import ConcurrencyInstrumentor
    from otel_concurrency._linking.policies import Policy

__all__ = ["ConcurrencyInstrumentor", "Policy", "__version__"]


def __getattr__(name: str) -> object:
    if name == "ConcurrencyInstrumentor":
        from otel_concurrency._instrumentor import ConcurrencyInstrumentor

        return ConcurrencyInstrumentor
    if name == "Policy":
        from otel_concurrency._linking.policies import Policy

        return Policy
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
