"""``sched``: an action runs in the context in which it was entered.

``scheduler.enterabs`` makes every event by the module's name ``Event``; while we are on, that name
is a subclass that captures. The event that the user holds has the action that the user gave, in
every way of looking at it. Only the loop of ``scheduler.run``, which unpacks an event to call its
action, is given the one-shot call instead.
"""

from __future__ import annotations

import functools
import inspect
import sys
from types import CodeType, ModuleType
from typing import Any

from otel_concurrency import _handoff
from otel_concurrency._handoff import Call, Seam
from otel_concurrency._patching import Layer, StandIn


def _layers(sched: ModuleType, seam: Seam) -> list[Layer]:
    loop = inspect.unwrap(sched.scheduler.run).__code__
    return [
        Layer(sched, "Event", lambda event: _capturing(event, seam, loop)),
        Layer(sched.scheduler, "cancel", _cancel),
    ]


MODULES = {"sched": _layers}


def _capturing(plain: Any, seam: Seam, loop: CodeType) -> Any:
    """Return a subclass of the named tuple ``plain`` whose instances carry a context."""
    fields = plain.__iter__

    class Event(plain, metaclass=StandIn):  # type: ignore[misc]  # a base known at run time
        stands_in_for = plain
        __module__ = plain.__module__
        _otel_concurrency_context = None

        __new__ = _new(plain.__new__, seam)

        def __iter__(self) -> Any:
            context = self._otel_concurrency_context
            if context is None:
                return fields(self)
            caller = sys._getframe(1)  # pyright: ignore[reportPrivateUsage]  # documented
            if caller.f_code is not loop:
                return fields(self)
            time, priority, sequence, _, argument, kwargs = fields(self)
            call = self._otel_concurrency_call
            return iter((time, priority, sequence, call, argument, kwargs))

        def _otel_concurrency_call(self, /, *args: Any, **kwargs: Any) -> Any:
            token = None
            try:
                context = self._otel_concurrency_context
                if context is not None:
                    self._otel_concurrency_context = None
                    token = _handoff.attach(context)
                    context = None  # it is not to outlive the action in this frame
            except Exception as error:
                _handoff.report("attach", error)
            try:
                return self.action(*args, **kwargs)
            finally:
                _handoff.leave(token)
                token = None  # nor is this: a traceback may lead through here

        def __reduce__(self) -> Any:
            return sys.modules[plain.__module__].Event, tuple(self)

    return Event


def _new(original: Any, seam: Seam) -> Any:
    make: Any = getattr(tuple, "__new__")  # noqa: B009 - typed for tuples alone

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
        self: Any = make(_cls, (time, priority, sequence, action, argument, kwargs))
        try:
            context = seam.capture(action)
            if context is not None and type(action) is not Call:
                self._otel_concurrency_context = context
        except Exception as error:
            _handoff.report("enter", error)
        return self

    return __new__


def _cancel(original: Any) -> Any:
    @functools.wraps(original)
    def cancel(self: Any, event: Any) -> Any:
        queued = _queued(self, event)
        result = original(self, event)
        if getattr(queued, "_otel_concurrency_context", None) is not None:
            queued._otel_concurrency_context = None
        return result

    return cancel


def _queued(scheduler: Any, event: Any) -> Any:
    """Return the event that is about to be removed: ``event``, or one equal to it."""
    try:
        with scheduler._lock:
            return scheduler._queue[scheduler._queue.index(event)]
    except ValueError:  # as the scheduler is about to say
        return None
    except Exception as error:
        _handoff.report("cancel", error)
        return None
