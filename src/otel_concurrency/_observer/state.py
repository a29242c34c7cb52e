"""Whether this process is watched, and the one way to tell what was seen in it."""

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

_telling: set[int] = set()
"""The threads that are about to tell something: what they do meanwhile is ours."""


def watching() -> bool:
    """Whether what this thread does at present is to be observed."""
    return emit is not None and get_ident() not in _telling


def tell(event: str, **fields: Any) -> None:
    """Tell of an event in this process. Never raises."""
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
    """Report a fault of the observer's, once; the program goes on. To be called in ``except``."""
    faults.once(
        _logger,
        (step, type(error)),
        "What the program does was not observed: %s failed with %s: %s. Reported once.",
        step,
        type(error).__name__,
        error,
    )


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_telling.clear)
