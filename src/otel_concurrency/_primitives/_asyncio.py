"""``asyncio``: ``loop.run_in_executor`` with an executor that hands nothing off by itself.

Tasks, ``call_soon``, ``call_later``, ``to_thread`` and ``run_coroutine_threadsafe`` carry context
natively (PEP 567) and are left alone. A ``ThreadPoolExecutor`` is covered by the futures primitive
where that is switched on.
"""

from __future__ import annotations

import functools
import inspect
from types import ModuleType
from typing import Any

from otel_concurrency import _handoff
from otel_concurrency._handoff import Call, Seam
from otel_concurrency._patching import Layer

_OTHER_INTERPRETERS = ("concurrent.futures.process", "concurrent.futures.interpreter")


def _layers(base_events: ModuleType, seam: Seam) -> list[Layer]:
    loop = base_events.BaseEventLoop
    return [
        Layer(
            loop,
            "run_in_executor",
            lambda raw: _run_in_executor(raw, seam, base_events.concurrent.futures),
        )
    ]


MODULES = {"asyncio.base_events": _layers}


def _run_in_executor(original: Any, seam: Seam, futures: ModuleType) -> Any:
    @functools.wraps(original)
    def run_in_executor(self: Any, executor: Any, func: Any, *args: Any) -> Any:
        try:
            carry = _handoff.get_current() and not _is_covered(self, executor, func, futures)
        except Exception as error:
            _handoff.report("run_in_executor", error)
            carry = False
        call = _handoff.call(seam, func) if carry else None
        if call is None:
            return original(self, executor, func, *args)
        try:
            future = original(self, executor, call, *args)
        except BaseException:
            call.release()
            raise
        _release_when_done(future, call)
        return future

    return run_in_executor


def _is_covered(loop: Any, executor: Any, func: Any, futures: ModuleType) -> bool:
    """Whether ``executor`` carries the context of ``func`` by itself, or cannot. May raise."""
    used = loop._default_executor if executor is None else executor
    pool = futures.ThreadPoolExecutor
    kind = pool if used is None else used.__class__
    if kind is pool or kind.submit is pool.submit:
        seam = _handoff.seams.get("futures")
        return seam is not None and seam.capture is not _handoff.capture_nothing
    if any(base.__module__ in _OTHER_INTERPRETERS for base in kind.__mro__):
        return True  # it pickles what it is given
    # In debug mode the loop refuses a coroutine function, and must be able to tell.
    return not callable(func) or (loop.get_debug() and inspect.iscoroutinefunction(func))


def _release_when_done(future: Any, call: Call) -> None:
    """Let go of the context when the work is cancelled: the executor may keep its item for long."""

    def release(_: object) -> None:
        call.release()

    try:
        future.add_done_callback(release)
    except Exception as error:
        _handoff.report("run_in_executor", error)
