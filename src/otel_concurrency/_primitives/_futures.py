"""``concurrent.futures``: work submitted to a thread pool, and callbacks of futures.

What is submitted is made into a work item, which a worker runs. The context is captured where the
item is made and attached where it is run, so the user's callable is never replaced. In between it
rests with the item's future, in the place of the result that it does not have yet: a future that is
cancelled or failed before it runs lets go at once, though its item may wait for a worker for long.

A callback runs in the context of its registration, as asyncio's do (PEP 567): where it was
registered without one it runs without one, whoever completes the future.

A pool's workers belong to nobody. They start clean, whatever started them (a traced request,
another instrumentor, ``sys.flags.thread_inherit_context``), and every task leaves its worker as it
found it, also the one that was handed off without a context and forgets to detach its own.
"""

from __future__ import annotations

import functools
import sys
from types import ModuleType
from typing import Any

from opentelemetry.context import Context

from otel_concurrency import _handoff
from otel_concurrency._handoff import NO_CONTEXT, Call, Seam
from otel_concurrency._patching import Layer


def _base_layers(base: ModuleType, seam: Seam) -> list[Layer]:
    return [
        Layer(base.Future, "add_done_callback", lambda raw: _add_done_callback(raw, seam)),
        Layer(base.Future, "cancel", _cancel),
        Layer(base.Future, "set_exception", _set_exception),
    ]


def _thread_layers(thread: ModuleType, seam: Seam) -> list[Layer]:
    item, executor = thread._WorkItem, thread.ThreadPoolExecutor
    carrying = _carrying(item)
    return [
        Layer(item, "__init__", lambda raw: _make(raw, seam, carrying)),
        Layer(item, "run", lambda raw: _run(raw, seam, carrying)),
        Layer(executor, "_adjust_thread_count", _adjust_thread_count),
        Layer(thread, "_worker", lambda raw: _worker(raw, seam)),
    ]


MODULES = {"concurrent.futures._base": _base_layers, "concurrent.futures.thread": _thread_layers}


def _make(original: Any, seam: Seam, carrying: Any) -> Any:
    """Return an ``__init__`` of work items that makes one with a context a ``carrying`` one."""

    @functools.wraps(original)
    def from_fn(self: Any, future: Any, fn: Any, args: Any, kwargs: Any) -> None:
        original(self, future, fn, args, kwargs)
        try:
            context = seam.capture(fn)
            if context is not None and type(fn) is not Call:
                future._result = context
                self.__class__ = carrying
        except Exception as error:
            _handoff.report("submit", error)

    @functools.wraps(original)
    def from_task(self: Any, future: Any, task: Any) -> None:
        original(self, future, task)
        try:
            context = seam.capture(task[0])
            if context is not None and type(task[0]) is not Call:
                future._result = context
                self.__class__ = carrying
        except Exception as error:
            _handoff.report("submit", error)

    return from_task if sys.version_info >= (3, 14) else from_fn


def _carrying(item: Any) -> Any:
    """Return the class of the work items that have a context.

    A class of its own, so that items which wait while the library is switched off still run in it.
    """

    class CarryingWorkItem(item):  # type: ignore[misc]  # a base known at run time
        tidied: Any = None  # what our patch of `run` replaces
        tidying: Any = None  # what it replaces it by

        def run(self, worker: Any = None) -> Any:
            token = None
            try:
                future = self.future
                context = future._result
                if isinstance(context, Context):  # neither cancelled nor completed by somebody
                    future._result = None
                    token = _handoff.attach(context)
                context = None  # it is not to outlive the work in this frame
            except Exception as error:
                _handoff.report("attach", error)
            run = item.run  # somebody may have patched it meanwhile; ours has nothing to add
            if run is CarryingWorkItem.tidying:
                run = CarryingWorkItem.tidied
            try:
                if worker is None:  # to 3.13
                    return run(self)
                return run(self, worker)
            finally:
                try:
                    if token is not None:
                        _handoff.detach(token)
                except Exception as error:
                    _handoff.report("detach", error)
                token = None  # nor is this: a traceback may lead through here

    return CarryingWorkItem


def _run(original: Any, seam: Seam, carrying: Any) -> Any:
    """Return a ``run`` for work items without a context, which leaves none behind either."""

    @functools.wraps(original)
    def run(self: Any, worker: Any = None) -> Any:
        before = _handoff.current_safely()
        try:
            if worker is None:  # to 3.13
                return original(self)
            return original(self, worker)
        finally:
            if _handoff.current_safely() is not before:
                _restore(seam, before)
            before = None  # it is not to outlive the work in this frame

    carrying.tidied, carrying.tidying = original, run
    return run


def _adjust_thread_count(original: Any) -> Any:
    @functools.wraps(original)
    def _adjust_thread_count(self: Any) -> Any:
        try:
            return original(self)
        except BaseException:
            # No thread could be started, and `submit` will raise. What it was about to return is
            # nowhere but in its frame; the work item stays in the queue.
            submit = sys._getframe(1)  # pyright: ignore[reportPrivateUsage]  # documented
            for value in submit.f_locals.values():
                if isinstance(getattr(value, "_result", None), Context):
                    value._result = None
            raise

    return _adjust_thread_count


def _cancel(original: Any) -> Any:
    @functools.wraps(original)
    def cancel(self: Any) -> Any:
        cancelled = original(self)
        if cancelled:
            self._result = None
        return cancelled

    return cancel


def _set_exception(original: Any) -> Any:
    @functools.wraps(original)
    def set_exception(self: Any, exception: Any) -> Any:
        original(self, exception)
        self._result = None  # a pool whose initializer failed fails what waits for it

    return set_exception


def _add_done_callback(original: Any, seam: Seam) -> Any:
    @functools.wraps(original)
    def add_done_callback(self: Any, fn: Any) -> Any:
        if getattr(fn, "__module__", None) != _CHAINING and seam.active and callable(fn):
            # Also without a context: whoever completes the future may be in somebody's.
            fn = _handoff.call(seam, fn) or Call(NO_CONTEXT, fn)
        return original(self, fn)

    return add_done_callback


_CHAINING = "asyncio.futures"
"""Where asyncio's own callbacks come from: they pass a result on to the event loop's thread."""


def _worker(original: Any, seam: Seam) -> Any:
    @functools.wraps(original)
    def _worker(*args: Any) -> Any:
        token = None
        if seam.active and _handoff.current_safely():
            token = _handoff.attach_safely(NO_CONTEXT)
        try:
            return original(*args)
        finally:
            _handoff.leave(token)
            token = None

    return _worker


def _restore(seam: Seam, context: Context | None) -> None:
    """Go back to ``context``: somebody has attached something and not detached it."""
    if context is not None and seam.active:
        _handoff.attach_safely(context)
