"""Forgets, in a forked child, what its providers have of the parent's and are not to export.

A forked child has a copy of every open socket. Where an exporter keeps its connection, parent and
child write their requests into one and the same, and the receiver gets neither: urllib3 (to 2.8),
with which exporters of OTLP over HTTP and of Zipkin send, takes no notice of a fork.

And it has a copy of all that the parent has measured. Of its queues of spans and log records the
SDK takes care itself; the parent's counts it would export as the child's (to 1.45).
"""

from __future__ import annotations

import sys
from typing import Any

_LEADS_THERE = (
    "processor",
    "exporter",
    "reader",
    "config",
    "client",
    "transport",
    "session",
    "adapter",
    "pool",
    "manager",
)
"""Parts of the names of attributes by which a provider's connections are reached.

They hold for the SDK and its exporters from 1.28 to 1.45, and for requests. All that is measured is
reached by other names.
"""

_ENOUGH = 1000
"""How many objects are looked at."""

_kept: list[Any] = []
"""What was forgotten: to close it would take locks that a thread of the parent may have held."""


def forget_connections(provider: Any) -> None:
    """Have every urllib3 pool manager behind ``provider`` start anew. May raise."""
    urllib3: Any = sys.modules.get("urllib3")
    if urllib3 is None:
        return
    found: list[Any] = [provider]
    seen: set[int] = set()
    while found and len(seen) < _ENOUGH:
        thing = found.pop()
        if id(thing) in seen:
            continue
        seen.add(id(thing))
        if isinstance(thing, urllib3.PoolManager):
            pools = thing.pools
            _kept.append(pools)
            thing.pools = type(pools)(pools._maxsize, pools.dispose_func)
        else:
            found += _next(thing)


def _next(thing: Any) -> list[Any]:
    if isinstance(thing, dict):
        return list(thing.values())  # pyright: ignore[reportUnknownVariableType,reportUnknownArgumentType]
    if isinstance(thing, list | tuple):
        return list(thing)  # pyright: ignore[reportUnknownVariableType,reportUnknownArgumentType]
    attributes: dict[str, Any] = getattr(thing, "__dict__", {})
    return [
        value for name, value in attributes.items() if any(part in name for part in _LEADS_THERE)
    ]


def forget_measurements(provider: Any) -> None:
    """Have every metric reader of ``provider`` start anew. May raise.

    The locks may have been held when the process was forked, by threads that are not in the child.
    """
    consumer = getattr(provider, "_measurement_consumer", None)
    for storage in getattr(consumer, "_reader_storages", {}).values():
        storage._lock._at_fork_reinit()
        storage._instrument_view_instrument_matches.clear()
