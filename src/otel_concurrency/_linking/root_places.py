"""Tells in what kind of work a root span was started: a few words, the same in every program.

It is asked for root spans only, and only if a setting asks for it. Nothing is noted beforehand: the
place is read from the flow's record of adoption, the current task and the calling frames.
"""

from __future__ import annotations

import sys
import threading
from _thread import get_ident
from types import FrameType
from typing import Any

from otel_concurrency._core import handoff
from otel_concurrency._core.present_flow import flow_here, is_greenlet, is_task

MAIN = "main"
"""The main thread, outside any task: usually where a program begins."""

THREAD = "thread"
"""The body of any other thread, such as a worker that a program runs by itself."""

PROCESS = "process"
"""The target of a ``multiprocessing.Process``."""

POOL_TASK = "pool_task"
"""A call that was submitted to a pool of threads or processes."""

TIMER = "timer"
"""A ``threading.Timer``, a timer of an event loop, or an action of a ``sched.scheduler``."""

CALLBACK = "callback"
"""A callback of an event loop, outside any task."""

TASK = "task"
"""A task of asyncio or trio, or a greenlet."""

ITEM = "item"
"""The work on an item that was got from a queue in a context of its own."""

_BY_CODE = {
    ("concurrent.futures.thread", "run"): POOL_TASK,
    ("concurrent.futures.process", "_process_worker"): POOL_TASK,
    ("multiprocessing.pool", "worker"): POOL_TASK,
    ("multiprocessing.process", "_bootstrap"): PROCESS,
    ("sched", "run"): TIMER,
    ("asyncio.events", "_run"): CALLBACK,
    ("threading", "_bootstrap_inner"): THREAD,
}
"""The functions of the standard library that run other code, by module and name. The names are the
same from CPython 3.10 to 3.15.
"""

_NAMES = frozenset(name for _, name in _BY_CODE)


def place(frame: FrameType | None) -> str:
    """Return the kind of work that ``frame`` is part of: the innermost one. May raise."""
    record = handoff.adopted.get() if handoff.any_adopted else None
    if record is not None and record[0]() is handoff.get_current():
        return ITEM
    flow: Any = flow_here()
    if is_task(flow):
        return TASK
    runner, found = innermost_runner(frame)
    if runner is None:
        is_main = threading.main_thread().ident == get_ident()
        found = MAIN if is_main else THREAD
        is_begun = is_greenlet(flow) and getattr(flow, "parent", None) is not None
        return TASK if is_begun else found
    if found == THREAD and isinstance(thread_here(), threading.Timer):
        return TIMER
    if found == CALLBACK and hasattr(self_of(runner), "when"):
        return TIMER
    return found


def innermost_runner(frame: FrameType | None) -> tuple[FrameType | None, str]:
    """Return the innermost frame, from ``frame`` outwards, that runs other code, and its place."""
    while frame is not None:
        name = frame.f_code.co_name
        if name in _NAMES:
            found = _BY_CODE.get((frame.f_globals.get("__name__", ""), name))
            if found is not None:
                return frame, found
        frame = frame.f_back
    return None, ""


def self_of(frame: FrameType) -> Any:
    """Return the object whose method runs in ``frame``."""
    names = frame.f_locals
    found = names.get("self")
    if sys.version_info < (3, 13):
        names.clear()  # it is a copy, which would live as long as the frame
    return found


def thread_here() -> Any:
    """Return the present thread; None if ``threading`` has not started it.

    ``threading.current_thread`` would add a thread to those that the program can see. What removes
    that again takes a lock, also in the child of a fork, where it may never be released.
    """
    return getattr(threading, "_active").get(get_ident())  # noqa: B009 - unknown to type checkers
