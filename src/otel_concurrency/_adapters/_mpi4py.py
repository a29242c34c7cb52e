"""mpi4py.futures: what a pool's workers are handed, which are other processes of MPI's, or threads.

The setting MULTIPROCESSING covers them. A task is a pickle of a function and its arguments, so the
context crosses inside an object that takes the place of the function. Where MPI has one process,
the same object is called in a thread.
"""

from __future__ import annotations

import functools
from types import ModuleType
from typing import Any

from opentelemetry.context import Context

from otel_concurrency import _settings
from otel_concurrency._core import handoff
from otel_concurrency._core.handoff import NO_CONTEXT, BodyCall, Seam
from otel_concurrency._core.patching import Layer, Patch
from otel_concurrency._crossing import carrier
from otel_concurrency._crossing.pickled_calls import PortableCall

TESTED = ("4.1.2", "4.1.2")


def _layers(pool: ModuleType, seam: Seam) -> list[Patch]:
    return [Layer(pool.MPIPoolExecutor, "submit", lambda raw: _submit(raw, seam))]


MODULES = {"multiprocessing": {"mpi4py.futures.pool": _layers}}


class _Task(BodyCall):
    """A function in its context, which crosses to another process as headers."""

    __slots__ = ("_portable",)

    def __init__(self, context: Context, function: Any, portable: Any) -> None:
        super().__init__(context, function)
        self._portable = portable

    def __reduce__(self) -> tuple[Any, ...]:
        reduced: tuple[Any, ...] = self._portable.__reduce__()
        return reduced


def _submit(original: Any, seam: Seam) -> Any:
    @functools.wraps(original)
    def submit(self: Any, fn: Any, /, *args: Any, **kwargs: Any) -> Any:
        return original(self, _task(seam, fn), *args, **kwargs)

    return submit


def _task(seam: Seam, function: Any) -> Any:
    try:
        settings = _settings.in_force
        if not seam.active or settings is None or not callable(function):
            return function
        context = seam.capture(function) or NO_CONTEXT
        headers = carrier.pack(context)
        portable = PortableCall(function, headers, settings.as_keywords())
        return _Task(context, function, portable)
    except Exception as error:
        handoff.report_fault("capture", error)
        return function
