"""``multiprocessing.Process``, everything derived from it, and what starts with one.

A process is captured when it is started, as headers in an attribute of the process object, which
reaches the child with it: as a copy in memory, or pickled. They are plain, and so is what makes a
child that starts anew be instrumented like its parent: the child may not have this library. In the
child they are taken out again before any of the user's code runs, in ``_bootstrap`` (the same name
since CPython 2.6), which covers a ``run`` that a subclass overrides.

A forked child has a copy of all that its parent's thread was in the middle of. It leaves that.
"""

from __future__ import annotations

import functools
import sys
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
"""Modules whose own functions are the targets of processes."""


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
        settings = _settings.in_force
        if settings is not None:
            # The last attribute: what it unpickles after has imported the modules of the program.
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


def _replace_target(process: Any) -> None:
    """Have a pool's process run what its module has for its target now.

    It was sent that by name, and may have been given it before it was instrumented.
    """
    try:
        target = process.__dict__.get("_target")
        if getattr(target, "__module__", None) in _POOLS:
            present = getattr(sys.modules[target.__module__], target.__name__, None)
            if getattr(present, "__wrapped__", None) is target:
                process._target = present
    except Exception as error:
        handoff.report("start a worker", error)


def _leave_parent() -> None:
    """Make the process's base context clean, for good: what a fork copied is the parent's."""
    try:
        handoff.adopted.set(None)
        if handoff.get_current():
            handoff.attach(NO_CONTEXT)
    except Exception as error:
        handoff.report("leave the parent's context", error)
