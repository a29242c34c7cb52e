"""uvloop: ``run_in_executor`` of its loops, which do not derive from asyncio's.

It goes by ASYNCIO, as that of asyncio's own loops; what else a loop calls back carries natively.
"""

from __future__ import annotations

import functools
import inspect
import sys
from types import ModuleType
from typing import Any

from otel_concurrency import _handoff
from otel_concurrency._handoff import BodyCall, Call, Seam
from otel_concurrency._patching import Layer, Patch

TESTED = ("0.21.0", "0.23.0")

_OTHER_INTERPRETERS = ("concurrent.futures.process", "concurrent.futures.interpreter")


def _layers(uvloop: ModuleType, seam: Seam) -> list[Patch]:
    return [Layer(vars(uvloop)["Loop"], "run_in_executor", lambda raw: _run_in_executor(raw, seam))]


MODULES = {"asyncio": {"uvloop": _layers}}


def _run_in_executor(original: Any, seam: Seam) -> Any:
    @functools.wraps(original)
    def run_in_executor(self: Any, executor: Any, func: Any, *args: Any) -> Any:
        try:
            carry = seam.concerned() and not _is_covered(executor, func)
        except Exception as error:
            _handoff.report("run_in_executor", error)
            carry = False
        call = _handoff.call(seam, func, BodyCall) if carry else None
        if call is None:
            return original(self, executor, func, *args)
        try:
            future = original(self, executor, call, *args)
            future.add_done_callback(functools.partial(_release, call))
        except BaseException:
            call.release()
            raise
        return future

    return run_in_executor


def _release(call: Call, _future: object) -> None:
    """Let go of the context when the work is cancelled: the executor may keep its item for long."""
    call.release()


def _is_covered(executor: Any, func: Any) -> bool:
    """Whether ``executor`` carries the context of ``func`` by itself, or cannot. May raise."""
    if not callable(func) or inspect.iscoroutinefunction(func):
        return True  # which the loop refuses
    pool: Any = getattr(sys.modules.get("concurrent.futures.thread"), "ThreadPoolExecutor", None)
    kind = pool if executor is None else executor.__class__
    if kind is None or kind is pool or (pool is not None and kind.submit is pool.submit):
        seam = _handoff.seams.get("futures")
        return seam is not None and seam.active
    return any(base.__module__ in _OTHER_INTERPRETERS for base in kind.__mro__)
