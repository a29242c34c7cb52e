"""``concurrent.futures``: work submitted to a thread pool, and callbacks of futures.

``submit`` makes a work item, which a worker runs. The context is captured when the item is made and
attached when it is run, so the user's callable is never replaced. In between, the context waits in
the item's future, in the place of the result that is not there yet. If the future is cancelled or
failed before it runs, the context is dropped at once, although the item may wait for a worker for
long.

A callback runs in the context in which it was registered, as asyncio's do (PEP 567). If it was
registered without a context it runs without a context, whichever thread completes the future.

A pool's workers are shared, so they belong to no trace. They start with an empty context, whatever
started them (a traced request, another instrumentor, ``sys.flags.thread_inherit_context``). After
every task the worker is back in the context that it had before, even if the task came without a
context and forgot to detach one that it attached itself.
"""

from __future__ import annotations

import functools
import inspect
import sys
from _thread import get_ident
from collections.abc import Callable
from types import ModuleType
from typing import Any

from opentelemetry.context import Context

from otel_concurrency._core import compiled, handoff
from otel_concurrency._core.callers import caller
from otel_concurrency._core.handoff import (
    NO_CONTEXT,
    Call,
    DirectCall,
    Seam,
    adopted,
    ages,
    bodies,
    capture_nothing,
)
from otel_concurrency._core.patching import Layer, StandIn
from otel_concurrency._core.signatures import NOT_GIVEN
from otel_concurrency._linking import flows


def _base_layers(base: ModuleType, seam: Seam) -> list[Layer]:
    return [Layer(base.Future, "add_done_callback", _adding_callbacks(base, seam))]


def _thread_layers(thread: ModuleType, seam: Seam) -> list[Layer]:
    handoff.after_failed_start.add(_let_go_of_submitted)
    return [
        Layer(thread, "_WorkItem", lambda raw: _work_item(raw, seam)),
        Layer(thread._base.Future, "cancel", _cancel),
        Layer(thread._base.Future, "set_exception", _set_exception),
        _StartsOfThreads(thread.ThreadPoolExecutor, "_adjust_thread_count", _adjust_thread_count),
        Layer(thread, "_worker", lambda raw: _worker(raw, seam)),
    ]


MODULES = {"concurrent.futures._base": _base_layers, "concurrent.futures.thread": _thread_layers}


def _work_item(plain: Any, seam: Seam) -> Any:
    """Return a class of work items that carry a context, and leave none behind on their worker.

    It is a subclass, not a patch of ``plain``, so that an item that is waiting when the library is
    switched off still runs in its context.
    """
    functions = compiled.functions

    class _WorkItem(plain, metaclass=StandIn):  # type: ignore[misc]  # a base known at run time
        stands_in_for = plain
        __module__ = plain.__module__

        # The body is written twice because one more call would cost as much as all the rest.
        if sys.version_info >= (3, 14):

            @functools.wraps(plain.__init__)
            def __init__(self, future: Any, task: Any) -> None:
                plain.__init__(self, future, task)
                try:
                    context = seam.capture(task[0])
                    if context is not None and not isinstance(task[0], Call):
                        future._result = context
                except Exception as error:
                    handoff.report_fault("submit", error)

        else:

            @functools.wraps(plain.__init__)  # type: ignore[misc]  # it looks like the plain one
            def __init__(self, future: Any, fn: Any, args: Any, kwargs: Any) -> None:
                plain.__init__(self, future, fn, args, kwargs)
                try:
                    context = seam.capture(fn)
                    if context is not None and not isinstance(fn, Call):
                        future._result = context
                except Exception as error:
                    handoff.report_fault("submit", error)

        @functools.wraps(plain.run)
        def run(self, ctx: Any = NOT_GIVEN) -> Any:
            before = token = body = None
            thread = 0
            # An executor may run the item in the middle of other work, which then goes on.
            record = adopted.get() if handoff.any_adopted else None
            try:
                before = handoff.get_current()
                context = self.future._result
                if isinstance(context, Context):  # the future is neither cancelled nor completed
                    self.future._result = None
                    token = handoff.attach(context)
                    thread = get_ident()
                    body = bodies.get(thread)
                    bodies[thread] = context
                    if ages:
                        ages.pop(thread, None)
                context = None  # otherwise this frame would keep the context alive
            except Exception as error:
                handoff.report_fault("attach", error)
            try:
                if ctx is NOT_GIVEN:  # to 3.13
                    return plain.run(self)
                return plain.run(self, ctx)
            finally:
                try:
                    if handoff.any_adopted and adopted.get() is not record:
                        adopted.set(record)  # let go of the items that the task adopted
                    if token is not None:
                        if ages:
                            ages.pop(thread, None)
                        if body is None:
                            bodies.pop(thread, None)
                        else:
                            bodies[thread] = body
                        handoff.detach(token)
                    elif handoff.get_current() is not before and before is not None:
                        handoff.attach(before)  # the task forgot to detach
                except Exception as error:
                    handoff.report_fault("detach", error)
                # The future may hold a traceback with this frame, which keeps no context alive.
                before = token = body = record = None
                del self

        if functions is not None:
            __init__ = functions.method("_WorkItem.__init__", __init__, seam, plain.__init__)
            run = functions.method("_WorkItem.run", run, seam, plain.run)

    if functions is not None:
        functions.make_directly(_WorkItem)
    flows.pick_ups.add(inspect.unwrap(plain.run).__code__)  # a method in C has no frame
    return _WorkItem


