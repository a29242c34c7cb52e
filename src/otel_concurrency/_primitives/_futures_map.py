"""``Executor.map(buffersize=…)`` (3.14+): all items carry the context of the call of ``map``.

With a buffer, ``map`` submits only the first items. The others are submitted one by one while the
results are iterated over, possibly much later and in another context. So each step of the iterator
runs in the context in which ``map`` was called.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Generator
from types import ModuleType
from typing import Any

from opentelemetry.context import Context

from otel_concurrency._core import handoff
from otel_concurrency._core.handoff import NO_CONTEXT, Call, Seam
from otel_concurrency._core.patching import Layer, Patch


def _layers(base: ModuleType, seam: Seam) -> list[Patch]:
    return map_layers(base.Executor, seam)


MODULES = {"concurrent.futures._base": _layers}


def map_layers(executor: type, seam: Seam) -> list[Patch]:
    """Return the layers of an executor class that defines ``map``."""
    if sys.version_info < (3, 14):  # `map` has no `buffersize` there
        return []
    return [Layer(executor, "map", lambda raw: _map(raw, seam))]


def _map(original: Any, seam: Seam) -> Any:
    @functools.wraps(original)
    def map(
        self: Any,
        fn: Any,
        *iterables: Any,
        timeout: Any = None,
        chunksize: Any = 1,
        buffersize: Any = None,
    ) -> Any:
        results = original(
            self, fn, *iterables, timeout=timeout, chunksize=chunksize, buffersize=buffersize
        )
        if buffersize is None or not seam.active:
            return results
        context = handoff.current_safely()
        return results if context is None else _in_context(context or NO_CONTEXT, results)

    return map


def _in_context(context: Context, results: Any) -> Generator[Any, None, None]:
    """Iterate over ``results``, each step in ``context``."""
    try:
        while True:
            try:
                result = [Call(context, next)(results)]
            except StopIteration:
                return
            yield result.pop()  # keep no reference to a result that has been yielded
    finally:
        del context  # so that a traceback with this frame keeps nothing alive
        close = getattr(results, "close", None)
        if close is not None:
            close()
