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


_FINDERS: tuple[tuple[str, Callable[[Any], Any]], ...] = (
    ("asyncio", lambda asyncio: asyncio.current_task()),
    ("trio", lambda trio: trio.lowlevel.current_task()),
    ("greenlet", lambda greenlet: greenlet.getcurrent()),
)
