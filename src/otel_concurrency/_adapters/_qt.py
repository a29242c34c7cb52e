"""Qt, by PySide6, PyQt6 and PyQt5: threads, pools, timers, and loops.

THREADING covers a ``QThread`` whose class overrides ``run``, FUTURES what is handed to a
``QThreadPool``, and SCHED ``QTimer``. Qt's loops keep no context, so whoever runs one does so in no
context: what they call belongs to nobody, unless it was posted in a context. A signal that is
emitted to a slot in the same thread is an ordinary call.

Qt finds an overridden method in the attributes of the object first. So the context waits there, in
the place of ``run`` or of ``timerEvent``.

Some of Qt's methods are slots as well: a signal may be connected to ``thread.start``, which Qt then
calls without Python, with as many of the signal's arguments as it takes. It has to be the original
method for that. So it is another one only where the program calls it at once.
"""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable
from types import FunctionType, MethodType, ModuleType
from typing import Any

from opentelemetry.context import Context

from otel_concurrency._core import handoff
from otel_concurrency._core.callers import caller, is_called_at_once
from otel_concurrency._core.handoff import NO_CONTEXT, BodyCall, Call, Seam
from otel_concurrency._core.patching import Layer, Patch, definer
from otel_concurrency._linking import origins
from otel_concurrency._linking.posted import post

TESTED = ("6.7.0", "6.12.0")

_RUN, _TIMER_EVENT = "run", "timerEvent"

# Not the docstring: PySide makes it of the signatures of all of the class, and remembers what it
# finds in a module that is being imported. On Python 3.10 a wrong argument then ends the process.
_NAMES = ("__module__", "__name__", "__qualname__")

_type: Any = type  # untyped: an object of Qt is of any type


def _thread_layers(core: ModuleType, seam: Seam) -> list[Patch]:
    return [_slot(core.QThread, "start", lambda raw: _start_thread(raw, seam))]


def _pool_layers(core: ModuleType, seam: Seam) -> list[Patch]:
    return [
        _layer(core.QThreadPool, name, lambda raw: _start_in_pool(raw, core.QRunnable, seam))
        for name in ("start", "tryStart")
    ]


def _timer_layers(core: ModuleType, seam: Seam) -> list[Patch]:
    return [
        _static(core.QTimer, "singleShot", lambda raw: _single_shot(raw, core, seam)),
        _slot(core.QTimer, "start", lambda raw: _start_timer(raw, core, seam)),
        _slot(core.QTimer, "stop", _stop_timer),
        *_loops(core, ("QCoreApplication", "QEventLoop", "QThread"), seam),
    ]


def _application_layers(module: ModuleType, seam: Seam) -> list[Patch]:
    return _loops(module, ("QGuiApplication", "QApplication", "QDialog"), seam)


_BINDINGS = ("PySide6", "PyQt6", "PyQt5")

MODULES = {
    "threading": {f"{binding}.QtCore": _thread_layers for binding in _BINDINGS},
    "futures": {f"{binding}.QtCore": _pool_layers for binding in _BINDINGS},
    "sched": {
        f"{binding}.{module}": advice
        for binding in _BINDINGS
        for module, advice in {
            "QtCore": _timer_layers,
            "QtGui": _application_layers,
            "QtWidgets": _application_layers,
        }.items()
    },
}


def _layer(owner: type, name: str, wrap: Callable[[Any], Any]) -> Layer:
    """Return a layer for a method in C, which has no signature, and may not be callable itself."""
    return Layer(owner, name, lambda raw: wrap(_with_self(raw, owner)), check_signature=False)


def _static(owner: type, name: str, wrap: Callable[[Any], Any]) -> Layer:
    def advice(raw: Any) -> Any:
        return staticmethod(wrap(raw.__get__(None, owner)))

    return Layer(owner, name, advice, check_signature=False)


def _slot(owner: type, name: str, wrap: Callable[[Any], Any]) -> Layer:
    def advice(raw: Any) -> Any:
        return _Slot(raw, wrap(_with_self(raw, owner)))

    return Layer(owner, name, advice, check_signature=False)