class _StartsOfThreads(Layer):
    """Notices that a pool could not start a thread, unless the patch of ``Thread.start`` does.

    Some programs build their pools from a copy of the patched method. So it is replaced only where
    ``Thread.start`` is not patched.
    """

    __slots__ = ()

    def apply(self) -> None:
        """Be in place unless ``Thread.start`` is patched."""
        threads = handoff.seams.get("threading")
        if threads is None or not threads.active or "threading" in threads.left_alone:
            super().apply()
        else:
            self.undo()


def _adjust_thread_count(original: Any) -> Any:
    @functools.wraps(original)
    def _adjust_thread_count(self: Any) -> Any:
        try:
            return original(self)
        except BaseException:
            _let_go_of_submitted()
            raise

    return _adjust_thread_count


def _let_go_of_submitted() -> None:
    """Drop the context of the task in ``submit``, because the pool cannot start a thread for it.

    ``submit`` is about to raise. The work item stays in the pool's queue, and its future can only
    be reached through the frame of ``submit``.
    """
    try:
        thread: Any = sys.modules["concurrent.futures.thread"]
        submit = inspect.unwrap(thread.ThreadPoolExecutor.submit).__code__
        frame = caller()
        while frame is not None and frame.f_code is not submit:
            frame = frame.f_back
        for value in () if frame is None else frame.f_locals.values():
            if isinstance(value, thread._base.Future) and isinstance(value._result, Context):
                value._result = None
    except Exception as error:
        handoff.report_fault("submit", error)


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
        self._result = None  # a pool whose initializer failed sets this on all waiting futures

    return set_exception


def _adding_callbacks(base: ModuleType, seam: Seam) -> Callable[[Any], Any]:
    """Return what wraps ``Future.add_done_callback``.

    A direct call has no frame. It is for futures that call it in the one place where it is looked
    for (:func:`flows.is_calling`), not for those that call their callbacks in a way of their own.
    """
    calls = getattr(base.Future, "_invoke_callbacks", None)
    is_known = getattr(calls, "__globals__", None) is vars(base)
    stock = base.Future if is_known and DirectCall is not Call else None
    return lambda raw: _add_done_callback(raw, seam, stock)


def _add_done_callback(original: Any, seam: Seam, stock: type | None) -> Any:
    calls: Any = getattr(stock, "_invoke_callbacks", None)

    @functools.wraps(original)
    def add_done_callback(self: Any, fn: Any) -> Any:
        context, kind, capture = None, None, seam.capture
        try:
            if capture is not capture_nothing and getattr(fn, "__module__", None) != _CHAINING:
                # Also without a context: the thread that completes the future may have one.
                kind = Call
                if not isinstance(fn, Call):
                    context = capture(fn)
                if calls and getattr(self.__class__, "_invoke_callbacks", None) is calls:
                    kind = DirectCall
        except Exception as error:
            handoff.report_fault("capture", error)
            kind = Call
        if kind is not None and callable(fn):
            fn = kind(NO_CONTEXT if context is None else context, fn)
        context = None  # a traceback of this frame must not keep it alive
        return original(self, fn)

    if compiled.functions is None:
        return add_done_callback
    kind = "Future.add_done_callback"
    return compiled.functions.method(kind, add_done_callback, seam, original, stock)


_CHAINING = "asyncio.futures"
"""The module of asyncio's internal callbacks, which pass a result on to the event loop's thread."""


def _worker(original: Any, seam: Seam) -> Any:
    @functools.wraps(original)
    def _worker(*args: Any, **kwargs: Any) -> Any:
        token = None
        if seam.active and handoff.current_safely():
            token = handoff.attach_safely(NO_CONTEXT)
        try:
            return original(*args, **kwargs)
        finally:
            handoff.leave(token)
            token = None

    return _worker
