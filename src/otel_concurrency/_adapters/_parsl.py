"""parsl: tasks of its ``HighThroughputExecutor``, whose workers are processes, here or elsewhere.

The setting MULTIPROCESSING covers them. parsl looks for the result of an earlier task by its
function. So the function is replaced after that, where it is pickled. parsl also keeps the pickles
of functions, and the functions that a worker has unpickled. So a function stays a pickle of its
own, inside the object that has the headers.

A worker is ended by a signal. An idle worker exports what it has recorded before it ends.
"""

from __future__ import annotations

import functools
import os
import signal
import sys
import threading
from collections.abc import Callable
from types import ModuleType
from typing import Any

from otel_concurrency import _settings
from otel_concurrency._child_exit import flush
from otel_concurrency._core import handoff
from otel_concurrency._core.handoff import Seam
from otel_concurrency._core.patching import Layer, Patch
from otel_concurrency._crossing import carrier, pickled_calls
from otel_concurrency._crossing.carrier import Headers
from otel_concurrency._crossing.pickled_calls import PortableCall
from otel_concurrency._linking import span_start

TESTED = ("2026.10.26", "2026.10.26")


def _layers(executor: ModuleType, seam: Seam) -> list[Patch]:
    return [Layer(executor, "pack_apply_message", lambda raw: _pack(raw, seam))]


MODULES = {"multiprocessing": {"parsl.executors.high_throughput.executor": _layers}}


class _Task:
    """What is pickled in place of a function. parsl would keep the pickle of a callable."""

    def __init__(self, call: PortableCall) -> None:
        self._call = call

    def __reduce__(self) -> tuple[Any, ...]:
        return self._call.__reduce__()


class _Pickled:
    """A function that parsl has pickled already. Unpickling it gives that function."""

    def __init__(self, unpickle: Callable[[bytes], Any], message: bytes) -> None:
        self._reduced = unpickle, (message,)

    def __reduce__(self) -> tuple[Any, ...]:
        return self._reduced


def _pack(original: Any, seam: Seam) -> Any:
    @functools.wraps(original)
    def pack_apply_message(func: Any, *args: Any, **kwargs: Any) -> Any:
        return original(_task(seam, func), *args, **kwargs)

    return pack_apply_message


def _task(seam: Seam, function: Any) -> Any:
    try:
        settings = _settings.in_force
        if not seam.active or settings is None or not callable(function):
            return function
        pickled = _pickled(function)
        if pickled is None:
            return function
        headers = carrier.capture(seam, function)
        return _Task(PortableCall(pickled, headers, settings.as_keywords(), __name__))
    except Exception as error:
        handoff.report_fault("capture", error)
        return function


def _pickled(function: Any) -> Any:
    """Return what has the pickle of ``function``; None where parsl cannot pickle it."""
    serialize = sys.modules["parsl.serialize"]
    try:
        message = serialize.serialize(function, buffer_threshold=_NO_WARNING)
    except Exception:
        return None  # parsl will try the function itself, and raise this into the program
    return _Pickled(serialize.deserialize, message)


_NO_WARNING = 1 << 62
"""How many bytes parsl pickles without a warning. It warns about the size of the task again."""


# In the worker.


def received(function: Callable[..., Any], headers: Headers | None) -> Callable[..., Any]:
    """Return a callable that runs ``function`` in the context of ``headers``.

    After it, the worker exports when it is told to end.
    """
    call = pickled_calls.received(function, headers)

    @functools.wraps(function)
    def run(*args: Any, **kwargs: Any) -> Any:
        _set_handler(_export_and_end, signal.SIG_DFL)
        try:
            return call(*args, **kwargs)
        finally:
            _set_handler(signal.SIG_DFL, _export_and_end)

    return run


def _set_handler(before: Any, after: Any) -> None:
    """Replace the handler ``before`` by ``after``: while a task runs, SIGTERM ends it at once."""
    try:
        if (
            flush.timeout > 0
            and threading.get_ident() == threading.main_thread().ident
            and signal.getsignal(signal.SIGTERM) is before
        ):
            signal.signal(signal.SIGTERM, after)
    except Exception as error:
        handoff.report_fault("be ready to end", error)


def _export_and_end(number: int, frame: object) -> None:
    try:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        flush.Departure(span_start.started_since).end()
    except Exception as error:
        handoff.report_fault("end a worker", error)
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTERM)
