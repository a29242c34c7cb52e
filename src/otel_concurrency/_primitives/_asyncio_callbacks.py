"""``asyncio``: callbacks for descriptors and signals, timers that repeat, and ``Runner``.

asyncio runs a callback in a copy of the context in which it was registered. That is right for work
that is handed off. But the reader of a descriptor and the handler of a signal are not part of the
request that happened to register them: they run in an empty context. A ``call_later`` callback that
schedules itself again would prolong for ever the trace in which it was first registered. So from
its second round on, each round starts a new trace with a link to the round before, as a
``threading.Timer`` does.

A ``Runner`` runs everything in one contextvars context. What one ``run()`` attaches and fails to
detach must not reach the next ``run()``.
"""

from __future__ import annotations

import functools
import sys
from _thread import get_ident
from types import ModuleType
from typing import Any

from otel_concurrency._core import handoff
from otel_concurrency._core.handoff import NO_CONTEXT, Seam, as_flow_that_begins
from otel_concurrency._core.patching import Layer, Patch
from otel_concurrency._linking import rounds
from otel_concurrency._linking.rounds import Job, Round, running


def _timer_layers(events: ModuleType, seam: Seam) -> list[Patch]:
    return [Layer(events.TimerHandle, "_run", lambda raw: _run_timer(raw, seam))]


def _loop_layers(base_events: ModuleType, seam: Seam) -> list[Patch]:
    global _wakes_a_sleeper  # noqa: PLW0603
    _wakes_a_sleeper = getattr(base_events.futures, "_set_result_unless_cancelled", None)
    return [Layer(base_events.BaseEventLoop, "call_at", lambda raw: _call_at(raw, seam))]


def _reader_layers(selector_events: ModuleType, seam: Seam) -> list[Patch]:
    loop = selector_events.BaseSelectorEventLoop
    return [
        Layer(loop, name, lambda raw: _add_reader(raw, seam))
        for name in ("add_reader", "add_writer")
    ]


def _signal_layers(unix_events: ModuleType, seam: Seam) -> list[Patch]:
    loop = unix_events._UnixSelectorEventLoop
    return [Layer(loop, "add_signal_handler", lambda raw: _add_signal_handler(raw, seam))]


def _runner_layers(runners: ModuleType, seam: Seam) -> list[Patch]:
    if sys.version_info < (3, 11):  # `Runner` does not exist there
        return []
    return [Layer(runners.Runner, "run", lambda raw: _run(raw, seam))]


MODULES = {
    "asyncio.base_events": _loop_layers,
    "asyncio.events": _timer_layers,
    "asyncio.runners": _runner_layers,
    "asyncio.selector_events": _reader_layers,
    "asyncio.unix_events": _signal_layers,
}


def _add_reader(original: Any, seam: Seam) -> Any:
    @functools.wraps(original)
    def add_reader(self: Any, fd: Any, callback: Any, *args: Any) -> Any:
        if not (seam.active and handoff.is_concerned(seam)):
            return original(self, fd, callback, *args)
        return as_flow_that_begins(NO_CONTEXT, original, self, fd, callback, *args)

    return add_reader


def _add_signal_handler(original: Any, seam: Seam) -> Any:
    @functools.wraps(original)
    def add_signal_handler(self: Any, sig: Any, callback: Any, *args: Any) -> Any:
        if not (seam.active and handoff.is_concerned(seam)):
            return original(self, sig, callback, *args)
        return as_flow_that_begins(NO_CONTEXT, original, self, sig, callback, *args)

    return add_signal_handler


# Timers that schedule themselves again.


class _Unasked:
    """A timer that is running. Its round is made only when it is asked for, since few are."""

    __slots__ = ("_handle", "_name")

    def __init__(self, handle: Any, name: str) -> None:
        self._handle = handle
        self._name = name

    def _begin_round(self) -> Round:
        return Round(Job(self._handle._callback, self._handle._args), self._name)


_wakes_a_sleeper: Any = None
"""The callback of ``asyncio.sleep``. Most timers have it, and it does no work."""


def _run_timer(original: Any, seam: Seam) -> Any:
    @functools.wraps(original)
    def _run(self: Any) -> Any:
        if not seam.active or self._callback is _wakes_a_sleeper:
            return original(self)
        thread = get_ident()
        outer = running.get(thread) if running else None
        running[thread] = _Unasked(self, seam.name)
        try:
            return original(self)
        finally:
            rounds.end(thread)
            if outer is not None:
                running[thread] = outer

    return _run


def _call_at(original: Any, seam: Seam) -> Any:
    @functools.wraps(original)
    def call_at(self: Any, when: Any, callback: Any, *args: Any, context: Any = None) -> Any:
        following = None
        # A context that the user passes explicitly always wins.
        if context is None and running:
            following = _context_of_next_round(seam, callback, args)
        if following is None:
            timer = original(self, when, callback, *args, context=context)
        else:
            timer = as_flow_that_begins(following, original, self, when, callback, *args)
        if getattr(timer, "_source_traceback", None):
            _forget_our_frames(timer._source_traceback)
        return timer

    return call_at


def _forget_our_frames(traceback: list[Any]) -> None:
    """Remove this library's frames from the end of a timer's traceback (debug mode).

    It then ends at the line that scheduled the timer, as without the library.
    """
    while traceback and traceback[-1].filename in _OUR_FILES:
        del traceback[-1]


_OUR_FILES = (__file__, handoff.__file__)


def _context_of_next_round(seam: Seam, callback: Any, args: Any) -> Any:
    """Return the context for a callback that repeats the one that runs now.

    None means that it is not a repetition.
    """
    try:
        before = rounds.repeated(Job(callback, args)) if seam.active else None
        if before is None:
            return None
        return rounds.following(before, seam, callback, handoff.get_current() or None)
    except Exception as error:
        handoff.report_fault("call_at", error)
        return None


# Runners.


def _run(original: Any, seam: Seam) -> Any:
    @functools.wraps(original)
    def run(self: Any, coro: Any, *, context: Any = None) -> Any:
        if context is not None or not seam.active:
            return original(self, coro, context=context)
        before = _begins_in(self)
        try:
            return original(self, coro, context=context)
        finally:
            _leave(self, before)
            before = None  # this frame lives as long as a traceback that the user keeps

    return run


def _begins_in(runner: Any) -> Any:
    """Return the context in which the next run begins; None where that is unknown."""
    try:
        if runner._context is None:  # the runner is about to copy the current context
            return handoff.get_current()
        return runner._context.run(handoff.get_current)
    except Exception:  # a nested run, for which the original is about to raise
        return None


def _leave(runner: Any, before: Any) -> None:
    """Reset the runner to the context ``before``, whatever the last run has left attached."""
    try:
        if runner._context is not None and before is not None:
            runner._context.run(handoff.begin_in, before)
    except Exception as error:
        handoff.report_fault("run", error)
