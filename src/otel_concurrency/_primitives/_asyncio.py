"""``asyncio``: the items of its queues, and ``run_in_executor`` with executors of the user's own.

Tasks, ``call_soon``, ``call_later``, ``to_thread`` and ``run_coroutine_threadsafe`` carry context
natively (PEP 567) and are left alone. A ``ThreadPoolExecutor`` is covered by the futures primitive
where that is switched on.

A queue belongs to one event loop, so an item and its context are paired without a lock, in
``put_nowait`` and ``get_nowait``, which ``put`` and ``get`` call.
"""

from __future__ import annotations

import functools
import inspect
import sys
from types import ModuleType
from typing import Any, cast

from otel_concurrency import _handoff, _items
from otel_concurrency._handoff import Call, Seam
from otel_concurrency._patching import Layer

_OTHER_INTERPRETERS = ("concurrent.futures.process", "concurrent.futures.interpreter")


def _loop_layers(base_events: ModuleType, seam: Seam) -> list[Layer]:
    loop = base_events.BaseEventLoop
    return [
        Layer(
            loop,
            "run_in_executor",
            lambda raw: _run_in_executor(raw, seam, base_events.concurrent.futures),
        )
    ]


def _queue_layers(queues: ModuleType, seam: Seam) -> list[Layer]:
    queue = queues.Queue
    pairing = _items.Accompaniment(queues, seam, get=queue.get_nowait, size="qsize")
    return [
        Layer(queue, "put_nowait", lambda raw: _put_nowait(raw, pairing)),
        Layer(queue, "get", _get),
        Layer(queue, "get_nowait", _get_nowait),
        Layer(queue, "task_done", _task_done),
    ]


MODULES = {"asyncio.base_events": _loop_layers, "asyncio.queues": _queue_layers}


def _run_in_executor(original: Any, seam: Seam, futures: ModuleType) -> Any:
    @functools.wraps(original)
    def run_in_executor(self: Any, executor: Any, func: Any, *args: Any) -> Any:
        try:
            carry = _handoff.get_current() and _needs_us(self, executor, func, futures)
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


def _needs_us(loop: Any, executor: Any, func: Any, futures: ModuleType) -> bool:
    """Whether ``executor`` would not carry the context of ``func`` by itself. May raise."""
    pool = futures.ThreadPoolExecutor
    used = loop._default_executor if executor is None else executor
    kind = pool if used is None else cast("Any", type(used))
    if kind is pool or kind.submit is pool.submit:
        made = sys.modules[pool.__module__]._WorkItem.__init__
        futures_seam: Seam | None = getattr(made, "_otel_concurrency_seam", None)
        return futures_seam is None or not futures_seam.active
    if any(base.__module__ in _OTHER_INTERPRETERS for base in kind.__mro__):
        return False  # pickles what it is given
    # In debug mode the loop refuses a coroutine function, and must be able to tell.
    return callable(func) and not (loop.get_debug() and inspect.iscoroutinefunction(func))


def _release_when_done(future: Any, call: Call) -> None:
    """Let go of the context when the work is cancelled: the executor may keep its item for long."""

    def release(_: object) -> None:
        call.release()

    try:
        future.add_done_callback(release)
    except Exception as error:
        _handoff.report("run_in_executor", error)


def _put_nowait(original: Any, pairing: _items.Accompaniment) -> Any:
    @functools.wraps(original)
    def put_nowait(self: Any, item: Any) -> Any:
        if _handoff.get_current() and "_put" not in self.__dict__:
            try:
                pairing.start(self, getattr(self, "_queue", ()))
            except Exception as error:
                _handoff.report("put", error)
        return original(self, item)

    return put_nowait


def _get(original: Any) -> Any:
    # No coroutine function: `create_task(queue.get())` runs one in another task, and this one is
    # to let go of its item.
    @functools.wraps(original)
    def get(self: Any) -> Any:
        if _handoff.installed.get() is not None:
            _items.let_go()
        return original(self)

    return _mark_as_coroutine_function(get)


def _mark_as_coroutine_function(function: Any) -> Any:
    if sys.version_info >= (3, 12):
        return inspect.markcoroutinefunction(function)
    function._is_coroutine = sys.modules["asyncio.coroutines"]._is_coroutine
    return function


def _get_nowait(original: Any) -> Any:
    @functools.wraps(original)
    def get_nowait(self: Any) -> Any:
        if _handoff.installed.get() is None and not _handoff.get_current():
            return original(self)
        if _handoff.installed.get() is not None:
            _items.let_go()
        item = original(self)
        if "_get" not in self.__dict__:
            _items.adopt_safely(None)
        return item

    return get_nowait


def _task_done(original: Any) -> Any:
    @functools.wraps(original)
    def task_done(self: Any) -> Any:
        _items.let_go()
        return original(self)

    return task_done