def _with_self(raw: Any, owner: type) -> Any:
    """Return a descriptor of sip's, which cannot be called, as a function that takes ``self``."""
    if callable(raw):
        return raw

    @functools.wraps(raw.__get__(None, owner), _NAMES)
    def original(self: Any, /, *args: Any, **kwargs: Any) -> Any:
        return raw.__get__(self, type(self))(*args, **kwargs)

    return original


class _Slot:
    """A method that is ours where it is called at once, and the original where it is handed on."""

    def __init__(self, raw: Any, function: Any) -> None:
        self.__wrapped__ = raw
        self._function = function

    def __get__(self, owner: Any, kind: Any = None) -> Any:
        try:
            frame = caller()
            if owner is not None and frame is not None and is_called_at_once(frame):
                return MethodType(self._function, owner)
        except Exception as error:
            handoff.report_fault("look up", error)
        return self.__wrapped__.__get__(owner, kind)


class _Run(BodyCall):
    """The method ``run`` of one object, once."""

    __slots__ = ("owner",)

    owner: weakref.ref[Any]

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        owner = self.owner()
        self.leave(owner)
        return super().__call__(owner, *args, **kwargs)

    def leave(self, owner: Any) -> None:
        """Remove this from its object."""
        if owner is not None and owner.__dict__.get(_RUN) is self:
            del vars(owner)[_RUN]


def _place(owner: Any, seam: Seam) -> _Run | None:
    """Have the next ``run`` of an object run in the present context. Never raises."""
    try:
        kind = definer(_type(owner), _RUN)
        method = vars(kind)[_RUN]
        if not seam.active or type(method) is not FunctionType or _RUN in vars(owner):
            return None  # it is not overridden, or in a way that is not known
        call = handoff.call(seam, method, _Run)
        if isinstance(call, _Run):
            call.owner = weakref.ref(owner)
            setattr(owner, _RUN, call)
            return call
    except Exception as error:
        handoff.report_fault("start", error)
    return None


def _start_thread(original: Any, seam: Seam) -> Any:
    @functools.wraps(original, _NAMES)
    def start(self: Any, *args: Any, **kwargs: Any) -> Any:
        placed = None if self.isRunning() else _place(self, seam)
        try:
            return original(self, *args, **kwargs)
        except BaseException:
            if placed is not None:
                placed.leave(self)
            raise

    return start


def _start_in_pool(original: Any, base: Any, seam: Seam) -> Any:
    @functools.wraps(original, _NAMES)
    def start(self: Any, work: Any, *args: Any, **kwargs: Any) -> Any:
        is_runnable = isinstance(work, base)
        placed = _place(work, seam) if is_runnable else None
        given = work if is_runnable else handoff.bind(seam, work, BodyCall)
        started = False
        try:
            result = original(self, given, *args, **kwargs)
            started = result is not False
        finally:
            if not started:
                if placed is not None:
                    placed.leave(work)
                elif isinstance(given, Call):
                    given.release()
        return result

    return start


def _single_shot(original: Any, core: Any, seam: Seam) -> Any:
    # In PyQt a function cannot be given together with the object in whose thread it is called, and
    # a method that is not its object's own is freed before it is called.
    takes_context = core.__name__.startswith("PySide")

    @functools.wraps(original, _NAMES)
    def singleShot(*args: Any, **kwargs: Any) -> Any:  # noqa: N802
        *others, slot = args or (None,)
        receiver = getattr(slot, "__self__", None)
        if kwargs or not seam.active or not callable(slot):
            return original(*args, **kwargs)
        if not isinstance(receiver, core.QObject):
            return original(*others, post(seam, slot))
        # Qt calls it in the thread of its object, which it does not keep alive.
        if len(others) == 1 and isinstance(slot, MethodType) and takes_context:
            return original(*others, receiver, post(seam, _WeakSlot(slot)))
        return original(*args)

    return singleShot


