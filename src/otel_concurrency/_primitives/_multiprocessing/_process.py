"""``multiprocessing.Process``, and everything derived from it.

The context is captured when a process is started. It becomes headers in an attribute of the process
object, which reaches the child as a copy in memory or as a pickle. A second attribute instruments a
child that unpickles it like its parent. Both consist of plain values, since the child may not have
this library. In the child they are taken out in ``_bootstrap`` (the same name since CPython 2.6),
before any of the user's code runs. That covers a ``run`` that a subclass overrides.

A forked child has a copy of the context of its parent's thread, and replaces it by an empty one.
"""

from __future__ import annotations

import functools
import sys
from _thread import get_ident
from collections.abc import Callable
from types import ModuleType
from typing import Any

from otel_concurrency import _settings
from otel_concurrency._child_exit import flush
from otel_concurrency._core import handoff
from otel_concurrency._core.handoff import NO_CONTEXT, BodyCall, Seam
from otel_concurrency._core.patching import Layer
from otel_concurrency._crossing import carrier
from otel_concurrency._linking import span_start
from otel_concurrency._primitives._multiprocessing._instrumented import Instrumented

_HEADERS = "_otel_concurrency_headers"
_INSTRUMENTED = "_otel_concurrency_instrumented"

_POOLS = ("concurrent.futures.process", "multiprocess.pool", "multiprocessing.pool")
"""Modules that start processes with their own functions as targets."""


def _layers(process: ModuleType, seam: Seam) -> list[Layer]:
    return [
        Layer(process.BaseProcess, "start", lambda raw: _start(raw, seam)),
        Layer(
            process.BaseProcess,
            "_bootstrap",
            lambda raw: _bootstrap(raw, seam, f"{process.__package__}.util"),
        ),
    ]


MODULES = {"multiprocessing.process": _layers}


def _start(original: Any, seam: Seam) -> Any:
    @functools.wraps(original)
    def start(self: Any) -> Any:
        if not seam.active:
            return original(self)
        flush.before_child()
        headers = carrier.capture(seam, self)
        if headers is not None:
            self.__dict__[_HEADERS] = headers
            try:
                carrier.know(headers)
            except Exception as error:
                handoff.report_fault("extract", error)
        settings = _settings.in_force
        if settings is not None:
            # It is set last, since attributes are unpickled in order: the others import the
            # program's modules, and the child is instrumented after that.
            self.__dict__[_INSTRUMENTED] = Instrumented(settings)
        try:
            return original(self)
        finally:
            self.__dict__.pop(_HEADERS, None)
            self.__dict__.pop(_INSTRUMENTED, None)

    return start


def _bootstrap(original: Any, seam: Seam, util: str) -> Any:
    @functools.wraps(original)
    def _bootstrap(self: Any, *args: Any, **kwargs: Any) -> Any:
        headers = self.__dict__.pop(_HEADERS, None)
        self.__dict__.pop(_INSTRUMENTED, None)
        if headers is None and not seam.active:
            return original(self, *args, **kwargs)
        _replace_target(self)
        _leave_parent()
        flush.at_start_of_child()
        departure = flush.Departure(span_start.started_since, util)
        context = carrier.unpack_safely(headers) or NO_CONTEXT
        try:
            return BodyCall(context, original)(self, *args, **kwargs)
        finally:
            departure.end()

    return _bootstrap


def begin_late(headers: carrier.Headers | None, current: Any, thread: int) -> Callable[[], None]:
    """Do what the patched ``_bootstrap`` does, where the body of a started process runs already.

    It runs in ``thread``. ``current`` is an empty context that is current in it since it began, and
    gets the content of ``headers``; None if there is none. Another thread can call this, which was
    started unseen: it is no part of the body, and without ``current`` the body then has no context.
    Returns what is to be called when the body is over.
    """
    departure = flush.Departure(span_start.started_since)
    context = carrier.unpack_safely(headers) or NO_CONTEXT
    is_body = get_ident() == thread
    if current is not None:
        dict[str, Any].update(current, context)  # a Context can only be changed in this way
        context = current
    if is_body or current is not None:
        handoff.bodies[thread] = context
    if is_body and handoff.current_safely() is not context:
        handoff.attach_safely(context)

    def end() -> None:
        handoff.bodies.pop(thread, None)
        handoff.ages.pop(thread, None)
        handoff.begin_in(NO_CONTEXT)
        departure.end()

    return end


def _replace_target(process: Any) -> None:
    """Replace the target of a pool's process by the patched function of the same name.

    The target was sent by name, and the child may have looked it up before it was instrumented.
    """
    try:
        target = process.__dict__.get("_target")
        if getattr(target, "__module__", None) in _POOLS:
            present = getattr(sys.modules[target.__module__], target.__name__, None)
            if getattr(present, "__wrapped__", None) is target:
                process._target = present
    except Exception as error:
        handoff.report_fault("start a worker", error)


def _leave_parent() -> None:
    """Make the base context of a forked process empty for good, as it is a copy of the parent's."""
    try:
        if handoff.any_adopted:
            handoff.adopted.set(None)
        if handoff.get_current():
            handoff.attach(NO_CONTEXT)
    except Exception as error:
        handoff.report_fault("leave the parent's context", error)
