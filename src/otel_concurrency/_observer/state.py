"""Whether this process is watched, and the only function that emits events."""

from __future__ import annotations

import logging
import os
from _thread import get_ident
from collections.abc import Callable
from typing import Any

from otel_concurrency._core import faults

_logger = logging.getLogger(__name__)

Emit = Callable[[dict[str, Any]], None]

emit: Emit | None = None
"""Takes each event, a plain dictionary; None while the process is not watched."""

alone = False
"""Whether no other process is watched, so that nothing of the observer may reach one."""

_telling: set[int] = set()
"""The threads that are emitting an event; what they do meanwhile is not watched."""


def watching() -> bool:
    """Whether to observe what this thread does now."""
    return emit is not None and get_ident() not in _telling


def tell(event: str, **fields: Any) -> None:
    """Emit an event of this process. Never raises."""
    out = emit
    thread = get_ident()
    if out is None or thread in _telling:
        return
    _telling.add(thread)
    try:
        out({"event": event, "pid": os.getpid(), **fields})
    except Exception as error:
        fault("tell", error)
    finally:
        _telling.discard(thread)


def fault(step: str, error: Exception) -> None:
    """Report a fault of the observer, once; the program goes on. Call it in an ``except`` block."""
    faults.once(
        _logger,
        (step, type(error)),
        "Part of the program was not observed: %s failed with %s: %s. Reported once.",
        step,
        type(error).__name__,
        error,
    )


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_telling.clear)
