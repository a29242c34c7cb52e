"""``signal``: a handler runs in an empty context, whatever its thread does when the signal comes.

In the interpreter's table of handlers, a :class:`_Handler` stands in for each handler. ``signal()``
and ``getsignal()`` still return the handler that the program has registered.
"""

from __future__ import annotations

import functools
from types import BuiltinFunctionType, ModuleType
from typing import Any

from otel_concurrency._core import handoff
from otel_concurrency._core.handoff import NO_CONTEXT, Call, Seam
from otel_concurrency._core.patching import Layer, Patch


def _layers(signal: ModuleType, seam: Seam) -> list[Patch]:
    return [
        _Registered(signal, seam),
        Layer(signal, "signal", lambda raw: _signal(raw, seam)),
        Layer(signal, "getsignal", _getsignal),
    ]


MODULES = {"signal": _layers}


class _Handler:
    """Stands in for a handler where the interpreter calls it."""

    __slots__ = ("_handler", "_seam")

    def __init__(self, handler: Any, seam: Seam) -> None:
        self._handler = handler
        self._seam = seam

    def __call__(self, /, *args: Any) -> Any:
        if self._seam.active and handoff.is_concerned(self._seam):
            return Call(NO_CONTEXT, self._handler)(*args)
        return self._handler(*args)

    @property
    def __wrapped__(self) -> Any:
        return self._handler

    def __getattr__(self, name: str) -> Any:
        return getattr(self._handler, name)

    def __eq__(self, other: object) -> bool:
        return bool(self._handler == _plain(other))

    def __hash__(self) -> int:
        return hash(self._handler)


def _plain(handler: Any) -> Any:
    """Return the handler that the program has registered."""
    return handler.__wrapped__ if type(handler) is _Handler else handler


def _standing_in(handler: Any, seam: Seam) -> Any:
    """Return the stand-in for ``handler``; ``handler`` itself where the interpreter provides it."""
    if not callable(handler) or isinstance(handler, (_Handler, BuiltinFunctionType)):
        return handler
    return _Handler(handler, seam)


def _standing_in_safely(handler: Any, seam: Seam) -> Any:
    try:
        return _standing_in(handler, seam)
    except Exception as error:
        handoff.report_fault("register a signal handler", error)
        return handler


class _Registered:
    """The handlers that were registered before instrumenting; applied and undone as a layer is.

    Only the main thread can register a handler. On other threads ``apply`` and ``undo`` leave the
    table as it is. A stand-in that remains after ``undo`` only calls its handler.
    """

    layers = ()  # as in `QueueHooks`: it replaces no attributes

    def __init__(self, signal: ModuleType, seam: Seam) -> None:
        # The builtins below the module's functions, which others may have patched before `undo`.
        # The module's `valid_signals` makes a member of an enumeration of each number.
        builtin: Any = __import__("_signal")
        self._signals: Any = builtin.valid_signals
        self._get, self._set = builtin.getsignal, builtin.signal
        self._seam = seam

    def apply(self) -> None:
        """Replace each handler by a stand-in."""
        self._exchange(functools.partial(_standing_in, seam=self._seam))

    def undo(self) -> None:
        """Replace each stand-in by its handler."""
        self._exchange(_plain)

    def _exchange(self, other: Any) -> None:
        try:
            for number in self._signals():
                handler = self._get(number)
                instead = other(handler)
                if instead is not handler:
                    self._set(number, instead)
        except ValueError:  # this is not the main thread
            pass
        except Exception as error:
            handoff.report_fault("register signal handlers", error)


def _signal(original: Any, seam: Seam) -> Any:
    @functools.wraps(original)
    def signal(signalnum: Any, handler: Any) -> Any:
        if seam.active:
            handler = _standing_in_safely(handler, seam)
        return _plain(original(signalnum, handler))

    return signal


def _getsignal(original: Any) -> Any:
    @functools.wraps(original)
    def getsignal(signalnum: Any) -> Any:
        return _plain(original(signalnum))

    return getsignal
