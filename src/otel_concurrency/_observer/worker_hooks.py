"""Watches for threads and tasks that were started in one request and work for others.

A note says where each thread and task was started, and in which span. When it has got items of
other traces, or runs work that was handed off outside any span, that span is no parent for what it
does. With the library switched on such work has its own context or none, and no such span occurs.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Mapping
from contextvars import ContextVar, copy_context
from types import ModuleType
from typing import Any

from otel_concurrency._core import frames, handoff
from otel_concurrency._core.patching import Layer
from otel_concurrency._linking import origins
from otel_concurrency._observer import flows, state
from otel_concurrency._observer.connection_hooks import Left
from otel_concurrency._observer.flows import Flow
from otel_concurrency._observer.records import Origin

_REASON = "left_with_worker"

_ENOUGH = 2
"""The number of other traces whose items make a thread or task a worker for all its work.

One might be a coincidence: the first connection that another request left in a pool, for example.
"""

_IN_ANOTHERS_SPAN = ("Future.add_done_callback",)
"""Calls whose work runs where other work has caused it, and belongs there without the library."""


class Start:
    """Where a thread or task was started inside a span, and the other traces it has worked for."""

    __slots__ = ("call", "origin", "others", "site")

    def __init__(self, call: str, site: str | None, origin: Origin) -> None:
        self.call = call
        self.site = site
        self.origin = origin
        self.others: set[str] = set()


_START: ContextVar[Start | None] = ContextVar("otel_concurrency_start", default=None)


def at_begin(flow: Flow) -> None:
    """Note that a thread has started, or that this thread or task has got an item."""
    record = flow.record
    if record.is_all_of_its_thread:
        origin = record.origin
        _START.set(None if origin is None else Start(record.call, record.site, origin))
        return
    start = _START.get()
    if not flow.is_item or start is None or len(start.others) >= _ENOUGH:
        return
    if _is_of_another(flow, start) and not getattr(flow.source, "recirculates", False):
        start.others.add(_trace(record.cause))


def _is_of_another(flow: Flow, start: Start) -> bool:
    record, trace = flow.record, start.origin[0]
    return record.cause is not None and trace not in (record.cause[0], *record.ancestors)


def _trace(origin: Origin | None) -> str:
    return "" if origin is None else origin[0]


def about(span: Any, parent: Any, above: Flow | None, flow: Flow | None) -> Left | None:
    """Return where the context of ``parent`` was left, if ``span`` is not part of its work.

    ``above`` is the flow in which ``parent`` was started, ``flow`` that of ``span``. None if the
    parent has not ended: then ``span`` may well be part of its work.
    """
    if getattr(parent, origins.END, None) is None:
        return None
    start = _START.get()
    if start is None or start.origin[:2] != flows.identify(span.parent):
        return None
    if len(start.others) >= _ENOUGH:
        has_left = True
    elif flow is None or flow is above:
        has_left = False
    elif flow.is_item:
        has_left = _trace(flow.record.cause) in start.others
    else:
        has_left = _has_no_origin(flow) and flow.found == start.origin
    return Left(_REASON, start.call, start.site, start.origin, True) if has_left else None


def _has_no_origin(flow: Flow) -> bool:
    """Whether the work of ``flow`` was handed off outside any span."""
    record = flow.record
    return (
        record.cause is None
        and not record.clean
        and not record.native
        and not record.is_all_of_its_thread
        and record.call not in _IN_ANOTHERS_SPAN
    )


def _loop_layers(base_events: ModuleType) -> list[Layer]:
    return [Layer(base_events.BaseEventLoop, "create_task", _create_task)]


def _uvloop_layers(uvloop: ModuleType) -> list[Layer]:
    return [Layer(vars(uvloop)["Loop"], "create_task", _create_task)]


def _create_task(original: Any) -> Any:
    @functools.wraps(original)
    def create_task(self: Any, coro: Any, **kwargs: Any) -> Any:
        if kwargs.get("context") is not None:
            return original(self, coro, **kwargs)
        return _noting(lambda: original(self, coro, **kwargs))

    return create_task


def _noting(make: Callable[[], Any]) -> Any:
    """Call ``make``, which makes a task, in a context with a note of where that was."""
    known = start = _START.get()
    if state.watching():
        try:
            origin = flows.origin_of(handoff.get_current())
            if origin is None:
                start = None
            elif known is None or known.origin != origin:  # else in the context of its worker
                site = frames.site(sys._getframe(2)).line  # pyright: ignore[reportPrivateUsage]
                start = Start("create_task", site, origin)
        except Exception as error:
            state.fault("create_task", error)
    if start is known:
        return make()
    context = copy_context()
    context.run(_START.set, start)
    return context.run(make)


def _schedule_layers(schedule: ModuleType) -> list[Layer]:
    return [Layer(vars(schedule)["Job"], "do", _do)]


def _do(original: Any) -> Any:
    @functools.wraps(original)
    def do(self: Any, job_func: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            if flows.origin_of(handoff.get_current()) is None:
                record = flows.hand_off("sched", "Job.do", job_func, quiet=True)
                if record is not None and record.cause is None:
                    job_func = flows.observed(job_func, record)
        except Exception as error:
            state.fault("do", error)
        return original(self, job_func, *args, **kwargs)

    return do


MODULES: Mapping[str, Callable[[ModuleType], list[Layer]]] = {
    "asyncio.base_events": _loop_layers,
    "uvloop": _uvloop_layers,
    "schedule": _schedule_layers,
}
