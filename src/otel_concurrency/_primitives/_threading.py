"""Threads: ``threading.Thread``, everything derived from it, and ``_thread.start_new_thread``.

A thread is captured when it is started. The context is attached around the thread's whole body, in
``Thread._bootstrap_inner`` (the same name since CPython 3.0): there it covers a ``run`` that a
subclass overrides, and ``threading.excepthook``, and needs no reference from the thread to itself.
Between the two it rests in the thread's ``__dict__``, which is empty of it again when ``start()``
returns.
"""

from __future__ import annotations

import functools
from types import ModuleType
from typing import Any

from otel_concurrency import _handoff
from otel_concurrency._handoff import Seam
from otel_concurrency._patching import Layer, wrap_builtin

_KEY = "_otel_concurrency_context"


def _thread_layers(threading: ModuleType, seam: Seam) -> list[Layer]:
    return [
        Layer(threading.Thread, "start", lambda raw: _start(raw, seam)),
        Layer(threading.Thread, "_bootstrap_inner", _bootstrap_inner),
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


def _start(original: Any, seam: Seam) -> Any:
    @functools.wraps(original)
    def start(self: Any) -> Any:
        # A context that the user passes (3.14) is the user's word.
        if getattr(self, "_context", None) is not None:
            return original(self)
        state = self.__dict__
        state[_KEY] = seam.capture_safely(self)
        try:
            return original(self)
        finally:
            # Still there if the thread could not be started, or bypassed our bootstrap.
            state.pop(_KEY, None)

    return start


def _bootstrap_inner(original: Any) -> Any:
    @functools.wraps(original)
    def _bootstrap_inner(self: Any) -> Any:
        if self.__dict__.get(_KEY) is None:
            return original(self)
        return _run_in_its_context(original, self)

    return _bootstrap_inner


def _run_in_its_context(original: Any, thread: Any) -> Any:
    context = thread.__dict__.pop(_KEY)
    # Left there by opentelemetry-instrumentation-threading, to be attached over ours.
    thread.__dict__.pop("_otel_context", None)
    # Since 3.14 `run` is called inside a contextvars.Context of the thread's own, and the
    # excepthook outside it; what is attached here is seen by the latter alone.
    inner = getattr(thread, "_context", None)
    outside = _handoff.attach_safely(context)
    inside = None if inner is None else inner.run(_handoff.attach_safely, context)
    del context  # this frame lives as long as a traceback that the user keeps
    try:
        return original(thread)
    finally:
        if inner is not None:
            inner.run(_handoff.leave, inside)
        _handoff.leave(outside)
        del inner, inside, outside


def _start_new_thread(original: Any, seam: Seam, args: Any, kwargs: Any) -> Any:
    call = _handoff.call(seam, args[0]) if args and callable(args[0]) else None
    if call is None:
        return original(*args, **kwargs)
    try:
        return original(call, *args[1:], **kwargs)
    except BaseException:
        call.release()
        raise
