"""The providers and exporters of a process, signal by signal: where its telemetry goes.

The SDK has no way to list the exporters of a provider. So the objects that a provider is made of
are searched for them, by no name that a version of the SDK may change.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

from otel_concurrency._child_exit import providers
from otel_concurrency._status.otlp import SIGNALS

_SIGNALS = dict(zip(SIGNALS, providers.SIGNALS, strict=True))

_MOST = 500
"""The maximum number of objects that are searched for each provider."""


def found() -> list[dict[str, Any]]:
    """Return each provider of the SDK that is known, and its exporters, as plain data.

    Known are the global providers and, if the library was on when they were made, all others. The
    one that the library gives to a program that has none is left out.
    """
    return [
        {
            "signal": signal,
            "provider": class_of(provider),
            "exporters": [class_of(exporter) for exporter in _exporters(provider)],
        }
        for signal, place in _SIGNALS.items()
        for provider in providers.of(place)
        if not is_ours(provider)
    ]


def is_ours(thing: object) -> bool:
    """Whether the class of ``thing`` is the library's own."""
    return type(thing).__module__.partition(".")[0] == "otel_concurrency"


def _exporters(provider: object) -> Iterator[object]:
    seen: set[int] = set()
    pending: list[object] = [provider]
    while pending and len(seen) < _MOST:
        one = pending.pop(0)
        if id(one) in seen:
            continue
        seen.add(id(one))
        if callable(getattr(type(one), "export", None)):
            yield one
        else:
            pending += _parts(one)


def _parts(one: object) -> list[object]:
    if isinstance(one, list | tuple):
        return list(cast("tuple[object, ...]", one))
    if isinstance(one, dict):
        parts = cast("dict[object, object]", one)
        return [*parts.keys(), *parts.values()]
    if isinstance(one, type) or callable(one):
        return []
    return list(getattr(one, "__dict__", {}).values())


def class_of(thing: object) -> str:
    """Return the name of the class of ``thing``, with its module."""
    kind = type(thing)
    return f"{kind.__module__}.{kind.__qualname__}"
