"""Twisted: calls that are handed to the reactor, cooperative tasks, and callbacks of a Deferred.

THREADING covers ``callFromThread``, ``callLater``, ``addSystemEventTrigger`` and with it
``callWhenRunning``, and the steps of a cooperative task. FUTURES covers callbacks, which run in the
context in which they were registered. A callback that was registered without a context runs without
a context, since the code that calls it may be inside a request. Threads of the reactor's pool,
coroutines and ``inlineCallbacks`` carry context by themselves.

Each round that a ``LoopingCall`` schedules starts a trace of its own, with a link to the span in
which the ``LoopingCall`` was started. The first round is often part of that call, and stays so.

The reactor serves the whole program, but parts of it are set up in the middle of a request, and
would keep that request's context. On asyncio these are its only timer and its readers and writers
(PEP 567). On any reactor they are the delayed call that all cooperative tasks share, and the
polling of files. All of these are set up in an empty context. It calls readers and writers for one
event after the other. Each event is work of its own: the item of a queue that one of them gets is
not the next one's.
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
from otel_concurrency._core.signatures import NOT_GIVEN
from otel_concurrency._items import adoption

TESTED = ("22.10.0", "26.10.0")

_CONTEXT = "_otel_concurrency_context"


def _reactor_layers(base: ModuleType, seam: Seam) -> list[Patch]:
    return [
        Layer(base.ReactorBase, "callFromThread", lambda raw: _call_from_thread(raw, seam)),
        Layer(base.ReactorBase, "callLater", lambda raw: _call_later(raw, seam)),
        Layer(base.ReactorBase, "addSystemEventTrigger", lambda raw: _add_trigger(raw, seam)),
    ]


def _asyncio_reactor_layers(asyncioreactor: ModuleType, seam: Seam) -> list[Patch]:
    reactor = asyncioreactor.AsyncioSelectorReactor
    return [_outside(reactor, name, seam) for name in ("_reschedule", "addReader", "addWriter")]


def _polling_layers(posixbase: ModuleType, seam: Seam) -> list[Patch]:
    return [
        _outside(posixbase._ContinuousPolling, "_checkLoop", seam),
        Layer(posixbase._PollLikeMixin, "_doReadOrWrite", _event),
    ]


def _selecting_layers(selectreactor: ModuleType, seam: Seam) -> list[Patch]:
    return [Layer(selectreactor.SelectReactor, "_doReadOrWrite", _event)]


def _kqueue_layers(kqreactor: ModuleType, seam: Seam) -> list[Patch]:
    return [Layer(kqreactor.KQReactor, "_doWriteOrRead", _event)]


def _task_layers(task: ModuleType, seam: Seam) -> list[Patch]:
    cooperative = task.CooperativeTask
    return [
        _outside(task.Cooperator, "_reschedule", seam),
        Layer(task.LoopingCall, "_scheduleFrom", lambda raw: wrappers.rounds(raw, seam, seam.name)),
        Layer(cooperative, "__init__", lambda raw: _start_task(raw, seam)),
        Layer(cooperative, "_oneWorkUnit", _step),
        Layer(cooperative, "_completeWith", _complete),
    ]


def _deferred_layers(defer: ModuleType, seam: Seam) -> list[Patch]:
    return [
        Layer(defer.Deferred, "addCallbacks", lambda raw: _add_callbacks(raw, seam)),
        *(
            Layer(defer.Deferred, name, lambda raw: _add_one(raw, seam))
            for name in ("addCallback", "addBoth")
        ),
        Layer(defer.Deferred, "addErrback", lambda raw: _add_errback(raw, seam)),
    ]


MODULES = {
    "threading": {
        "twisted.internet.base": _reactor_layers,
        "twisted.internet.asyncioreactor": _asyncio_reactor_layers,
        "twisted.internet.kqreactor": _kqueue_layers,
        "twisted.internet.posixbase": _polling_layers,
        "twisted.internet.selectreactor": _selecting_layers,
        "twisted.internet.task": _task_layers,
    },
    "futures": {"twisted.internet.defer": _deferred_layers},
}


def _call_from_thread(original: Any, seam: Seam) -> Any:
    @functools.wraps(original)
    def callFromThread(self: Any, f: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N802
        return original(self, handoff.bind(seam, f), *args, **kwargs)

    return callFromThread


def _call_later(original: Any, seam: Seam) -> Any:
    @functools.wraps(original)
    def callLater(self: Any, delay: Any, callable: Any, *args: Any, **kw: Any) -> Any:  # noqa: N802
        return original(self, delay, handoff.bind(seam, callable), *args, **kw)

    return callLater


def _add_trigger(original: Any, seam: Seam) -> Any:
    @functools.wraps(original)
    def addSystemEventTrigger(  # noqa: N802
        self: Any,
        phase: Any,
        eventType: Any,  # noqa: N803
        callable: Any,
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        return original(self, phase, eventType, handoff.bind(seam, callable), *args, **kwargs)

    return addSystemEventTrigger


def _outside(owner: Any, name: str, seam: Seam) -> Layer:
    """Wrap a method so that it runs in an empty context: it sets up parts for the whole program."""

    def wrap(original: Any) -> Any:
        @functools.wraps(original)
        def outside(self: Any, *args: Any, **kwargs: Any) -> Any:
            if not (seam.active and handoff.current_safely()):
                return original(self, *args, **kwargs)
            return Call(NO_CONTEXT, original)(self, *args, **kwargs)

        return outside

    return Layer(owner, name, wrap)


def _event(original: Any) -> Any:
    @functools.wraps(original)
    def event(self: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            return original(self, *args, **kwargs)
        finally:
            if handoff.any_adopted:
                adoption.let_go()

    return event


# A cooperative task runs in many steps, each of them in the context of the task.


def _start_task(original: Any, seam: Seam) -> Any:
    @functools.wraps(original)
    def __init__(self: Any, iterator: Any, cooperator: Any) -> None:  # noqa: N807
        if seam.active:
            setattr(self, _CONTEXT, _captured(seam, iterator))
        original(self, iterator, cooperator)

    return __init__


def _captured(seam: Seam, iterator: Any) -> Context:
    try:
        return seam.capture(iterator) or NO_CONTEXT
    except Exception as error:
        handoff.report_fault("cooperate", error)
        return NO_CONTEXT


def _step(original: Any) -> Any:
    @functools.wraps(original)
    def _oneWorkUnit(self: Any) -> None:  # noqa: N802
        context = getattr(self, _CONTEXT, None)
        step = original if context is None else Call(context, original)
        context = None  # so that this frame does not keep it alive
        step(self)

    return _oneWorkUnit


def _complete(original: Any) -> Any:
    @functools.wraps(original)
    def _completeWith(self: Any, *args: Any, **kwargs: Any) -> None:  # noqa: N802
        self.__dict__.pop(_CONTEXT, None)
        original(self, *args, **kwargs)

    return _completeWith


def _add_callbacks(original: Any, seam: Seam) -> Any:
    @functools.wraps(original)
    def addCallbacks(  # noqa: N802
        self: Any, callback: Any, errback: Any = NOT_GIVEN, *args: Any, **kwargs: Any
    ) -> Any:
        callback = handoff.bind(seam, callback)
        if errback is NOT_GIVEN:  # Twisted 23.8 has changed the default of this parameter
            return original(self, callback, *args, **kwargs)
        return original(self, callback, handoff.bind(seam, errback), *args, **kwargs)

    return addCallbacks


def _add_one(original: Any, seam: Seam) -> Any:
    @functools.wraps(original)
    def add(self: Any, callback: Any, *args: Any, **kwargs: Any) -> Any:
        return original(self, handoff.bind(seam, callback), *args, **kwargs)

    return add


def _add_errback(original: Any, seam: Seam) -> Any:
    @functools.wraps(original)
    def addErrback(self: Any, errback: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N802
        return original(self, handoff.bind(seam, errback), *args, **kwargs)

    return addErrback
