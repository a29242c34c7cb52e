"""Watches threads that wake each other up, and hand work over in between: in a list, say.

That is no hand-off that anybody could carry a context over. But where a thread is woken inside a
span, and then starts a span of its own without a parent, it is known what it has lost.
"""

from __future__ import annotations

import functools
import sys
import weakref
from _thread import get_ident
from collections import deque
from types import FrameType, ModuleType
from typing import Any

from otel_concurrency._insight import _flow, _frames, _state
from otel_concurrency._insight._flow import hand_off
from otel_concurrency._insight._records import Record
from otel_concurrency._patching import Layer

_MOST = 1000
"""How many who have notified of something are kept of a condition."""


class _Signals:
    """Who has notified of something through a condition or an event, and who waits for it."""

    __slots__ = ("consumers", "pending", "reference")

    def __init__(self, reference: weakref.ref[Any]) -> None:
        self.reference = reference
        self.pending: deque[Record] = deque(maxlen=_MOST)
        self.consumers: set[int] = set()


_signals: dict[int, _Signals] = {}

woken: dict[int, tuple[Record, int]] = {}
"""By thread: who has woken it up last, and when (Unix ns) it took notice."""


def forget() -> None:
    """Start anew."""
    _signals.clear()
    woken.clear()


def _layers(threading: ModuleType) -> list[Layer]:
    return [
        Layer(threading.Condition, "notify", lambda raw: _notifying(raw, "Condition.notify")),
        Layer(threading.Condition, "wait", _wait),
        Layer(threading.Condition, "__exit__", _exit),
        Layer(threading.Event, "set", lambda raw: _notifying(raw, "Event.set")),
        Layer(threading.Event, "wait", _wait_for_event),
    ]


MODULES = {"threading": _layers}

_HELPERS = ("notify_all", "wait_for", "notifyAll")


def _is_the_programs(frame: FrameType | None) -> bool:
    """Whether it is no method of the standard library's that notifies, or waits, for itself."""
    while frame is not None and frame.f_code.co_name in _HELPERS:
        frame = frame.f_back
    return _state.watching() and frame is not None and not _frames.is_standard_library(frame.f_code)


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
            if _is_the_programs(sys._getframe(1)):  # pyright: ignore[reportPrivateUsage]
                record = hand_off("threading", call, quiet=True)
                if record is not None:
                    _of(self).pending.append(record)
        except Exception as error:
            _state.fault("notify", error)
        return original(self, *args, **kwargs)

    return notify


def _wait(original: Any) -> Any:
    @functools.wraps(original)
    def wait(self: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            if _is_the_programs(sys._getframe(1)):  # pyright: ignore[reportPrivateUsage]
                _of(self).consumers.add(get_ident())
        except Exception as error:
            _state.fault("wait", error)
        return original(self, *args, **kwargs)

    return wait


def _exit(original: Any) -> Any:
    @functools.wraps(original)
    def __exit__(self: Any, *args: Any) -> Any:  # noqa: N807
        try:
            signals = _signals.get(id(self))
            if signals is not None and get_ident() in signals.consumers:
                _take(signals)
        except Exception as error:
            _state.fault("__exit__", error)
        return original(self, *args)

    return __exit__


def _wait_for_event(original: Any) -> Any:
    @functools.wraps(original)
    def wait(self: Any, *args: Any, **kwargs: Any) -> Any:
        is_set = original(self, *args, **kwargs)
        try:
            if _is_the_programs(sys._getframe(1)):  # pyright: ignore[reportPrivateUsage]
                if is_set:
                    _take(_of(self))
                else:
                    woken.pop(get_ident(), None)
        except Exception as error:
            _state.fault("wait", error)
        return is_set

    return wait


def _take(signals: _Signals) -> None:
    """Note who has notified of what this thread is about to do."""
    if signals.pending:
        woken[get_ident()] = signals.pending.popleft(), _flow.now()
    else:
        woken.pop(get_ident(), None)
