"""Watches threads that wake each other up, and hand work over in between: in a list, say.

No hook can carry a context over such a hand-off. But where a thread is woken inside a span, and
then starts a span without a parent, the parent that it lost is known.
"""

from __future__ import annotations

import functools
import weakref
from _thread import get_ident
from collections import deque
from types import FrameType, ModuleType
from typing import Any, NamedTuple

from otel_concurrency._core import handoff
from otel_concurrency._core.callers import caller
from otel_concurrency._core.patching import Layer
from otel_concurrency._observer import flows, frames, state
from otel_concurrency._observer.flows import hand_off
from otel_concurrency._observer.records import Record

_MOST = 1000
"""How many who have notified of something are kept of a condition."""


class _Waiter:
    """A thread that takes the lock of a condition."""

    __slots__ = ("has_used", "line", "looked", "taken")

    def __init__(self) -> None:
        self.line = 0
        """Where it has waited last; 0: it never has."""
        self.taken = 0
        """How often it has gone on since with what others had notified of."""
        self.looked = 0
        """How often it has held the lock for none of that: to see how things stand."""
        self.has_used = False
        """Whether it has waited or notified since it holds the lock."""

    def waits_at(self, line: int) -> None:
        """Note that it waits: at the same line as before, or for something else."""
        self.has_used = True
        if line != self.line:
            self.line, self.taken = line, 0

    @property
    def takes_work(self) -> bool:
        """Whether what it waits for is work, as far as it has shown."""
        return self.taken > max(self.looked, 1)


class _Signals:
    """Who has notified of something through a condition or an event, and who waits for it.

    Most of what is waited for is a state: something is ready, goes on again, has ended. What is
    done then is nobody's in particular. It is work of whoever has notified of it where a thread
    waits for one after the other: it clears the event itself, or takes the condition's lock, most
    of the time, to wait and to go on.
    """

    __slots__ = ("clears", "pending", "reference", "waiters")

    def __init__(self, reference: weakref.ref[Any]) -> None:
        self.reference = reference
        self.pending: deque[Record] = deque(maxlen=_MOST)
        self.clears: set[int] = set()
        self.waiters: dict[int, _Waiter] = {}

    def hand_work_to(self, thread: int) -> bool:
        """Whether it is work that ``thread`` waits for."""
        waiter = self.waiters.get(thread)
        return thread in self.clears or (waiter is not None and waiter.takes_work)

    def waiter(self) -> _Waiter:
        """Return the record of this thread."""
        return self.waiters.setdefault(get_ident(), _Waiter())


class Woken(NamedTuple):
    """What a thread has been woken up by."""

    record: Record
    since: int
    """Unix ns."""
    signals: _Signals


_signals: dict[int, _Signals] = {}

_woken: dict[int, Woken] = {}


def forget() -> None:
    """Start anew."""
    _signals.clear()
    _woken.clear()


def take() -> Woken | None:
    """Return what has woken this thread up to do what it begins now: once."""
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
    """Whether it is no method of the standard library's that notifies, or waits, for itself."""
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
                signals.pending.clear()  # a thread that waits has found all of it done
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
    """Note that this thread goes on with the next of what was notified of, if there is any."""
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
                    signals.pending.clear()  # it is set once, by however many
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
    """Note that ``records`` have woken this thread up: not if it goes on with what it is about."""
    of_several = len({record.origin and record.origin[0] for record in records}) > 1
    if records and not (of_several or flows.has_running_span(handoff.get_current())):
        _woken[get_ident()] = Woken(records[-1], flows.now(), signals)
