"""What a process holds: it is to be the same before and after."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import sys
import threading
from dataclasses import dataclass
from typing import Any

from opentelemetry.context import Context
from opentelemetry.sdk.trace import Span


@dataclass(frozen=True)
class Held:
    """One thing that is counted, how much of it there is, and how much more it may become."""

    what: str
    count: int
    tolerance: int
    unit: str = ""


def held() -> list[Held]:
    """Count what this process holds, where nothing is under way."""
    for _ in range(3):
        gc.collect()
    _give_back()
    objects = gc.get_objects()
    spans = sum(isinstance(one, Span) for one in objects)
    last = _last_contexts()
    contexts = sum(type(one) is Context and id(one) not in last for one in objects)
    del objects, last
    blocks = sys.getallocatedblocks()
    return [
        Held("live spans", spans, 0),
        Held("live contexts", contexts, 0),
        Held("threads", _threads(), 0),
        Held("threads of the system", _entries("/proc/self/task"), 0),
        Held("file descriptors", _entries("/proc/self/fd"), 0),
        Held("entries in the library's own tables", _own(), 0),
        Held("blocks of Python's memory", blocks, blocks // 50),
        Held("resident memory", _resident(), _resident() // 10, "MB"),
    ]


def _threads() -> int:
    """Count those that there are: what stands for a raw one, CPython (to 3.12) may leave behind."""
    return sum(not isinstance(one, threading._DummyThread) for one in threading.enumerate())


def _entries(directory: str) -> int:
    return len(os.listdir(directory)) if os.path.isdir(directory) else 0


def _resident() -> int:
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") // 1_000_000
    except OSError:
        return 0


def _give_back() -> None:
    """Have the C library give free memory back to the system, where it can."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


_LAST = ("_decoded", "_extracted")
"""What ``carrier`` keeps of the last headers that came from another process, one context in each.

Whether any came in the first round is chance.
"""


def _last_contexts() -> dict[int, Context]:
    """Return these contexts by their ids."""
    kept = [getattr(sys.modules.get(_CARRIER), name, None) or () for name in _LAST]
    return {id(one): one for parts in kept for one in parts if type(one) is Context}


_CARRIER = "otel_concurrency._crossing.carrier"

_TABLES = {
    "_core.handoff": ("bodies", "ages"),
    "_linking.rounds": ("running",),
    "_primitives._threading": ("_starting",),
    "_crossing.trailers": ("sending", "receiving"),
}
"""By thread, what the library knows of work that is under way."""


def _own() -> int:
    tables: list[Any] = [
        vars(module)[name]
        for module_name, names in _TABLES.items()
        if (module := sys.modules.get(f"otel_concurrency.{module_name}"))
        for name in names
    ]
    return sum(map(len, tables))
