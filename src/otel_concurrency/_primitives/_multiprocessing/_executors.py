"""``ProcessPoolExecutor``: work that is submitted to a pool of processes.

``submit`` makes a work item on the calling thread. There the context is captured, and its headers
wait with the function. Later the executor's manager thread makes a call item of the work item. The
headers become one more attribute of the call item, which a process that is not instrumented
ignores. The worker process attaches the context when it takes the item from its queue, and detaches
it when it has the result. In between it calls nothing but the user's function.

A pool's processes and its manager thread are shared, so they belong to no trace. On its way, each
call runs through many Python functions that have not run for a while, and every additional one is
expensive. So this code wraps none of them in the way that other primitives do.
"""

from __future__ import annotations

import functools
import threading
import time
from collections import deque
from types import FunctionType, ModuleType, SimpleNamespace
from typing import Any

from opentelemetry.context import Context

from otel_concurrency._child_exit import flush
from otel_concurrency._core import handoff
from otel_concurrency._core.handoff import (
    NO_CONTEXT,
    Call,
    Seam,
    ages,
    attach,
    bodies,
    capture_nothing,
    detach,
    get_current,
)
from otel_concurrency._core.patching import Layer, Patch
from otel_concurrency._crossing import carrier
from otel_concurrency._primitives._futures_map import map_layers
from otel_concurrency._primitives._multiprocessing import _queues
from otel_concurrency._primitives._multiprocessing._turns import Turn

_MODULE = "concurrent.futures.process"
_HEADERS = "_otel_concurrency_headers"
_PARTIAL: Any = functools.partial


def _layers(process: ModuleType, seam: Seam) -> list[Patch]:
    chunk = process._process_chunk
    pool = process.ProcessPoolExecutor
    layers: list[Patch] = [
        Layer(process._WorkItem, "__init__", lambda raw: _work_item(raw, seam, chunk)),
        Layer(process._CallItem, "__init__", _call_item),
        Layer(process._ExecutorManagerThread, "run", lambda raw: _run(raw, seam)),
        Layer(process, "_process_worker", lambda raw: _process_worker(raw, seam, chunk)),
    ]
    if hasattr(pool, "terminate_workers"):  # since 3.14
        terminate = functools.partial(_terminate_workers, seam=seam, shutdown=pool.shutdown)
        layers.append(Layer(pool, "terminate_workers", terminate))
    return [*layers, *map_layers(pool, seam)]


MODULES = {_MODULE: _layers}


class _WithHeaders(Call):
    """A callable on its way to a process, with the headers that accompany it.

    It is made without its ``__init__``, which saves a call.
    """

    __slots__ = ("headers",)
    headers: bytes


_new_with_headers: Any = _WithHeaders.__new__


def _work_item(original: Any, seam: Seam, process_chunk: Any) -> Any:
    @functools.wraps(original)
    def __init__(self: Any, future: Any, fn: Any, args: Any, kwargs: Any) -> None:  # noqa: N807
        if seam.capture is not capture_nothing:
            try:
                if seam.concerned():
                    work = fn
                    if type(fn) is _PARTIAL and _is_chunk(fn, process_chunk):
                        work = fn.args[0]
                    headers = carrier.capture_packed(seam, work)
                    if headers is not None:
                        wrapped = _new_with_headers(_WithHeaders)
                        wrapped._context, wrapped._function, wrapped.headers = None, fn, headers
                        fn = wrapped
            except Exception as error:
                handoff.report_fault("submit", error)
        if keeps:
            self.future, self.fn, self.args, self.kwargs = future, fn, args, kwargs
        else:
            original(self, future, fn, args, kwargs)

    keeps = _only_keeps(original, ("future", "fn", "args", "kwargs"))
    return __init__


def _call_item(original: Any) -> Any:
    @functools.wraps(original)
    def __init__(self: Any, work_id: Any, fn: Any, args: Any, kwargs: Any) -> None:  # noqa: N807
        if fn.__class__ is _WithHeaders:
            setattr(self, _HEADERS, fn.headers)
            fn = fn._function
        if keeps:
            self.work_id, self.fn, self.args, self.kwargs = work_id, fn, args, kwargs
        else:
            original(self, work_id, fn, args, kwargs)

    keeps = _only_keeps(original, ("work_id", "fn", "args", "kwargs"))
    return __init__


def _only_keeps(init: Any, names: tuple[str, ...]) -> bool:
    """Whether an ``__init__`` only stores its arguments as attributes with those ``names``."""
    if type(init) is not FunctionType or init.__module__ != _MODULE or init.__closure__:
        return False
    code = init.__code__
    if code.co_varnames[1 : code.co_argcount + code.co_kwonlyargcount] != names:
        return False  # the replacement of this `__init__` is refused and logged elsewhere
    kept = SimpleNamespace()
    init(kept, *names)
    return vars(kept) == dict(zip(names, names, strict=True))


def _run(original: Any, seam: Seam) -> Any:
    @functools.wraps(original)
    def run(self: Any) -> Any:
        token = None
        if seam.active:
            _without_hooks(self.work_ids_queue)
            if handoff.current_safely():
                token = handoff.attach_safely(NO_CONTEXT)
        try:
            return original(self)
        finally:
            handoff.leave(token)
            token = None

    return run


