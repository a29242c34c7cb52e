"""``sched``: an action runs in the context in which it was entered.

``scheduler.enterabs`` looks up ``Event`` in its module to make every event. While the library is
switched on, that name is a subclass that captures. Its instances hold a one-shot call in the place
of the action. Only the loop of ``scheduler.run``, which unpacks an event to call its action, sees
that call. All other code that looks at the event finds the action that the user gave.

An action that was entered without a context runs without a context, even if the loop runs in one,
such as that of the request that started the loop's thread.
"""

from __future__ import annotations

import functools
import inspect
import sys
from _thread import get_ident
from types import CodeType, ModuleType
from typing import Any

from otel_concurrency._core import compiled, handoff
from otel_concurrency._core.handoff import (
    NO_CONTEXT,
    Call,
    DirectCall,
    Seam,
    adopted,
    capture_nothing,
    get_current,
)
from otel_concurrency._core.handoff import capture as plain_capture
from otel_concurrency._core.patching import Layer, StandIn
from otel_concurrency._linking import rounds
from otel_concurrency._linking.flows import LIVE_LOCALS, is_calling
from otel_concurrency._linking.rounds import Job, Round, running


def _layers(sched: ModuleType, seam: Seam) -> list[Layer]:
    run = inspect.unwrap(sched.scheduler.run)
    if run.__globals__ is not vars(sched):
        raise TypeError("scheduler.run is no longer the function of the module sched")
    loop = run.__code__
    return [
        Layer(sched, "Event", lambda event: _capturing(event, seam, loop)),
        Layer(sched.scheduler, "cancel", _cancel),
        Layer(sched.scheduler, "run", lambda raw: _run(raw, seam, loop)),
    ]


MODULES = {"sched": _layers}


_ACTION = 3
"""The index of the action in an event."""

_getframe = sys._getframe  # pyright: ignore[reportPrivateUsage]  # documented

# The plain methods of `tuple`, which skip what a subclass overrides. `getattr` is for the type
# checkers, which would complain of such direct calls.
_make: Any = getattr(tuple, "__new__")  # noqa: B009
_held: Any = getattr(tuple, "__getitem__")  # noqa: B009


def _capturing(plain: Any, seam: Seam, loop: CodeType) -> Any:
    """Return a subclass of the named tuple ``plain`` whose instances carry a context."""
    held = plain.__iter__

    def seen(event: Any) -> list[Any]:
        values = list(held(event))
        if type(values[_ACTION]) is DirectCall:
            values[_ACTION] = values[_ACTION].__wrapped__
        return values

    class Event(plain, metaclass=StandIn):  # type: ignore[misc]  # a base known at run time
        stands_in_for = plain
        __module__ = plain.__module__
        __slots__ = ()
        __new__ = _new(plain.__new__, seam, loop)
        action = property(lambda self: seen(self)[_ACTION], doc=plain.action.__doc__)

        def __iter__(self) -> Any:
            try:
                if _getframe(1).f_code is not loop:
                    return iter(seen(self))
            except ValueError:  # there is no calling frame: a thread starts in this function
                return iter(seen(self))
            # The loop is about to run this event's action, unless it has to wait for it.
            if _asked and (thread := get_ident()) in running:
                rounds.end(thread)
                running[thread] = self
            try:
                if (
                    not (get_current() or adopted.get())
                    or type(_held(self, _ACTION)) is DirectCall
                    or seam.capture is capture_nothing
                ):
                    return held(self)
                return _clean(held(self))
            except Exception as error:
                handoff.report_fault("get_current", error)
                return held(self)

        def _begin_round(self) -> Round:
            return Round(Job(*seen(self)[_ACTION:]), seam.name)

        def __getitem__(self, index: Any) -> Any:
            return tuple(seen(self))[index]

        def __reduce__(self) -> Any:
            return sys.modules[plain.__module__].Event, tuple(self)

        if compiled.functions is not None and held is vars(tuple)["__iter__"]:
            __iter__ = compiled.functions.method(
                "Event.__iter__", __iter__, seam, held, loop, _asked
            )

    if compiled.functions is not None:
        compiled.functions.make_directly(Event)
    return Event


