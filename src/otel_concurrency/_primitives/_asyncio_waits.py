"""``asyncio.wait`` and ``wait_for``: who waits for a task of ``queue.get()`` is a consumer.

A worker that can be stopped waits for ``create_task(queue.get())`` beside ``create_task(
stop.wait())``. ``get`` then runs in a task of its own, which adopts the item's context and ends.
The flow that waits handles the item, so it adopts that context when it resumes, by the rule for
every consumer. It does so once for each task, and only if exactly one of the tasks that are done is
a ``get``. What it adopts is read from the context of the finished task: nothing else refers to it.

``asyncio.wait_for`` awaits ``queue.get()`` in the flow itself since CPython 3.12, and in a task
before.
"""

from __future__ import annotations

import contextvars
import functools
import inspect
import sys
import weakref
from collections.abc import Iterable
from types import ModuleType
from typing import Any

from opentelemetry.context import Context

from otel_concurrency._core import handoff
from otel_concurrency._core.handoff import Seam, adopted, get_current
from otel_concurrency._core.patching import Alias, Layer, Patch
from otel_concurrency._items import adoption

_arrived: weakref.WeakSet[Any] = weakref.WeakSet()
"""The tasks whose item has been handed over."""


def _layers(package: ModuleType, seam: Seam) -> list[Patch]:
    tasks: ModuleType = vars(package)["tasks"]
    layers: list[Patch] = [Layer(tasks, "_wait", lambda raw: _wait(raw, seam))]
    if sys.version_info < (3, 12):
        layers += [
            Layer(tasks, "wait_for", lambda raw: _wait_for(raw, seam)),
            Alias(package, "wait_for", tasks),
        ]
    return layers


MODULES = {"asyncio": _layers}


def _wait(original: Any, seam: Seam) -> Any:
    @functools.wraps(original)
    async def _wait(fs: Any, timeout: Any, return_when: Any, loop: Any) -> Any:
        result = await original(fs, timeout, return_when, loop)
        if seam.active and handoff.any_adopted:
            _hand_over(result[0])
        return result

    return _wait


def _wait_for(original: Any, seam: Seam) -> Any:
    @functools.wraps(original)
    async def wait_for(fut: Any, timeout: Any) -> Any:
        tasks = sys.modules["asyncio.tasks"]
        try:
            is_get = timeout is not None and seam.active and _is_get(fut)
        except Exception as error:
            handoff.report_fault("get", error)
            is_get = False
        if not is_get:
            return await original(fut, timeout)
        task = tasks.ensure_future(fut)  # as the original does
        try:
            return await original(task, timeout)
        finally:
            _hand_over([task])

    return wait_for


def _is_get(waited: Any) -> bool:
    """Whether what is waited for is ``get`` of a queue: a task, or its coroutine. May raise."""
    task = sys.modules["asyncio.tasks"].Task
    coroutine = waited.get_coro() if isinstance(waited, task) else waited
    get = inspect.unwrap(sys.modules["asyncio.queues"].Queue.get)
    return getattr(coroutine, "cr_code", None) is get.__code__


def _hand_over(done: Iterable[Any]) -> None:
    """Have the present flow adopt what the one ``get`` in ``done`` has adopted. Never raises."""
    try:
        got = [task for task in done if _is_get(task)]
        if len(got) != 1:
            return
        (task,) = got
        if task in _arrived or not task.done() or task.cancelled() or task.exception() is not None:
            return
        _arrived.add(task)
        context = _context_of(task)
        if context is None:
            return
        item_context = context.run(_adopted_here)
        if item_context or get_current():
            adoption.adopt(item_context)
    except Exception as error:
        handoff.report_fault("get", error)


def _context_of(task: Any) -> contextvars.Context | None:
    """Return the context variables of a task that is done; None if they cannot be read.

    ``get_context`` exists since CPython 3.12. Before, the task written in C refers to exactly one
    such object after its callbacks have been scheduled.
    """
    get_context = getattr(task, "get_context", None)
    if get_context is not None:
        context: contextvars.Context = get_context()
        return context
    import gc  # most programs never need it

    own = [one for one in gc.get_referents(task) if type(one) is contextvars.Context]
    return own[0] if len(own) == 1 else None


def _adopted_here() -> Context | None:
    """Return the context that the present flow has adopted, if it is current and not empty."""
    record, current = adopted.get(), get_current()
    return current if current and record is not None and record[0]() is current else None