def _without_hooks(ids: Any) -> None:
    """Bypass the hooks of ``queue.Queue`` for a queue of ids, which hands off no work."""
    try:
        if type(getattr(ids, "queue", None)) is deque:
            items = ids.queue
            ids.__dict__.update(_put=items.append, _get=items.popleft, _qsize=items.__len__)
    except Exception as error:
        handoff.report_fault("run a pool", error)


def _terminate_workers(original: Any, seam: Seam, shutdown: Any) -> Any:
    @functools.wraps(original)
    def terminate_workers(self: Any) -> Any:
        try:
            if seam.active and flush.is_needed():
                _let_idle_ones_leave(self, shutdown)
        except Exception as error:
            handoff.report_fault("terminate workers", error)
        return original(self)

    return terminate_workers


_LOOK_EVERY = 0.05
"""Seconds between two checks of a pool that is waited for, since it may get new work."""


def _let_idle_ones_leave(executor: Any, shutdown: Any) -> None:
    """Let idle workers exit by themselves, so that they export what they have recorded.

    ``shutdown()`` does this, on the executor's manager thread. The wait for it has a time limit,
    and ends when there is pending work. Workers that are still running then are terminated.
    """
    manager, processes = executor._executor_manager_thread, executor._processes
    if manager is None or manager.ident == threading.get_ident() or manager.pending_work_items:
        return
    deadline = time.monotonic() + flush.timeout / 1000
    shutdown(executor, wait=False, cancel_futures=True)
    while manager.is_alive() and not manager.pending_work_items:
        left = deadline - time.monotonic()
        if left <= 0:
            break
        manager.join(min(left, _LOOK_EVERY))
    if manager.is_alive():
        executor._processes = processes
        if not manager.pending_work_items:
            # It joins them and meanwhile holds the lock that the original takes since 3.14.10.
            for process in list(processes.values()):
                process.terminate()


# In the worker process.


def _process_worker(original: Any, seam: Seam, process_chunk: Any) -> Any:
    @functools.wraps(original)
    def _process_worker(call_queue: Any, result_queue: Any, *args: Any, **kwargs: Any) -> Any:
        if not seam.active:
            return original(call_queue, result_queue, *args, **kwargs)
        try:
            turn = Turn()
            queues = _CallQueue(call_queue, turn, process_chunk), _ResultQueue(result_queue, turn)
        except Exception as error:
            handoff.report_fault("start a worker", error)
            queues = call_queue, result_queue
        return original(*queues, *args, **kwargs)

    return _process_worker


class _CallQueue:
    """Wraps the queue from which a worker process takes its calls."""

    def __init__(self, plain: Any, turn: Turn, process_chunk: Any) -> None:
        self._plain = plain
        self._get = _queues.plumbing_method(plain, "get")
        self._turn = turn
        self._process_chunk = process_chunk
        self._last: tuple[bytes | None, Context] = (None, NO_CONTEXT)
        """The headers of the last call with their context: often many calls share one context."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._plain, name)

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        """Return the next call, and attach its context."""
        turn = self._turn
        if turn.base is None:
            turn.end()
        item = self._get(block, timeout)
        if item is not None:
            try:
                headers = item.__dict__.pop(_HEADERS, None)
                if headers is not None:
                    if headers != self._last[0]:
                        self._last = headers, carrier.decoded(headers) or NO_CONTEXT
                    context = self._last[1]
                    turn.token, bodies[turn.thread] = attach(context), context
                if type(item.fn) is _PARTIAL and _is_chunk(item.fn, self._process_chunk):
                    each = _each(get_current(), item.fn.args[0])
                    item.fn = functools.partial(self._process_chunk, each)
            except Exception as error:
                handoff.report_fault("get", error)
        return item


class _ResultQueue:
    """Wraps the queue to which a worker process puts its results."""

    def __init__(self, plain: Any, turn: Turn) -> None:
        self._plain = plain
        self._put = _queues.plumbing_method(plain, "put")
        self._turn = turn

    def __getattr__(self, name: str) -> Any:
        return getattr(self._plain, name)

    def put(self, obj: Any) -> None:
        """Detach the context of the call that has ended, and put its result."""
        turn = self._turn
        token, turn.token = turn.token, None
        try:
            if token is not None:
                del bodies[turn.thread]
                detach(token)
            if get_current() is not turn.base or handoff.any_adopted or ages:
                turn.end()
        except Exception as error:
            handoff.report_fault("detach", error)
        token = None
        self._put(obj)


def _is_chunk(function: Any, process_chunk: Any) -> bool:
    """Whether a partial is what ``map`` submits: one function to be called for several items."""
    return function.func is process_chunk and len(function.args) == 1


def _each(context: Context, function: Any) -> Any:
    """Wrap ``function``, which is called for several items, so that each starts in ``context``."""

    def each(*args: Any) -> Any:
        try:
            return function(*args)
        finally:
            if handoff.current_safely() is not context:
                handoff.attach_safely(context)

    return each