def _clean(values: Any) -> Any:
    """Return the fields of an event; an action that carries no context will run in an empty one."""
    values = list(values)
    action = values[_ACTION]
    if type(action) is not DirectCall and callable(action):
        values[_ACTION] = DirectCall(NO_CONTEXT, action)
    return iter(values)


def _new(original: Any, seam: Seam, loop: CodeType) -> Any:
    @functools.wraps(original)
    def __new__(  # noqa: N807 - its name is seen in the message of a TypeError
        _cls: Any,
        time: Any,
        priority: Any,
        sequence: Any,
        action: Any,
        argument: Any,
        kwargs: Any,
    ) -> Any:
        try:
            capture = seam.capture
            # One call less where it would say the same.
            context = (get_current() or None) if capture is plain_capture else capture(action)
            if running:
                before = rounds.repeated(Job(action, argument, kwargs))
                if before is not None and _is_inside(action, loop):
                    context = rounds.following(before, seam, action, context)
            if context is not None and type(action) is not DirectCall:
                action = DirectCall(context, action)
        except Exception as error:
            handoff.report_fault("enter", error)
        return _make(_cls, (time, priority, sequence, action, argument, kwargs))

    return __new__


def _is_inside(action: Any, loop: CodeType) -> bool:
    """Whether the calling code runs inside ``action``, called by the loop.

    The loop also calls ``delayfunc``, which may do unrelated work.
    """
    frame: Any = _getframe(1)
    while frame.f_back is not None and frame.f_back.f_code is not loop:
        frame = frame.f_back
    while isinstance(action, functools.partial):
        action = action.func
    code = getattr(action, "__code__", None) or getattr(type(action).__call__, "__code__", None)
    return frame.f_back is not None and (
        code is None or frame.f_code in (code, *CALLS) or is_calling(frame.f_back)
    )


CALLS = {Call.__call__.__code__}
"""The code of the functions whose frames may lie between the loop and an action."""


_asked: list[bool] = []
"""Not empty once a span was started inside an action: then it matters which action is running.

Until then schedulers need not record the event that they run.
"""


class _Unnoted:
    """Stands for a thread's ``scheduler.run`` that has not recorded an event yet."""

    __slots__ = ("_loop", "_name")

    def __init__(self, loop: CodeType, name: str) -> None:
        self._loop = loop
        self._name = name

    def _begin_round(self) -> Round | None:
        """Return the round that is running, read this once from the loop's local variables."""
        _asked[:] = (True,)
        frame: Any = _getframe(1)
        while frame is not None and frame.f_code is not self._loop:
            frame = frame.f_back
        if frame is None:
            return None
        seen = frame.f_locals
        delay, action = seen.get("delay"), seen.get("action")
        function = action.__wrapped__ if type(action) is DirectCall else action
        job = Job(function, seen.get("argument", ()), seen.get("kwargs", {}))
        if not LIVE_LOCALS and frame.f_trace is None:
            seen.clear()  # this copy of the variables lives as long as the loop
        return None if delay or action is None else Round(job, self._name)


def _run(original: Any, seam: Seam, loop: CodeType) -> Any:
    unnoted = _Unnoted(loop, seam.name)

    @functools.wraps(original)
    def run(self: Any, blocking: Any = True) -> Any:
        if seam.capture is capture_nothing:
            return original(self, blocking)
        thread = get_ident()
        outer = running.get(thread) if running else None
        running[thread] = unnoted
        try:
            return original(self, blocking)
        finally:
            rounds.end(thread)
            if outer is not None:
                running[thread] = outer

    return run


def _cancel(original: Any) -> Any:
    @functools.wraps(original)
    def cancel(self: Any, event: Any) -> Any:
        call = _call_of(self, event)
        result = original(self, event)
        if call is not None:
            call.release()
        return result

    return cancel


def _call_of(scheduler: Any, event: Any) -> Call | None:
    """Return the call of the event that is about to be removed: ``event``, or one equal to it."""
    try:
        with scheduler._lock:
            queued = scheduler._queue[scheduler._queue.index(event)]
        action = _held(queued, _ACTION)
        return action if type(action) is DirectCall else None
    except ValueError:  # no such event; the original is about to raise the same error
        return None
    except Exception as error:
        handoff.report_fault("cancel", error)
        return None
