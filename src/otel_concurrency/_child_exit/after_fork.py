"""Drops connections and measurements of the parent process from the providers of a forked child.

Tells, later, whether anything has come in place of them.

A forked child has a copy of every open socket. If an exporter keeps its connection open, parent and
child write their requests into the same connection, and the receiver gets neither. urllib3 (to
2.8), with which the OTLP/HTTP and Zipkin exporters send, does not handle forks.

The child also has a copy of all measurements of the parent. The SDK clears its queues of spans and
log records itself, but it would export the parent's counts as the child's (to 1.45).
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
"""Parts of the names of the attributes that lead from a provider to its connections.

They hold for the SDK and its exporters from 1.28 to 1.45, and for requests. Measurements are
reached by other names.
"""

_ENOUGH = 1000
"""How many objects are searched at most."""

_kept: list[Any] = []
"""The dropped pools. They are kept because closing them takes locks that a thread of the parent may
have held at the fork."""


def forget_connections(provider: Any) -> None:
    """Give every urllib3 pool manager of ``provider``'s exporters an empty pool. May raise."""
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
    """Clear the measurements and renew the locks of all metric readers of ``provider``. May raise.

    At the fork, threads that do not exist in the child may have held the locks.
    """
    consumer = getattr(provider, "_measurement_consumer", None)
    for storage in getattr(consumer, "_reader_storages", {}).values():
        storage._lock._at_fork_reinit()
        storage._instrument_view_instrument_matches.clear()


def has_measurements(provider: Any) -> bool:
    """Whether something was measured since :func:`forget_measurements`, as far as can be told.

    Values that are observed on demand are not measured before somebody asks for them. May raise.
    """
    consumer = getattr(provider, "_measurement_consumer", None)
    storages = getattr(consumer, "_reader_storages", None)
    if storages is None:
        return True
    return any(storage._instrument_view_instrument_matches for storage in storages.values())


def has_log_records(provider: Any) -> bool:
    """Whether a log record waits to be exported, or is being exported, as far as can be told."""
    several = getattr(provider, "_multi_log_record_processor", None)
    for processor in getattr(several, "_log_record_processors", (None,)):
        batch = getattr(processor, "_batch_processor", None)
        queue, exporting = getattr(batch, "_queue", None), getattr(batch, "_export_lock", None)
        if queue is None or exporting is None or queue or exporting.locked():
            return True
    return False
