"""Finds the flow that runs: a task, a greenlet or a thread."""

from __future__ import annotations

import sys
from _thread import get_ident
from collections.abc import Callable
from typing import Any


def flow_here() -> Any:
    """Return the present task, greenlet or thread: an object, or the number of the thread."""
    for name, find in _FINDERS:
        module = sys.modules.get(name)
        if module is not None:
            try:
                flow = find(module)
            except (AttributeError, RuntimeError):  # the module is being imported, or no loop runs
                continue
            if flow is not None:
                return flow
    return get_ident()


def is_task(flow: Any) -> bool:
    """Whether what :func:`flow_here` has returned is a task: neither a greenlet nor a thread."""
    return not isinstance(flow, int) and not is_greenlet(flow)


def is_greenlet(flow: Any) -> bool:
    """Whether what :func:`flow_here` has returned is a greenlet."""
    greenlets: Any = sys.modules.get("greenlet")
    return greenlets is not None and isinstance(flow, greenlets.greenlet)


_FINDERS: tuple[tuple[str, Callable[[Any], Any]], ...] = (
    ("asyncio", lambda asyncio: asyncio.current_task()),
    ("trio", lambda trio: trio.lowlevel.current_task()),
    ("greenlet", lambda greenlet: greenlet.getcurrent()),
)
