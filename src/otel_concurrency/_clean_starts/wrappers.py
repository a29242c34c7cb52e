"""The wrappers for functions that start clean: one for each kind of entry in the table.

No wrapper keeps the context that was current: a task that lives for ever would keep a request's
span alive.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import AsyncGenerator, Callable
from typing import Any

from opentelemetry.context import Context
from opentelemetry.trace.propagation import (
    _SPAN_KEY,  # pyright: ignore[reportPrivateUsage]  # a third of trace.get_current_span's cost
)

from otel_concurrency._core import handoff
from otel_concurrency._core.callers import caller
from otel_concurrency._core.handoff import (
    NO_CONTEXT,
    Seam,
    adopted,
    attach,
    capture_nothing,
    get_current,
)
from otel_concurrency._linking import origins

_RUNS_FOR_OTHERS = ("anyio.", "otel_concurrency.")
"""Prefixes of modules whose coroutines are run by a task only to run another coroutine."""


def flow(original: Any, seam: Seam) -> Any:
    """Wrap a function that begins a flow: it and what it starts begin in the empty context."""

    @functools.wraps(original)
    def flow(*args: Any, **kwargs: Any) -> Any:
        # As `as_flow_that_begins`, without its calls: a server comes here with every request.
        token = record = None
        if seam.capture is not capture_nothing:
            try:
                if get_current():
                    token = attach(NO_CONTEXT)
                    if handoff.any_adopted:
                        record = adopted.get()
                        adopted.set(None)
            except Exception as error:
                handoff.report_fault("begin a flow", error)
        try:
            return original(*args, **kwargs)
        finally:
            if token is not None:
                if record is not None or handoff.any_adopted:
                    adopted.set(record)
                handoff.leave(token)

    return flow


def asynchronous_flow(original: Any, seam: Seam) -> Any:
    """Wrap a coroutine function that begins a flow: the context is empty while it is awaited."""

    @functools.wraps(original)
    async def flow(*args: Any, **kwargs: Any) -> Any:
        if not (seam.active and handoff.current_safely()):
            return await original(*args, **kwargs)
        if is_all_of_its_task():
            handoff.begin_in(NO_CONTEXT)
            return await original(*args, **kwargs)
        record = adopted.get()
        token = handoff.attach_safely(NO_CONTEXT)
        adopted.set(None)
        try:
            result = await original(*args, **kwargs)
        except GeneratorExit:  # it is collected, in the context of whoever happens to do that
            raise
        except BaseException:
            adopted.set(record)
            handoff.leave(token)
            raise
        adopted.set(record)
        handoff.leave(token)
        return result

    return flow


def task(original: Any, seam: Seam) -> Any:
    """Wrap a coroutine function: it begins in the empty context if it is its task's whole work."""

    @functools.wraps(original)
    async def begin(*args: Any, **kwargs: Any) -> Any:
        if seam.active and is_all_of_its_task():
            handoff.begin_in(NO_CONTEXT)
        return await original(*args, **kwargs)

    return begin


def is_all_of_its_task() -> bool:
    """Whether the calling coroutine is the whole work of its task, with no other awaiting it."""
    try:
        outermost: Any = getattr(_coroutine_of_task(), "cr_frame", None)
        frame = caller()
        while frame is not None and frame is not outermost:
            frame = frame.f_back
            name = "" if frame is None else str(frame.f_globals.get("__name__"))
            if not name.startswith(_RUNS_FOR_OTHERS):
                return False
        return frame is not None
    except Exception as error:
        handoff.report_fault("begin a task", error)
        return False


def _coroutine_of_task() -> Any:
    """Return the coroutine that the current task of asyncio, or of trio, runs."""
    asyncio: Any = sys.modules.get("asyncio")
    if asyncio is not None and asyncio.events._get_running_loop() is not None:
        task = asyncio.current_task()
        return None if task is None else task.get_coro()
    trio: Any = sys.modules.get("trio")
    if trio is None:
        return None
    try:
        return trio.lowlevel.current_task().coro
    except RuntimeError:  # nor is it a task of trio's
        return None


def rounds(original: Any, seam: Seam, primitive: str = "asyncio") -> Any:
    """Wrap a function that starts periodic work, whose root spans link to the starting span.

    The links say that the work was handed off through ``primitive``.
    """

    @functools.wraps(original)
    def start(*args: Any, **kwargs: Any) -> Any:
        context = _of_rounds(primitive) if seam.active else None
        if context is None:
            return original(*args, **kwargs)
        return handoff.as_flow_that_begins(context, original, *args, **kwargs)

    return start


def _of_rounds(primitive: str) -> Context | None:
    """Return the context for periodic work that is started now; None to keep the current one."""
    try:
        current = get_current()
        context = origins.deferred(current, primitive, "periodic")
    except Exception as error:
        handoff.report_fault("start periodic work", error)
        return None
    else:
        return None if context is current else context


def source(original: Any, seam: Seam) -> Any:
    """Wrap a coroutine function that gets a message, or None."""

    @functools.wraps(original)
    async def get(*args: Any, **kwargs: Any) -> Any:
        message = await original(*args, **kwargs)
        if message is not None:
            _leave_what_is_over(seam)
        return message

    return get


def generator(original: Any, seam: Seam) -> Any:
    """Wrap an asynchronous generator function of messages."""

    @functools.wraps(original)
    def generate(*args: Any, **kwargs: Any) -> Any:
        return Messages(original(*args, **kwargs), lambda _: _leave_what_is_over(seam))

    return generate


class Messages(AsyncGenerator[Any, Any]):
    """Wraps an asynchronous generator; calls ``got`` with each message in the consumer's flow.

    This is a class and not a generator: contexts that a wrapping generator attaches would stay with
    it, and not reach the consumer.
    """

    __slots__ = ("_generator", "_got")

    def __init__(self, generator: Any, got: Callable[[object], None]) -> None:
        self._generator = generator
        self._got = got

    async def asend(self, value: Any) -> Any:
        message = await self._generator.asend(value)
        self._got(message)
        return message

    def athrow(self, *args: Any) -> Any:
        return self._generator.athrow(*args)

    def aclose(self) -> Any:
        return self._generator.aclose()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._generator, name)


def _leave_what_is_over(seam: Seam) -> None:
    """Switch this flow to the empty context, if it is in the context of a span that has ended."""
    try:
        span: Any = get_current().get(_SPAN_KEY) if seam.active else None
        if span is not None and getattr(span, origins.END, None) is not None:
            handoff.begin_in(NO_CONTEXT)
    except Exception as error:
        handoff.report_fault("get a message", error)
