"""``asyncio``: the items of its queues, and ``run_in_executor`` with executors that a user defines.

Tasks, ``call_soon``, ``call_later``, ``to_thread`` and ``run_coroutine_threadsafe`` carry context
natively (PEP 567) and are left alone. A ``ThreadPoolExecutor`` is covered by the futures primitive
where that is switched on.

A consumer lets go of its item when it calls ``get``, not when the coroutine runs: in
``create_task(queue.get())`` the coroutine runs in another task.
"""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

from otel_concurrency._core import compiled, handoff
from otel_concurrency._core.handoff import (
    FRESH,
    BodyCall,
    Call,
    Seam,
    adopted,
    attach,
    get_current,
)
from otel_concurrency._core.patching import Layer, Patch
from otel_concurrency._items import adoption, queue_hooks
from otel_concurrency._items.adoption import adopt
from otel_concurrency._items.pairing import UNPAIRED, Pairing
from otel_concurrency._items.pairs import Fifo, WatchedFifo, slots_of
from otel_concurrency._items.queue_hooks import Inlined, QueueHooks

_OTHER_INTERPRETERS = ("concurrent.futures.process", "concurrent.futures.interpreter")


def _loop_layers(base_events: ModuleType, seam: Seam) -> list[Patch]:
    loop = base_events.BaseEventLoop
    return [
        Layer(
            loop,
            "run_in_executor",
            lambda raw: run_in_executor(
                raw, seam, functools.partial(is_covered, base_events.concurrent.futures)
            ),
        )
    ]


def _queue_layers(queues: ModuleType, seam: Seam) -> list[Patch]:
    pairing = Pairing(queues, seam, container="_queue", size="qsize", waits=("empty", True))
    return [
        QueueHooks(
            pairing,
            {pairing.stock: _inlined(pairing)},
            later=(Layer(queues.Queue, "get", _get),),
        ),
        Layer(queues.Queue, "task_done", queue_hooks.task_done),
        *queue_hooks.shutdown_layers(queues.Queue),
    ]


MODULES = {"asyncio.base_events": _loop_layers, "asyncio.queues": _queue_layers}


def run_in_executor(original: Any, seam: Seam, covered: Callable[..., bool]) -> Any:
    """Wrap ``run_in_executor`` of a loop; ``covered(loop, executor, func)`` may raise."""

    @functools.wraps(original)
    def run_in_executor(self: Any, executor: Any, func: Any, *args: Any) -> Any:
        try:
            carry = seam.concerned() and not covered(self, executor, func)
        except Exception as error:
            handoff.report_fault("run_in_executor", error)
            carry = False
        call = handoff.call(seam, func, BodyCall) if carry else None
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


def is_covered(futures: ModuleType, loop: Any, executor: Any, func: Any) -> bool:
    """Whether ``executor`` carries the context of ``func`` already, or cannot. May raise."""
    used = getattr(loop, "_default_executor", None) if executor is None else executor
    pool = futures.ThreadPoolExecutor
    kind = pool if used is None else used.__class__
    if kind is pool or kind.submit is pool.submit:
        seam = handoff.seams.get("futures")
        return (
            seam is not None and seam.capture is not handoff.capture_nothing and not seam.left_alone
        )
    if any(base.__module__ in _OTHER_INTERPRETERS for base in kind.__mro__):
        return True  # it pickles the function, and a context cannot be pickled
    # In debug mode the loop refuses a coroutine function. A call around it would hide it.
    return not callable(func) or (loop.get_debug() and inspect.iscoroutinefunction(func))


def _release_when_done(future: Any, call: Call) -> None:
    """Drop the context when the work is cancelled: the executor may keep its item for long."""
    try:
        future.add_done_callback(_Release(call))
    except Exception as error:
        handoff.report_fault("run_in_executor", error)


class _Release:
    """Releases a call when it is called; it takes less memory than a function."""

    __slots__ = ("_call",)

    def __init__(self, call: Call) -> None:
        self._call = call

    def __call__(self, _: object) -> None:
        self._call.release()


def _get(original: Any) -> Any:
    @functools.wraps(original)
    def get(self: Any) -> Any:
        record = adopted.get()
        if record is not None:
            try:
                if self._otel_concurrency_pairs is UNPAIRED:
                    pass
                elif not self._queue:
                    adoption.let_go()
                elif record[3] > FRESH and get_current() is record[0]():
                    attach(record[1])  # the record stays, since the next item overwrites it
            except Exception:
                adoption.let_go()
        return original(self)

    get = _as_coroutine_function(get)
    if compiled.functions is None:
        return get
    return compiled.functions.method("asyncio.Queue.get", get, "_queue", original, UNPAIRED)


def _as_coroutine_function(function: Any) -> Any:
    if sys.version_info >= (3, 12):
        return inspect.markcoroutinefunction(function)
    function._is_coroutine = sys.modules["asyncio.coroutines"]._is_coroutine
    return function


def _inlined(pairing: Pairing) -> Inlined:
    # The same code as in `_queue`, for another attribute. It is not shared because one more
    # function call would cost as much as all the rest.
    owner, start, remember = pairing.stock, pairing.start, pairing.remember
    deliver, lend, wait, fault = pairing.deliver, pairing.lend, pairing.wait, pairing.fault
    remember_watched, deliver_watched = pairing.remember_watched, pairing.deliver_watched

    def _put(self: Any, item: Any) -> None:
        container = self._queue
        container.append(item)
        try:
            pairs = self._otel_concurrency_pairs
            if pairs is None:
                if get_current():
                    start(self, item, owner)
            elif type(pairs) is Fifo:
                pairs.append(item)
                pairs.append(get_current())
                if len(pairs) != 2 * len(container):
                    pairs.forget(len(container))
            elif type(pairs) is WatchedFifo:
                remember_watched(pairs, item, len(container))
            else:
                remember(self, item, owner)
        except Exception as error:
            fault("put", error)

    def _get(self: Any) -> Any:
        container = self._queue
        item = container.popleft()
        try:
            pairs = self._otel_concurrency_pairs
            if pairs is None:
                if get_current():
                    deliver(self, item, owner)
            elif type(pairs) is Fifo:
                if len(pairs) == 2 * len(container) + 2 and pairs[0] is item:
                    pairs.popleft()
                    context = pairs.popleft()
                    if not context or adopt(context):
                        lend(self, item, context)
                else:
                    deliver(self, item, owner)
            elif type(pairs) is WatchedFifo:
                deliver_watched(pairs, item, len(container))
            else:
                deliver(self, item, owner)
        except Exception as error:
            fault("get", error)
        return item

    def empty(self: Any) -> bool:
        if self._queue:
            return False
        try:
            wait(self)
        except Exception as error:
            fault("get", error)
        return True

    parts = "_queue", None, Fifo, deliver, lend, fault, owner, *slots_of(Fifo)
    return {
        "_put": (_put, ("_queue", "append"), parts),
        "_get": (_get, ("_queue", "popleft"), parts),
        "empty": (empty, ("_queue",), ()),
    }
