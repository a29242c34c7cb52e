"""culsans: queues that threads, greenlets and tasks can share.

The setting QUEUE covers them. As in ``queue.Queue``, items go in and out by ``_put`` and ``_get``,
in the flow that puts or gets. The queues have slots and no other attributes, so the contexts of
their items are kept in a table.
"""

from __future__ import annotations

import functools
import inspect
import weakref
from types import ModuleType
from typing import Any

from otel_concurrency._core import handoff
from otel_concurrency._core.handoff import Seam
from otel_concurrency._core.patching import Layer, Patch, apply_all, undo_all
from otel_concurrency._items import adoption, queue_hooks
from otel_concurrency._items.pairs import Fifo, Keyed, Lifo, Pairs, beside

TESTED = ("0.8.0", "0.11.0")

_QUEUES: Any = {"Queue": Fifo, "LifoQueue": Lifo, "PriorityQueue": Keyed}
"""For each class of queues: the kind of pairs for its items."""

_CONSUMERS = ("sync_get", "green_get", "async_get", "get_nowait")


def _layers(culsans: ModuleType, seam: Seam) -> list[Patch]:
    return [_Queues(culsans, seam)]


MODULES = {"queue": {"culsans": _layers}}


class _Queues:
    """The hooks of all queues, with the contexts of their items; applied and undone as a layer."""

    def __init__(self, culsans: Any, seam: Seam) -> None:
        self._seam = seam
        self._pairs: dict[int, tuple[weakref.ref[Any], Pairs]] = {}
        stock = culsans.Queue
        self.layers = [
            *(
                Layer(getattr(culsans, name), "_put", functools.partial(self._put, name, kind))
                for name, kind in _QUEUES.items()
            ),
            *(Layer(getattr(culsans, name), "_get", self._get) for name in _QUEUES),
            *(Layer(stock, name, _letting_go) for name in _CONSUMERS if name in vars(stock)),
            Layer(stock, "task_done", queue_hooks.task_done),
            *queue_hooks.shutdown_layers(stock),
        ]

    def apply(self) -> None:
        """Set the hooks."""
        apply_all(self.layers)

    def undo(self) -> None:
        """Remove the hooks, and drop all waiting contexts."""
        undo_all(self.layers)
        self._pairs.clear()
        adoption.let_go()  # no later hook will do it for this flow

    def _put(self, name: str, kind: Any, original: Any) -> Any:
        @functools.wraps(original)
        def _put(queue: Any, item: Any) -> Any:
            result = original(queue, item)
            try:
                self._remember(name, kind, queue, item)
            except Exception as error:
                handoff.report("put", error)
            return result

        return _put

    def _remember(self, name: str, kind: Any, queue: Any, item: Any) -> None:
        known = self._pairs.get(id(queue))
        if known is None:
            if not (self._seam.active and self._seam.concerned()):
                return
            items = getattr(queue, f"_{name}__data")  # as the interpreter mangles it
            key, table = id(queue), self._pairs
            reference = weakref.ref(queue, lambda _: table.pop(key, None))
            known = table[key] = reference, beside(kind, items, item)
        known[1].put(item, self._seam.current(), queue._qsize())

    def _get(self, original: Any) -> Any:
        @functools.wraps(original)
        def _get(queue: Any) -> Any:
            item = original(queue)
            try:
                self._deliver(queue, item)
            except Exception as error:
                handoff.report("get", error)
            return item

        return _get

    def _deliver(self, queue: Any, item: Any) -> None:
        known = self._pairs.get(id(queue))
        context = None if known is None else known[1].take(item, queue._qsize())
        adoption.hand_over(self._seam, context)


def _letting_go(original: Any) -> Any:
    """Wrap a method that gets an item: a consumer that asks for the next lets go of the last."""
    if inspect.iscoroutinefunction(original):

        @functools.wraps(original)
        async def get_in_task(self: Any, /) -> Any:
            adoption.let_go()
            return await original(self)

        return get_in_task

    @functools.wraps(original)
    def get(self: Any, /, *args: Any, **kwargs: Any) -> Any:
        adoption.let_go()
        return original(self, *args, **kwargs)

    return get