class _WeakSlot:
    """A method of an object of Qt's that is called if that is still there."""

    __slots__ = ("_method",)

    def __init__(self, method: Any) -> None:
        self._method = weakref.WeakMethod(method)

    def __call__(self, *args: Any) -> Any:
        method = self._method()
        return None if method is None else method(*args)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _WeakSlot) and self._method == other._method

    def __hash__(self) -> int:
        return hash(self._method)


def _start_timer(original: Any, core: Any, seam: Seam) -> Any:
    base = core.QTimer.__dict__[_TIMER_EVENT]

    @functools.wraps(original, _NAMES)
    def start(self: Any, *args: Any, **kwargs: Any) -> Any:
        result = original(self, *args, **kwargs)
        _remove(self)
        try:
            if seam.active and handoff.is_concerned(seam):
                _place_timeout(self, base, seam)
        except Exception as error:
            handoff.report_fault("start", error)
        return result

    return start


def _stop_timer(original: Any) -> Any:
    @functools.wraps(original, _NAMES)
    def stop(self: Any) -> Any:
        _remove(self)
        return original(self)

    return stop


def _place_timeout(timer: Any, base: Any, seam: Seam) -> None:
    """Have what a timer does run in the present context; each round linked to it. May raise.

    A timer that was started to ring once may start itself again, which makes it periodic, too.
    """
    method = vars(definer(_type(timer), _TIMER_EVENT))[_TIMER_EVENT]
    if _TIMER_EVENT in vars(timer) or not (method is base or type(method) is FunctionType):
        return  # it is overridden in a way that is not known
    if timer.isSingleShot():
        placed = post(seam, _Timeout(timer, method))
    else:
        context = seam.capture(method)
        if not context:
            return
        context = origins.deferred(context, seam.name, "periodic")
        placed = _Rounds(timer, method, context, seam)
    setattr(timer, _TIMER_EVENT, placed)


def _remove(timer: Any) -> None:
    """Have a timer be as it was before it was started in a context. Never raises."""
    try:
        attributes: dict[str, Any] = {} if timer is None else timer.__dict__
        if isinstance(attributes.get(_TIMER_EVENT), Call | _Timeout):
            del attributes[_TIMER_EVENT]
    except Exception as error:
        handoff.report_fault("stop", error)


class _Timeout:
    """What a timer does when it rings, once."""

    __slots__ = ("_method", "_timer")

    def __init__(self, timer: Any, method: Any) -> None:
        self._timer = weakref.ref(timer)
        self._method = method

    def __call__(self, event: Any) -> Any:
        _remove(self._timer())
        return self.ring(event)

    def ring(self, event: Any) -> Any:
        timer = self._timer()
        return None if timer is None else self._method.__get__(timer, type(timer))(event)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Timeout) and self._timer == other._timer

    def __hash__(self) -> int:
        return hash(self._timer)


class _Rounds(_Timeout):
    """What a timer does each time that it rings."""

    __slots__ = ("_context", "_seam")

    def __init__(self, timer: Any, method: Any, context: Context, seam: Seam) -> None:
        super().__init__(timer, method)
        self._context, self._seam = context, seam

    def __call__(self, event: Any) -> Any:
        return (Call(self._context, self.ring) if self._seam.active else self.ring)(event)


def _loops(module: ModuleType, names: tuple[str, ...], seam: Seam) -> list[Patch]:
    """Return layers for all that runs a loop: under its name of now, and under that of Qt 5."""
    # PySide makes a class when it is first asked for: it is not among the names before.
    owners = [getattr(module, name) for name in names if hasattr(module, name)]
    return [
        (_static if owner.__name__.endswith("Application") else _slot)(
            owner, name, lambda raw: _loop(raw, seam)
        )
        for owner in owners
        for name in ("exec", "exec_")
        if name in vars(owner)
    ]


def _loop(original: Any, seam: Seam) -> Any:
    @functools.wraps(original, _NAMES)
    def run(*args: Any, **kwargs: Any) -> Any:
        if not (seam.active and handoff.is_concerned(seam)):
            return original(*args, **kwargs)
        return Call(NO_CONTEXT, original)(*args, **kwargs)

    return run
