"""kivy: callbacks that are scheduled on its Clock, and loops.

The setting SCHED covers them. What is scheduled once, and what a trigger calls, runs in the context
in which it was scheduled, or the trigger was called; a callback that schedules itself again is
periodic. Each round of an interval is a trace of its own, with a link to where it was scheduled.
Whoever runs a loop does so in no context: what is touched or drawn belongs to nobody.

An event of the clock is an object in C that keeps a callback for one frame, and then, if that is a
method, its object weakly. So it is given a callback that carries the context, and, for what it
keeps after that, a weak reference that makes such a callback anew each time. These count as equal
to the program's own, by which it is found when it is unscheduled.

What is scheduled from a ``__del__`` (``schedule_del_safe``) is left alone: it is in whatever
context an object happened to be collected in.
"""

from __future__ import annotations

import functools
from types import ModuleType
from typing import Any

from opentelemetry.context import Context

from otel_concurrency._clean_starts import wrappers
from otel_concurrency._core import handoff
from otel_concurrency._core.handoff import NO_CONTEXT, Call, Seam
from otel_concurrency._core.patching import Layer, Patch
from otel_concurrency._linking import origins
from otel_concurrency._linking.posted import Posted, captured

TESTED = ("2.2.0", "2.3.1")

_CLOCKS = (
    "ClockBase",
    "ClockBaseInterrupt",
    "ClockBaseFreeInterruptAll",
    "ClockBaseFreeInterruptOnly",
)

_OF_AN_EVENT = ("callback", "weak_callback", "loop")


def _clock_layers(clock: ModuleType, seam: Seam) -> list[Patch]:
    for attribute in _OF_AN_EVENT:
        getattr(clock.ClockEvent, attribute)  # raises where a version has other events
    return [
        Layer(owner, name, functools.partial(wrap, seam=seam))
        for owner in [vars(clock)[name] for name in _CLOCKS]
        for name, wrap in {
            "schedule_once": _schedule_once,
            "schedule_once_free": _schedule_once,
            "schedule_interval": _schedule_interval,
            "schedule_interval_free": _schedule_interval,
            "on_schedule": _on_schedule,
        }.items()
        if hasattr(owner, name)
    ]


def _reference_layers(_clock: ModuleType, seam: Seam) -> list[Patch]:
    return [Layer(_clock, "WeakMethod", _weak_method)]


def _loop_layers(base: ModuleType, seam: Seam) -> list[Patch]:
    loop = vars(base)["EventLoopBase"]
    return [
        Layer(loop, "mainloop", lambda raw: wrappers.flow(raw, seam)),
        Layer(loop, "idle", lambda raw: wrappers.flow(raw, seam)),
        Layer(loop, "async_mainloop", lambda raw: wrappers.asynchronous_flow(raw, seam)),
        Layer(loop, "async_idle", lambda raw: wrappers.asynchronous_flow(raw, seam)),
    ]


MODULES = {
    "sched": {
        "kivy._clock": _reference_layers,
        "kivy.clock": _clock_layers,
        "kivy.base": _loop_layers,
    }
}


class _Next:
    """The context in which an event is called the next time; of an interval, each time."""

    __slots__ = ("context", "is_new", "repeats", "seam")

    def __init__(self, seam: Seam, repeats: bool) -> None:
        self.seam = seam
        self.repeats = repeats
        self.context: Context | None = None
        self.is_new = False
        """Whether the clock has not yet said that the event is scheduled."""

    def capture(self, callback: Any) -> None:
        """Have the event be called in the present context. May raise."""
        if self.repeats:
            now = self.seam.capture(callback) or NO_CONTEXT
            self.context = origins.deferred(now, self.seam.name, "periodic")
        else:
            self.context = captured(self.seam, callback)


class _Scheduled(Posted):
    """A callback of an event."""

    __slots__ = ("next",)

    def __init__(self, callback: Any, following: _Next) -> None:
        super().__init__(NO_CONTEXT, callback)
        self.primitive = following.seam.name
        self.next = following

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        self._context = self.next.context if self.next.seam.active else None
        if not self.next.repeats:
            self.next.context = None
        return super().__call__(*args, **kwargs)

    def plain(self) -> Any:
        """Return the program's callback."""
        return self._function


class _WeaklyScheduled:
    """What an event keeps instead of a callback: kivy's weak reference, and a context."""

    __slots__ = ("_reference", "next")

    def __init__(self, reference: Any, following: _Next) -> None:
        self._reference = reference
        self.next = following

    def __call__(self) -> Any:
        callback = self._reference()
        waits = callback is not None and self.next.context is not None
        return _Scheduled(callback, self.next) if waits else callback

    def plain(self) -> Any:
        """Return the program's callback; None if its object is gone."""
        return self._reference()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reference, name)


_PLACED = (_Scheduled, _WeaklyScheduled)


def _weak_method(original: Any) -> Any:
    @functools.wraps(original, updated=())
    def WeakMethod(method: Any) -> Any:  # noqa: N802
        if isinstance(method, _Scheduled):
            return _WeaklyScheduled(original(method.plain()), method.next)
        return original(method)

    return WeakMethod


def _schedule_once(original: Any, seam: Seam) -> Any:
    @functools.wraps(original)
    def schedule(self: Any, callback: Any, *args: Any, **kwargs: Any) -> Any:
        return original(self, _carrying(seam, callback, repeats=False), *args, **kwargs)

    return schedule


def _schedule_interval(original: Any, seam: Seam) -> Any:
    @functools.wraps(original)
    def schedule(self: Any, callback: Any, *args: Any, **kwargs: Any) -> Any:
        return original(self, _carrying(seam, callback, repeats=True), *args, **kwargs)

    return schedule


def _carrying(seam: Seam, callback: Any, *, repeats: bool) -> Any:
    """Return a callback that is scheduled now so that it carries the context. Never raises."""
    if not seam.active or isinstance(callback, Call) or not callable(callback):
        return callback
    try:
        following = _Next(seam, repeats)
        following.capture(callback)
        following.is_new = True
        return _Scheduled(callback, following)
    except Exception as error:
        handoff.report_fault("schedule", error)
        return callback


def _on_schedule(original: Any, seam: Seam) -> Any:
    """Wrap what the clock calls in the thread that has scheduled an event, or called a trigger."""

    @functools.wraps(original)
    def on_schedule(self: Any, event: Any) -> Any:
        if seam.active:
            _note(event, seam)
        return original(self, event)

    return on_schedule


def _note(event: Any, seam: Seam) -> None:
    """Have an event be called in the present context, unless it carries that already.

    Never raises.
    """
    try:
        kept = event.callback
        is_weak = kept is None
        if is_weak:
            kept = event.weak_callback
        if isinstance(kept, _PLACED):
            if kept.next.is_new:
                kept.next.is_new = False
            else:
                kept.next.capture(kept.plain())
            return
        callback = event.get_callback()
        if callback is None:
            return
        following = _Next(seam, bool(event.loop))
        following.capture(callback)
        if is_weak:
            event.weak_callback = _WeaklyScheduled(kept, following)
        else:
            event.callback = _Scheduled(callback, following)
    except Exception as error:
        handoff.report_fault("on_schedule", error)
