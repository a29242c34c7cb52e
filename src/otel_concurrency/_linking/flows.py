"""Distinguishes a flow that outlives a span from work that was picked up long after it ended.

Both start a span in the context of a span that ended long ago, and both get a link. A loop that a
request happened to start has nothing more to do with that request: it loses the baggage too. A
call, an item or a job that has waited for hours keeps the baggage, since its tenant, for example,
is still the same.

Nothing is recorded when work is handed off. When a span starts in the context of a span that has
ended, the functions here find out how the flow got its context:

- with an item that it has adopted: the work was picked up, perhaps late;
- as a thread, a greenlet or a task, which start at once: the flow outlives the span;
- as a call in a pool or a scheduler, or from a timer: the work was picked up, perhaps late. A call
  in a pool that started a span soon after the end of that span outlives it;
- as a callback of an event loop: the same, except that callbacks which arm each other are one flow;
- by the program's own ``attach``: it is left as it is.
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
from otel_concurrency._core.handoff import NO_CONTEXT, Call, DirectCall, adopted

pick_ups: set[CodeType] = {Call.__call__.__code__, threading.Timer.run.__code__}
"""The code objects of the functions that run work in the context in which it was handed off."""

_CALLERS = {
    "_invoke_callbacks": ("concurrent.futures._base", "callback"),
    "add_done_callback": ("concurrent.futures._base", "fn"),
    "run": ("sched", "action"),
}
"""By name: functions that call a compiled call, which has no frame; the module of each, and the
variable in which it has the call."""

LIVE_LOCALS = sys.version_info >= (3, 13)
"""Whether a frame's ``f_locals`` is a view of its variables, and not a copy."""

_chain: ContextVar[ref[Context] | None] = ContextVar("otel_concurrency_chain", default=None)
"""The context in which a callback of this chain started a span soon after its span had ended."""

_late: ContextVar[ref[Context] | None] = ContextVar("otel_concurrency_late", default=None)
"""The context in which work was picked up late, by this flow or by a flow that started it."""


def note(current: Context, span: Any) -> None:
    """Remember that this flow runs in ``current``, whose ``span`` has just ended. May raise."""
    thread = get_ident()
    if _is_body(thread, span):
        handoff.ages.setdefault(thread, time.time_ns())
    elif _place()[0] == "callback":
        _chain.set(ref(current))


def left(current: Context, span: Any) -> Context | None:
    """Return what a flow that outlives ``span`` keeps of its context ``current``.

    ``span`` is the span of ``current`` and ended long ago. Returns None for work that was picked up
    late: it keeps the whole context but for the span. May raise.
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
    """Whether the present work of ``thread`` was handed off in ``span``."""
    body = handoff.bodies.get(thread)
    return body is not None and body.get(_SPAN_KEY) is span


def _remembered(variable: ContextVar[ref[Context] | None]) -> Context | None:
    reference = variable.get()
    return None if reference is None else reference()


def _place() -> tuple[str, bool]:
    """Return the kind of this flow, and whether its thread runs it inside a handed-off call.

    The kind is "call", "task", "callback" or "thread".
    """
    place, outermost = _place_in_loop()
    calls = inside = False
    frame: FrameType | None = sys._getframe(1)  # pyright: ignore[reportPrivateUsage]  # documented
    while frame is not None:
        if frame is outermost or frame.f_code is outermost:
            inside, calls, outermost = calls, False, None
        # Without a caller, the call is the whole work of a raw thread or of a greenlet.
        if (frame.f_code in pick_ups and _has_caller(frame)) or is_calling(frame):
            calls = True
        frame = frame.f_back
    if inside or (calls and place == "thread"):
        return "call", True
    return place, calls


def is_calling(frame: FrameType) -> bool:
    """Whether what runs above ``frame`` runs in a compiled call, which has no frame itself."""
    module, name = _CALLERS.get(frame.f_code.co_name, (None, ""))
    if module is None or frame.f_globals.get("__name__") != module or DirectCall is Call:
        return False
    variables = frame.f_locals  # of no function of the program's: on old versions it reads them too
    work: Any = variables.get(name)
    if not LIVE_LOCALS and frame.f_trace is None:
        variables.clear()  # this copy of the variables lives as long as the function runs
    return type(work) is DirectCall and bool(work.running)


def _has_caller(frame: FrameType) -> bool:
    below = frame.f_back
    while below is not None and below.f_globals is frame.f_globals:
        below = below.f_back
    return below is not None


def _place_in_loop() -> tuple[str, Any]:
    """Return "task" with its first frame, "callback" with its first frame's code, or "thread"."""
    asyncio, trio = (sys.modules.get(name) for name in ("asyncio", "trio"))
    try:
        if asyncio is not None:
            task = asyncio.current_task()
            if task is None:
                return "callback", asyncio.Handle._run.__code__
            return "task", _first_frame(task.get_coro())
    except (AttributeError, RuntimeError):  # asyncio is being imported, or no loop runs
        pass
    try:
        if trio is not None:
            return "task", _first_frame(trio.lowlevel.current_task().coro)
    except (AttributeError, RuntimeError):
        pass
    return "thread", None


def _first_frame(coroutine: Any) -> Any:
    return getattr(coroutine, "cr_frame", None) or getattr(coroutine, "gi_frame", None)
