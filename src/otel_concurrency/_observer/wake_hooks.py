"""Watches threads that hand work over in a plain container, such as a list, and wake each other.

No hook can carry a context over such a hand-off. But if code inside a span wakes a thread, which
then starts a span without a parent, the lost parent is known.
"""

from __future__ import annotations

import functools
import weakref
from _thread import get_ident
from collections import deque
from types import FrameType, ModuleType
from typing import Any, NamedTuple

from otel_concurrency._core import frames, handoff
from otel_concurrency._core.callers import caller
from otel_concurrency._core.patching import Layer
from otel_concurrency._observer import flows, state
from otel_concurrency._observer.flows import hand_off
from otel_concurrency._observer.records import Record

_MOST = 1000
"""The maximum number of notifications that are remembered for a condition or event."""


class _Waiter:
    """A thread that takes the lock of a condition."""

    __slots__ = ("has_used", "line", "looked", "taken")

    def __init__(self) -> None:
        self.line = 0
        """The line at which it waited last; 0 if it never has."""
        self.taken = 0
        """How often it has gone on, since it waits at that line, with a notification of others."""
        self.looked = 0
        """How often it has held the lock without waiting, notifying or taking a notification."""
        self.has_used = False
        """Whether it has waited or notified since it took the lock."""

    def waits_at(self, line: int) -> None:
        """Note that it waits. At another line than before, it waits for something else."""
        self.has_used = True
        if line != self.line:
            self.line, self.taken = line, 0

    @property
    def takes_work(self) -> bool:
        """Whether its behaviour so far suggests that it waits for work."""
        return self.taken > max(self.looked, 1)


class _Signals:
    """The notifications of one condition or event, and the threads that wait for it.

    Most threads wait for a state: something is ready, continues, or has ended. What they do then
    does not belong to the flow that notified them. It does belong to that flow if a thread waits
    for one piece of work after the other. Such a thread clears the event itself, or mostly takes
    the condition's lock in order to wait and to go on.
    """

    __slots__ = ("clears", "pending", "reference", "waiters")

    def __init__(self, reference: weakref.ref[Any]) -> None:
        self.reference = reference
        self.pending: deque[Record] = deque(maxlen=_MOST)
        self.clears: set[int] = set()
        self.waiters: dict[int, _Waiter] = {}

    def hand_work_to(self, thread: int) -> bool:
        """Whether ``thread`` waits for work, and not for a state."""
        waiter = self.waiters.get(thread)
        return thread in self.clears or (waiter is not None and waiter.takes_work)

    def waiter(self) -> _Waiter:
        """Return the record of this thread."""
        return self.waiters.setdefault(get_ident(), _Waiter())


class Woken(NamedTuple):
    """The notification that woke a thread up."""

    record: Record
    since: int
    """Unix ns."""
    signals: _Signals


_signals: dict[int, _Signals] = {}

_woken: dict[int, Woken] = {}


def forget() -> None:
    """Reset the recorded state."""
    _signals.clear()
    _woken.clear()


def take() -> Woken | None:
    """Return what woke this thread up for the work that it begins now; the next call gets None."""
    woken = _woken.pop(get_ident(), None)
    return woken if woken is not None and woken.signals.hand_work_to(get_ident()) else None


def _layers(threading: ModuleType) -> list[Layer]:
    return [
        Layer(threading.Condition, "notify", lambda raw: _notifying(raw, "Condition.notify")),
        Layer(threading.Condition, "wait", _wait),
        Layer(threading.Condition, "__exit__", _exit),
        Layer(threading.Event, "set", lambda raw: _notifying(raw, "Event.set")),
        Layer(threading.Event, "wait", _wait_for_event),
        Layer(threading.Event, "clear", _clear),
    ]


MODULES = {"threading": _layers}

_HELPERS = ("notify_all", "wait_for", "notifyAll")


def _caller(frame: FrameType | None) -> FrameType | None:
    while frame is not None and frame.f_code.co_name in _HELPERS:
        frame = frame.f_back
    return frame


def _is_the_programs(frame: FrameType | None) -> bool:
    """Whether the program notifies or waits here, and not the standard library internally."""
    frame = _caller(frame)
    return state.watching() and frame is not None and not frames.is_standard_library(frame.f_code)


def _line(frame: FrameType | None) -> int:
    frame = _caller(frame)
    return 0 if frame is None else frame.f_lineno


def _of(thing: Any) -> _Signals:
    key = id(thing)
    signals = _signals.get(key)
    if signals is None or signals.reference() is not thing:
        signals = _Signals(weakref.ref(thing, lambda _: _signals.pop(key, None)))
        _signals[key] = signals
    return signals


def _notifying(original: Any, call: str) -> Any:
    @functools.wraps(original)
    def notify(self: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            if _is_the_programs(caller()):
                record = hand_off("threading", call, quiet=True)
                if record is not None:
                    signals = _of(self)
                    signals.pending.append(record)
                    signals.waiter().has_used = True
        except Exception as error:
            state.fault("notify", error)
        return original(self, *args, **kwargs)

    return notify


def _wait(original: Any) -> Any:
    @functools.wraps(original)
    def wait(self: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            frame = caller()
            if frame is not None and _is_the_programs(frame):
                signals = _of(self)
                signals.pending.clear()  # a thread that waits has found no work left to do
                signals.waiter().waits_at(_line(frame))
        except Exception as error:
            state.fault("wait", error)
        return original(self, *args, **kwargs)

    return wait


def _exit(original: Any) -> Any:
    @functools.wraps(original)
    def __exit__(self: Any, *args: Any) -> Any:  # noqa: N807
        try:
            signals = _signals.get(id(self))
            if signals is not None:
                _leave(signals, signals.waiter())
        except Exception as error:
            state.fault("__exit__", error)
        return original(self, *args)

    return __exit__


def _leave(signals: _Signals, waiter: _Waiter) -> None:
    """Note that this thread goes on with the next pending notification, if there is one."""
    _woken.pop(get_ident(), None)
    others = _by_others(signals)
    if others and waiter.line:
        signals.pending.remove(others[0])
        waiter.taken += 1
        _goes_on(others[:1], signals)
    elif not waiter.has_used:
        waiter.looked += 1
    waiter.has_used = False


def _wait_for_event(original: Any) -> Any:
    @functools.wraps(original)
    def wait(self: Any, *args: Any, **kwargs: Any) -> Any:
        is_set = original(self, *args, **kwargs)
        try:
            if _is_the_programs(caller()):
                _woken.pop(get_ident(), None)
                if is_set:
                    signals = _of(self)
                    others = _by_others(signals)
                    signals.pending.clear()  # an event wakes only once, however often it was set
                    _goes_on(others, signals)
        except Exception as error:
            state.fault("wait", error)
        return is_set

    return wait


def _clear(original: Any) -> Any:
    @functools.wraps(original)
    def clear(self: Any) -> None:
        try:
            if _is_the_programs(caller()):
                _of(self).clears.add(get_ident())
        except Exception as error:
            state.fault("clear", error)
        original(self)

    return clear


def _by_others(signals: _Signals) -> list[Record]:
    return [record for record in signals.pending if record.lineage[0] != get_ident()]


def _goes_on(records: list[Record], signals: _Signals) -> None:
    """Note that ``records`` have woken this thread up, unless it continues in its running span."""
    of_several = len({record.origin and record.origin[0] for record in records}) > 1
    if records and not (of_several or flows.has_running_span(handoff.get_current())):
        _woken[get_ident()] = Woken(records[-1], flows.now(), signals)
