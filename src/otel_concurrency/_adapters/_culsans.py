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
        self._culsans = culsans
        self._pairs: dict[int, tuple[weakref.ref[Any], Pairs]] = {}
        stock = culsans.Queue
        self.layers = [
            *(Layer(getattr(culsans, name), "_put", self._put) for name in _QUEUES),
            *(Layer(getattr(culsans, name), "_get", self._get) for name in _QUEUES),
            *(Layer(stock, name, self._letting_go) for name in _CONSUMERS if name in vars(stock)),
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

    def _put(self, original: Any) -> Any:
        @functools.wraps(original)
        def _put(queue: Any, item: Any) -> Any:
            result = original(queue, item)
            try:
                self._remember(queue, item)
            except Exception as error:
                handoff.report_fault("put", error)
            return result

        return _put

    def _remember(self, queue: Any, item: Any) -> None:
        pairs = self._pairs_of(queue, item)
        if pairs is not None:
            context = pairs.loans.kept_with(item, self._seam.current())
            pairs.put(item, context, queue._qsize())

    def _pairs_of(self, queue: Any, *put: Any) -> Pairs | None:
        """Return the pairs of ``queue``, to which ``put`` was put last; None: there is no need."""
        key, table = id(queue), self._pairs
        if key in table:
            return table[key][1]
        if not (self._seam.active and self._seam.concerned()):
            return None
        name = next(
            name for name in reversed(_QUEUES) if isinstance(queue, getattr(self._culsans, name))
        )
        items = getattr(queue, f"_{name}__data")  # as the interpreter mangles it
        pairs = beside(_QUEUES[name], items, *put)
        table[key] = weakref.ref(queue, lambda _: table.pop(key, None)), pairs
        return pairs

    def _get(self, original: Any) -> Any:
        @functools.wraps(original)
        def _get(queue: Any) -> Any:
            item = original(queue)
            try:
                self._deliver(queue, item)
            except Exception as error:
                adoption.cannot_tell(error)
            return item

        return _get

    def _deliver(self, queue: Any, item: Any) -> None:
        is_known = id(queue) in self._pairs
        pairs = self._pairs_of(queue)
        if pairs is not None:
            context = pairs.take(item, queue._qsize()) if is_known else None
            adoption.hand_over(self._seam, context, item, pairs.loans)

    def _letting_go(self, original: Any) -> Any:
        """Wrap a method that gets an item: its caller is done with the last item."""
        if inspect.iscoroutinefunction(original):

            @functools.wraps(original)
            async def get_in_task(queue: Any, /) -> Any:
                adoption.ask(lambda: not queue._qsize())
                return await original(queue)

            return get_in_task

        waits = not original.__name__.endswith("_nowait")

        @functools.wraps(original)
        def get(queue: Any, /, *args: Any, **kwargs: Any) -> Any:
            adoption.ask(lambda: waits and not queue._qsize())
            try:
                return original(queue, *args, **kwargs)
            except self._culsans.SyncQueueEmpty:
                adoption.found_none()
                self._asked_in_vain(queue)
                raise

        return get

    def _asked_in_vain(self, queue: Any) -> None:
        try:
            pairs = self._pairs_of(queue)
            if pairs is not None:
                adoption.asked_in_vain(pairs.loans)
        except Exception as error:
            handoff.report_fault("get", error)
