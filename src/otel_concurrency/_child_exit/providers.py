"""Finds the SDK's providers, so that a child can flush them at its end.

The API knows the global providers only. A program may have others, and no list contains them: they
are recorded here when they are created.
"""

from __future__ import annotations

import functools
import sys
import weakref
from collections.abc import Iterator
from types import ModuleType
from typing import Any

from otel_concurrency._core.handoff import Seam
from otel_concurrency._core.patching import Layer


class Signal:
    """A signal: its SDK module, provider class, API module, and getter of the global provider."""

    def __init__(self, sdk: str, provider: str, api: str, getter: str) -> None:
        self.sdk = sdk
        self.provider = provider
        self.api = api
        self.getter = getter


TRACES = Signal(
    "opentelemetry.sdk.trace", "TracerProvider", "opentelemetry.trace", "get_tracer_provider"
)
METRICS = Signal(
    "opentelemetry.sdk.metrics", "MeterProvider", "opentelemetry.metrics", "get_meter_provider"
)
LOGS = Signal(
    "opentelemetry.sdk._logs", "LoggerProvider", "opentelemetry._logs", "get_logger_provider"
)
SIGNALS = (TRACES, METRICS, LOGS)

_made: dict[Signal, weakref.WeakSet[Any]] = {signal: weakref.WeakSet() for signal in SIGNALS}


def _layers(signal: Signal) -> Any:
    def layers(sdk: ModuleType, seam: Seam) -> list[Layer]:
        return [Layer(getattr(sdk, signal.provider), "__init__", lambda raw: _init(raw, signal))]

    return layers


MODULES = {signal.sdk: _layers(signal) for signal in SIGNALS}


def _init(original: Any, signal: Signal) -> Any:
    @functools.wraps(original)
    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:  # noqa: N807
        original(self, *args, **kwargs)
        _made[signal].add(self)

    return __init__


def of(signal: Signal) -> Iterator[Any]:
    """Yield the providers of ``signal`` that can be flushed, the global one first.

    A signal whose SDK is not imported has recorded nothing. Its getter is not called, since it
    could import an SDK.
    """
    if signal.sdk not in sys.modules or signal.api not in sys.modules:
        return
    known = getattr(sys.modules[signal.api], signal.getter)()
    for provider in (known, *(one for one in _made[signal] if one is not known)):
        if callable(getattr(provider, "force_flush", None)):
            yield provider


def are_in_use() -> bool:
    """Whether something may have been recorded, as far as this process can tell."""
    return any(signal.sdk in sys.modules for signal in SIGNALS)
