"""Tells a flow that lives on in a context from work that was picked up late in it.

Both start a span in the context of one that ended long ago, and both get a link. A loop that a
request happened to start has no business with that request any more, and is to lose its baggage
too. A call, an item or a job that has waited for hours keeps it: the tenant still is the tenant.

Nothing is noted where work is handed off. What is asked here, where a span starts in the context of
one that has ended, is how the flow came by its context:

- with an item, which it has adopted: it was picked up, maybe late;
- as a thread, a greenlet or a task, which are started at once: it lives on;
- as a call, in a pool or in a scheduler, or by a timer: it was picked up, maybe late. One in a pool
  that was seen here already, soon after the end of the span, lives on;
- as a callback of an event loop: the same, but that a chain of callbacks that arm each other is one
  flow;
- by an ``attach`` of the program's own, which stands.
"""

from __future__ import annotations

import sys
import threading
import time
from _thread import get_ident
from contextvars import ContextVar
from types import CodeType, FrameType
from typing import Any
from weakref import ref

from opentelemetry.context import Context
from opentelemetry.trace.propagation import (
    _SPAN_KEY,  # pyright: ignore[reportPrivateUsage]  # a third of trace.get_current_span's cost
)

from otel_concurrency._core import handoff
from otel_concurrency._core.handoff import NO_CONTEXT, Call, adopted

pick_ups: set[CodeType] = {Call.__call__.__code__, threading.Timer.run.__code__}
"""The code of the functions that run a piece of work in the context that it was handed off in."""

_chain: ContextVar[ref[Context] | None] = ContextVar("otel_concurrency_chain", default=None)
"""The context that a callback of this chain was in soon after the end of its span."""

_late: ContextVar[ref[Context] | None] = ContextVar("otel_concurrency_late", default=None)
"""The context that work of this flow, or of those that it was started by, was picked up late in."""


def note(current: Context, span: Any) -> None:
    """Remember that this flow is in ``current``, whose ``span`` ended a moment ago. May raise."""
    thread = get_ident()
    if _is_body(thread, span):
        handoff.ages.setdefault(thread, time.time_ns())
    elif _place()[0] == "callback":
        _chain.set(ref(current))


def left(current: Context, span: Any) -> Context | None:
    """Return what a flow keeps of ``current``, whose ``span`` ended long ago, if it lives on in it.

    None where it was picked up late, and keeps all but the span. May raise.
    """
    record = adopted.get()
    if (record is not None and record[0]() is current) or _remembered(_late) is current:
        return None
    thread = get_ident()
    place, is_called = _place()
    if _is_body(thread, span):
        lives_on = not is_called or thread in handoff.ages
        body = handoff.bodies[thread]
        own = {key: value for key, value in current.items() if body.get(key) is not value}
        own.pop(_SPAN_KEY, None)
    else:
        lives_on = place == "task" or (place == "callback" and _remembered(_chain) is current)
        own = {}
    if not lives_on:
        _late.set(ref(current))
        return None
    return Context(own) if own else NO_CONTEXT


def _is_body(thread: int, span: Any) -> bool:
    """Whether ``span`` is the one that the work of ``thread`` was handed off in."""
    body = handoff.bodies.get(thread)
    return body is not None and body.get(_SPAN_KEY) is span


def _remembered(variable: ContextVar[ref[Context] | None]) -> Context | None:
    reference = variable.get()
    return None if reference is None else reference()


def _place() -> tuple[str, bool]:
    """Return what this flow is, and whether its thread runs it as a part of a call.

    It is a "call", a "task", a "callback", or "thread".
    """
    place, outermost = _place_in_loop()
    calls = inside = False
    frame: FrameType | None = sys._getframe(1)  # pyright: ignore[reportPrivateUsage]  # documented
    while frame is not None:
        if frame is outermost or frame.f_code is outermost:
            inside, calls, outermost = calls, False, None
        # One without a caller is all that a raw thread, or a greenlet, has to do.
        if frame.f_code in pick_ups and _has_caller(frame):
            calls = True
        frame = frame.f_back
    if inside or (calls and place == "thread"):
        return "call", True
    return place, calls


def _has_caller(frame: FrameType) -> bool:
    below = frame.f_back
    while below is not None and below.f_globals is frame.f_globals:
        below = below.f_back
    return below is not None


def _place_in_loop() -> tuple[str, Any]:
    """Return "task" or "callback", and its first frame or that one's code, or else "thread"."""
    asyncio, trio = (sys.modules.get(name) for name in ("asyncio", "trio"))
    try:
        if asyncio is not None:
            task = asyncio.current_task()
            if task is None:
                return "callback", asyncio.Handle._run.__code__
            return "task", _first_frame(task.get_coro())
    except (AttributeError, RuntimeError):  # it is being imported, or no loop runs
        pass
    try:
        if trio is not None:
            return "task", _first_frame(trio.lowlevel.current_task().coro)
    except (AttributeError, RuntimeError):
        pass
    return "thread", None


def _first_frame(coroutine: Any) -> Any:
    return getattr(coroutine, "cr_frame", None) or getattr(coroutine, "gi_frame", None)
