"""Qt, by PySide6 and by PyQt6: threads, pools, single shots, and loops.

THREADING covers a ``QThread`` whose class overrides ``run``, FUTURES what is handed to a
``QThreadPool``, and SCHED ``QTimer.singleShot``. Qt's loops keep no context, so whoever runs one
does so in no context: what they call belongs to nobody, unless it was posted in a context. A signal
that is emitted to a slot in the same thread is an ordinary call.

Qt finds an overridden method in the attributes of the object first. So the context waits there, in
a callable that removes itself when it is called.
"""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable
from types import FunctionType, MethodType, ModuleType
from typing import Any

from otel_concurrency._core import handoff
from otel_concurrency._core.handoff import NO_CONTEXT, BodyCall, Call, Seam
from otel_concurrency._core.patching import Layer, Patch, definer
from otel_concurrency._linking.posted import post

TESTED = ("6.7.0", "6.12.0")

_RUN = "run"

_type: Any = type  # untyped: an object of Qt is of any type


def _thread_layers(core: ModuleType, seam: Seam) -> list[Patch]:
    return [_layer(core.QThread, "start", lambda raw: _start_thread(raw, seam))]


def _pool_layers(core: ModuleType, seam: Seam) -> list[Patch]:
    return [
        _layer(core.QThreadPool, name, lambda raw: _start_in_pool(raw, core.QRunnable, seam))
        for name in ("start", "tryStart")
    ]


def _timer_layers(core: ModuleType, seam: Seam) -> list[Patch]:
    return [
        _layer(core.QTimer, "singleShot", lambda raw: _single_shot(raw, core, seam), static=True),
        _loop(core.QCoreApplication, seam),
        _loop(core.QEventLoop, seam),
        _loop(core.QThread, seam),
    ]


def _application_layers(module: ModuleType, seam: Seam) -> list[Patch]:
    names = ("QGuiApplication", "QApplication", "QDialog")
    owners = [vars(module)[name] for name in names if name in vars(module)]
    return [_loop(owner, seam) for owner in owners if "exec" in vars(owner)]


_BINDINGS = ("PySide6", "PyQt6")

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


def _layer(owner: type, name: str, wrap: Callable[[Any], Any], *, static: bool = False) -> Layer:
    """Return a layer for a method in C, which has no signature, and may not be callable itself."""

    def advice(raw: Any) -> Any:
        if static:
            return staticmethod(wrap(raw.__get__(None, owner)))
        return wrap(raw if callable(raw) else _bound_first(raw, owner))

    return Layer(owner, name, advice, check_signature=False)


def _bound_first(raw: Any, owner: type) -> Any:
    """Return a descriptor of sip's, which cannot be called, as a function that takes ``self``."""

    @functools.wraps(raw.__get__(None, owner))
    def original(self: Any, /, *args: Any, **kwargs: Any) -> Any:
        return raw.__get__(self, type(self))(*args, **kwargs)

    return original


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
    @functools.wraps(original)
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
    @functools.wraps(original)
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
    takes_context = core.__name__.startswith("PySide6")

    @functools.wraps(original)
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


def _loop(owner: type, seam: Seam) -> Layer:
    def wrap(original: Any) -> Any:
        @functools.wraps(original)
        def run(*args: Any, **kwargs: Any) -> Any:
            if not (seam.active and handoff.is_concerned(seam)):
                return original(*args, **kwargs)
            return Call(NO_CONTEXT, original)(*args, **kwargs)

        return run

    return _layer(owner, "exec", wrap, static=owner.__name__.endswith("Application"))
