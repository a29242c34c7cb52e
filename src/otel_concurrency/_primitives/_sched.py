"""``sched``: an action runs in the context in which it was entered.

``scheduler.enterabs`` makes every event by the module's name ``Event``; while we are on, that name
is a subclass that captures. In the place of the action its instances hold a one-shot call, and only
the loop of ``scheduler.run``, which unpacks an event to call its action, gets to see that. Whoever
else looks at the event finds the action that the user gave.
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


_ACTION = 3
"""The place of the action in an event."""

# What a tuple does by itself, whatever its class: to type checkers a class's own affair.
_make: Any = getattr(tuple, "__new__")  # noqa: B009
_held: Any = getattr(tuple, "__getitem__")  # noqa: B009


def _capturing(plain: Any, seam: Seam, loop: CodeType) -> Any:
    """Return a subclass of the named tuple ``plain`` whose instances carry a context."""
    held = plain.__iter__

    def seen(event: Any) -> list[Any]:
        values = list(held(event))
        if type(values[_ACTION]) is Call:
            values[_ACTION] = values[_ACTION].__wrapped__
        return values

    class Event(plain, metaclass=StandIn):  # type: ignore[misc]  # a base known at run time
        stands_in_for = plain
        __module__ = plain.__module__
        __slots__ = ()
        __new__ = _new(plain.__new__, seam)
        action = property(lambda self: seen(self)[_ACTION], doc=plain.action.__doc__)

        def __iter__(self) -> Any:
            caller = sys._getframe(1)  # pyright: ignore[reportPrivateUsage]  # documented
            return held(self) if caller.f_code is loop else iter(seen(self))

        def __getitem__(self, index: Any) -> Any:
            return tuple(seen(self))[index]

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
        try:
            context = seam.capture(action)
            if context is not None and type(action) is not Call:
                action = Call(context, action)
        except Exception as error:
            _handoff.report("enter", error)
        return _make(_cls, (time, priority, sequence, action, argument, kwargs))

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
        action = _held(queued, _ACTION)
        return action if type(action) is Call else None
    except ValueError:  # as the scheduler is about to say
        return None
    except Exception as error:
        _handoff.report("cancel", error)
        return None
