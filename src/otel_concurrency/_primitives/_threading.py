"""Threads: ``threading.Thread``, everything derived from it, and ``_thread.start_new_thread``.

The context is captured when a thread is started. It is attached around the thread's whole body, in
``Thread._bootstrap_inner`` (the same name since CPython 3.0). There it covers a ``run`` that a
subclass overrides, and ``threading.excepthook``, and needs no reference from the thread to itself.
In between the context waits in ``_starting``, until ``start()`` returns at the latest.
"""

from __future__ import annotations

import functools
import os
import sys
from _thread import get_ident
from types import ModuleType
from typing import Any

from opentelemetry.context import Context

from otel_concurrency._core import handoff
from otel_concurrency._core.handoff import NO_CONTEXT, BodyCall, Seam, ages, bodies
from otel_concurrency._core.patching import Layer, wrap_builtin
from otel_concurrency._items import adoption
from otel_concurrency._linking import rounds
from otel_concurrency._linking.rounds import running

_INHERITS = bool(getattr(sys.flags, "thread_inherit_context", False))
"""Whether a flag (since 3.14) makes a thread start in a copy of the context of its starter."""

_HAS_CONTEXT = sys.version_info >= (3, 14)
"""Whether a thread runs in a ``contextvars.Context`` of its own."""

_NEIGHBOUR = "opentelemetry.instrumentation.threading"

_starting: dict[int, Context] = {}
"""The contexts of threads that are being started, by the id of the thread."""

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_starting.clear)  # those threads are not in the child


def _thread_layers(threading: ModuleType, seam: Seam) -> list[Layer]:
    thread, timer = threading.Thread, threading.Timer
    rounds.made_of[timer] = lambda run: rounds.Round(_job_of(run), seam.name)
    return [
        Layer(thread, "start", lambda raw: _start(raw, seam, timer)),
        Layer(thread, "_bootstrap_inner", lambda raw: _bootstrap(raw, seam, thread, timer)),
    ]


def _raw_thread_layers(_thread: ModuleType, seam: Seam) -> list[Layer]:
    def advice(original: Any, args: Any, kwargs: Any) -> Any:
        return _start_new_thread(original, seam, args, kwargs)

    names = ("start_new_thread", "start_new")  # one builtin under two names
    return [
        Layer(_thread, name, lambda raw: wrap_builtin(raw, advice))
        for name in names
        if hasattr(_thread, name)
    ]


MODULES = {"threading": _thread_layers, "_thread": _raw_thread_layers}


def _start(original: Any, seam: Seam, timer: type) -> Any:
    @functools.wraps(original)
    def start(self: Any) -> Any:
        context = None
        try:
            # A context that the user passes explicitly (3.14) always wins.
            if not _HAS_CONTEXT or self._context is None:
                context = seam.capture(self)
                if running and isinstance(self, timer):
                    before = rounds.repeated(_job_of(self))
                    if before is not None:
                        context = rounds.following(before, seam, self, context)
        except Exception as error:
            # Otherwise the original is about to raise.
            if getattr(self, "_initialized", False) and self.ident is None:
                handoff.report_fault("start", error)
        if context is None:
            return original(self)
        _starting[id(self)] = context
        context = None  # this frame lives as long as a traceback that the user keeps
        try:
            return _in_no_context(original, self) if _INHERITS else original(self)
        except BaseException:
            for tidy_up in handoff.after_failed_start:
                tidy_up()
            raise
        finally:
            # Still there if the thread could not be started, or does not use the patched bootstrap.
            if _starting:
                _starting.pop(id(self), None)

    return start


def _in_no_context(original: Any, thread: Any) -> Any:
    """Start ``thread`` so that CPython copies no span from this flow to it."""
    token = handoff.attach_safely(NO_CONTEXT)
    record: Any = handoff.adopted.set(None)
    try:
        return original(thread)
    finally:
        handoff.adopted.reset(record)
        handoff.leave(token)
        token = record = None


def _bootstrap(original: Any, seam: Seam, stock: type, timer: type) -> Any:
    def _round(self: Any) -> Any:
        """Run a timer as a round, which its function may repeat by starting the timer again."""
        thread = get_ident()
        running[thread] = self  # it becomes a round where one is asked for
        try:
            return original(self)
        finally:
            rounds.end(thread)

    @functools.wraps(original)
    def _bootstrap_inner(self: Any) -> Any:
        # Little is done before the original is called. The starter waits until that says that the
        # thread has begun; if it takes long, the starter gives the GIL up and waits for it again.
        body = original
        if type(self) is not stock and isinstance(self, timer) and seam.active:
            body = _round
        context = _starting.pop(id(self), None)
        if context is None:
            try:
                return body(self)
            finally:
                if _HAS_CONTEXT:
                    _let_go(self)
        token = inside = None
        try:
            token = handoff.attach(context)
            if _HAS_CONTEXT:
                # `run` is called inside this contextvars.Context, and the excepthook outside it.
                inside = self._context.run(handoff.attach_safely, context)
            if _NEIGHBOUR in sys.modules and "_otel_context" in self.__dict__:
                # OpenTelemetry's threading instrumentor attaches this one over the context above.
                self._otel_context = context
        except Exception as error:
            handoff.report_fault("attach", error)
        thread = get_ident()
        bodies[thread] = context
        context = None  # this frame lives as long as a traceback that the user keeps
        try:
            return body(self)
        finally:
            bodies.pop(thread, None)
            if ages:
                ages.pop(thread, None)
            try:
                if _HAS_CONTEXT:
                    _let_go(self)
                    if inside is not None:
                        self._context.run(handoff.leave, inside)
                if token is not None:
                    handoff.detach(token)
                if _NEIGHBOUR in sys.modules:
                    self.__dict__.pop("_otel_context", None)
            except Exception as error:
                handoff.report_fault("detach", error)
            token = inside = None

    return _bootstrap_inner


def _job_of(timer: Any) -> rounds.Job:
    try:
        return rounds.Job(timer.function, timer.args, timer.kwargs)
    except Exception:  # a subclass may lack these attributes, or use them in another way
        return rounds.Job(None)


def _let_go(thread: Any) -> None:
    """Let go of an item in the thread's contextvars.Context, which lives as long as the thread."""
    if thread._context is not None and thread._context.get(handoff.adopted):
        thread._context.run(adoption.let_go)


def _start_new_thread(original: Any, seam: Seam, args: Any, kwargs: Any) -> Any:
    call = handoff.call(seam, args[0], BodyCall) if args and callable(args[0]) else None
    if call is None:
        return original(*args, **kwargs)
    try:
        return original(call, *args[1:], **kwargs)
    except BaseException:
        call.release()
        raise
