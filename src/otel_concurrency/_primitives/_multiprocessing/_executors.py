"""``ProcessPoolExecutor``: work that is submitted to a pool of processes.

What is submitted is made into a work item, on the thread that submits. There it is captured, as
headers beside it. When it is its turn, the executor's own thread puts what is to be called into the
queue to the processes; there the headers go along, as one more entry of the call item's attributes,
which a process that is not instrumented never looks at. In the process, what comes out of the queue
is called in its context, and leaves none behind.

A pool's processes belong to nobody, and so does the thread that manages them.
"""

from __future__ import annotations

import functools
from types import ModuleType
from typing import Any

from opentelemetry.context import Context

from otel_concurrency import _carrier, _handoff
from otel_concurrency._handoff import (
    NO_CONTEXT,
    BodyCall,
    Seam,
    capture_nothing,
    is_concerned,
)
from otel_concurrency._patching import Layer, method_of

_HEADERS = "_otel_concurrency_headers"
_BASE = "_otel_concurrency_base"


def _layers(process: ModuleType, seam: Seam) -> list[Layer]:
    queue, item, chunk = process._SafeQueue, process._CallItem, process._process_chunk

    def put(raw: Any) -> Any:
        return _put(method_of(queue, "put", raw), item)

    def get(raw: Any) -> Any:
        return _get(method_of(queue, "get", raw), seam, item, chunk)

    return [
        Layer(process._WorkItem, "__init__", lambda raw: _init(raw, seam, chunk)),
        Layer(queue, "put", put),
        Layer(queue, "get", get),
        Layer(process._ExecutorManagerThread, "run", lambda raw: _run(raw, seam)),
    ]


MODULES = {"concurrent.futures.process": _layers}


def _init(original: Any, seam: Seam, process_chunk: Any) -> Any:
    @functools.wraps(original)
    def __init__(self: Any, future: Any, fn: Any, args: Any, kwargs: Any) -> None:  # noqa: N807
        original(self, future, fn, args, kwargs)
        if seam.capture is not capture_nothing and is_concerned(seam):
            work = fn.args[0] if _is_chunk(fn, process_chunk) else fn
            headers = _carrier.capture(seam, work)
            if headers is not None:
                setattr(self, _HEADERS, headers)

    return __init__


def _put(original: Any, call_item: Any) -> Any:
    @functools.wraps(original)
    def put(self: Any, obj: Any, block: bool = True, timeout: float | None = None) -> Any:
        if type(obj) is call_item:
            try:
                headers = getattr(self.pending_work_items[obj.work_id], _HEADERS, None)
                if headers is not None:
                    setattr(obj, _HEADERS, headers)
            except Exception as error:
                _handoff.report("put", error)
        return original(self, obj, block, timeout)

    return put


def _get(original: Any, seam: Seam, call_item: Any, process_chunk: Any) -> Any:
    @functools.wraps(original)
    def get(self: Any, block: bool = True, timeout: float | None = None) -> Any:
        if seam.capture is not capture_nothing:
            _go_back(self)
        obj = original(self, block, timeout)
        if type(obj) is call_item:
            _prepare(obj, seam, process_chunk)
        return obj

    return get


def _prepare(item: Any, seam: Seam, process_chunk: Any) -> None:
    """Have what ``item`` calls run in the context that came with it, if one did."""
    try:
        headers = getattr(item, _HEADERS, None)
        context = None
        if headers is not None:
            delattr(item, _HEADERS)
            context = _carrier.unpack_safely(headers)
        if _is_chunk(item.fn, process_chunk) and (seam.active or context is not None):
            each = _each(context or _handoff.get_current(), item.fn.args[0])
            item.fn = functools.partial(process_chunk, each)
        if context is not None:
            item.fn = BodyCall(context, item.fn)
    except Exception as error:
        _handoff.report("get", error)


def _go_back(queue: Any) -> None:
    """Go back to where this process was when it took its first work: some may have stayed behind.

    That is where its initializer has left it, and where work without a context is run.
    """
    try:
        current = _handoff.get_current()
        base = getattr(queue, _BASE, None)
        if base is None:
            setattr(queue, _BASE, current)
        elif current is not base:
            _handoff.attach(base)
        if _handoff.any_adopted:
            _handoff.adopted.set(None)
    except Exception as error:
        _handoff.report("get", error)


def _is_chunk(function: Any, process_chunk: Any) -> bool:
    """Whether it is what ``map`` submits: a partial of one function for several items."""
    return (
        type(function) is functools.partial
        and function.func is process_chunk
        and len(function.args) == 1
    )


def _each(context: Context, function: Any) -> Any:
    """Return ``function`` for items that share an attached context: each finds it as it was."""

    def each(*args: Any) -> Any:
        try:
            return function(*args)
        finally:
            if _handoff.current_safely() is not context:
                _handoff.attach_safely(context)

    return each


def _run(original: Any, seam: Seam) -> Any:
    @functools.wraps(original)
    def run(self: Any) -> Any:
        token = None
        if seam.active and _handoff.current_safely():
            token = _handoff.attach_safely(NO_CONTEXT)
        try:
            return original(self)
        finally:
            _handoff.leave(token)
            token = None

    return run
