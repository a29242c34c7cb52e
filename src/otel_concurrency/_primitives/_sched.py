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
from typing import Any, cast

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
        _otel_concurrency_call = cast("Call | None", None)

        __new__ = _new(plain.__new__, seam)

        def __iter__(self) -> Any:
            call = self._otel_concurrency_call
            caller = sys._getframe(1)  # pyright: ignore[reportPrivateUsage]  # documented
            if call is None or caller.f_code is not loop:
                return fields(self)
            time, priority, sequence, _, argument, kwargs = fields(self)
            return iter((time, priority, sequence, call, argument, kwargs))

        def __reduce__(self) -> Any:
            return sys.modules[plain.__module__].Event, tuple(self)

    return Event


def _new(original: Any, seam: Seam) -> Any:
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
        self = original(_cls, time, priority, sequence, action, argument, kwargs)
        call = _handoff.call(seam, action)
        if call is not None:
            self._otel_concurrency_call = call
        return self

    return __new__


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
        call: Call | None = getattr(queued, "_otel_concurrency_call", None)
        return call
    except ValueError:  # as the scheduler is about to say
        return None
    except Exception as error:
        _handoff.report("cancel", error)
        return None
