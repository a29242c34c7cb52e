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
from _thread import get_ident
from types import CodeType, ModuleType
from typing import Any

from otel_concurrency import _handoff, _rounds
from otel_concurrency._handoff import Call, Seam, capture_nothing
from otel_concurrency._patching import Layer, StandIn
from otel_concurrency._rounds import running


def _layers(sched: ModuleType, seam: Seam) -> list[Layer]:
    loop = inspect.unwrap(sched.scheduler.run).__code__
    return [
        Layer(sched, "Event", lambda event: _capturing(event, seam, loop)),
        Layer(sched.scheduler, "cancel", _cancel),
        Layer(sched.scheduler, "run", lambda raw: _run(raw, seam, loop)),
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
            if running:
                context = _rounds.following(seam, action, action, context)
            if context is not None and type(action) is not Call:
                action = Call(context, action)
        except Exception as error:
            _handoff.report("enter", error)
        return _make(_cls, (time, priority, sequence, action, argument, kwargs))

    return __new__


class _Loop:
    """The rounds of one thread's ``scheduler.run``: its actions, one after the other.

    Which one runs is looked up in the loop's own frame, where somebody asks: a span that starts, an
    action that enters another. To be told of every action would cost all of them.
    """

    __slots__ = ("_code", "_name", "_round", "_sequence")

    def __init__(self, code: CodeType, name: str) -> None:
        self._code = code
        self._name = name
        self._round: _rounds.Round | None = None
        self._sequence: Any = None

    def current(self) -> _rounds.Round | None:
        frame: Any = sys._getframe(1)  # pyright: ignore[reportPrivateUsage]  # documented
        while frame is not None and frame.f_code is not self._code:
            frame = frame.f_back
        if frame is None:
            return None
        seen = frame.f_locals
        waits, action, sequence = seen.get("delay"), seen.get("action"), seen.get("sequence")
        if not _LIVE_LOCALS:
            seen.clear()  # a copy that lives as long as the loop, and refers to what has run
        if waits or action is None:
            return None
        if self._round is None or sequence != self._sequence:
            self.end()
            self._sequence = sequence
            function = action.__wrapped__ if type(action) is Call else action
            self._round = _rounds.Round(function, self._name)
        return self._round

    def end(self) -> None:
        """End the round that was seen last."""
        if self._round is not None:
            self._round.end()


_LIVE_LOCALS = sys.version_info >= (3, 13)
"""Whether a frame's ``f_locals`` is a view of its variables, and not a copy."""


class _Unseen:
    """A thread's ``scheduler.run`` of which nobody has asked yet which round it is in."""

    __slots__ = ("_code", "_name")

    def __init__(self, code: CodeType, name: str) -> None:
        self._code = code
        self._name = name

    def current(self) -> _rounds.Round | None:
        loop = running[get_ident()] = _Loop(self._code, self._name)
        return loop.current()

    def end(self) -> None:
        """There is nothing to end."""


def _run(original: Any, seam: Seam, loop: CodeType) -> Any:
    unseen = _Unseen(loop, seam.name)

    @functools.wraps(original)
    def run(self: Any, blocking: Any = True) -> Any:
        if seam.capture is capture_nothing:
            return original(self, blocking)
        thread = get_ident()
        outer = running.get(thread) if running else None
        running[thread] = unseen
        try:
            return original(self, blocking)
        finally:
            seen = running.pop(thread, unseen)
            if seen is not unseen:
                seen.end()
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
        return action if type(action) is Call else None
    except ValueError:  # as the scheduler is about to say
        return None
    except Exception as error:
        _handoff.report("cancel", error)
        return None
