"""``queue``: an item carries the context in which it was put to the consumer that gets it.

The contexts of a ``Queue`` are kept beside its items. ``SimpleQueue`` is a C type whose items
cannot be inspected. So a subclass takes its name, and stores each item together with its context.
"""

from __future__ import annotations

import functools
import sys
from types import ModuleType
from typing import Any, cast

from opentelemetry.context import Context

from otel_concurrency._core import handoff
from otel_concurrency._core.callers import caller
from otel_concurrency._core.handoff import Seam, adopted, capture_nothing, get_current
from otel_concurrency._core.patching import Layer, Patch, StandIn
from otel_concurrency._items import adoption, known_queues, queue_hooks
from otel_concurrency._items.adoption import adopt, let_go
from otel_concurrency._items.pairing import Pairing
from otel_concurrency._items.pairs import Fifo
from otel_concurrency._items.queue_hooks import QueueHooks


def _layers(queue: ModuleType, seam: Seam) -> list[Patch]:
    if queue.Queue.__module__ != queue.__name__:
        return []  # gevent has replaced all of these classes, and its adapter covers them
    pairing = Pairing(queue, seam, container="queue", size="_qsize", waits=("_qsize", False))
    return [
        QueueHooks(pairing, _inlined(pairing)),
        Layer(queue.Queue, "task_done", queue_hooks.task_done),
        *queue_hooks.shutdown_layers(queue.Queue),
        Layer(queue, "SimpleQueue", lambda raw: _simple_queue(raw, seam)),
    ]


def _manager_layers(managers: ModuleType, seam: Seam) -> list[Patch]:
    return [Layer(managers.Server, "accept_connection", _accept_connection)]


def _accept_connection(original: Any) -> Any:
    abstains = adoption.abstaining(original)

    @functools.wraps(original)
    def accept_connection(*args: Any, **kwargs: Any) -> Any:
        # It serves until the connection ends, and takes items for others. Where `multiprocessing`
        # is on, these adopt them.
        carries = handoff.seams.get("multiprocessing")
        function = original if carries is not None and carries.active else abstains
        return function(*args, **kwargs)

    return accept_connection


MODULES = {
    "queue": _layers,
    "multiprocessing.managers": _manager_layers,
}


def _inlined(pairing: Pairing) -> dict[str, tuple[Any, ...]]:
    # The same code as in `_asyncio`, for another attribute. It is not shared because one more
    # function call would cost as much as all the rest.
    # A test compares the two, and compares both with the code of `Fifo` that they repeat.
    owner, start, remember = pairing.stock, pairing.start, pairing.remember
    deliver, wait, fault = pairing.deliver, pairing.wait, pairing.fault

    def _put(self: Any, item: Any) -> None:
        container = self.queue
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
            else:
                remember(self, item, owner)
        except Exception as error:
            fault("put", error)

    def _get(self: Any) -> Any:
        container = self.queue
        item = container.popleft()
        try:
            pairs = self._otel_concurrency_pairs
            if pairs is None:
                if get_current():
                    deliver(self, item, owner)
            elif type(pairs) is Fifo and len(pairs) == 2 * len(container) + 2 and pairs[0] is item:
                pairs.popleft()
                adopt(pairs.popleft())
            else:
                deliver(self, item, owner)
        except Exception as error:
            fault("get", error)
        return item

    def _qsize(self: Any) -> int:
        size = len(self.queue)
        if not size:
            try:
                wait(self)
            except Exception as error:
                fault("get", error)
        return size

    return {
        "_put": (_put, "queue", "append"),
        "_get": (_get, "queue", "popleft"),
        "_qsize": (_qsize, "len", "queue"),
    }


_MARK = object()
"""The first of the three parts in which a ``SimpleQueue`` stores an item with its context."""


def _simple_queue(plain: Any, seam: Seam) -> Any:
    plain_new, plain_put, plain_get = plain.__new__, plain.put, plain.get
    module = sys.modules["queue"]

    def deliver(stored: Any) -> Any:
        context: Context | None = None
        kind = cast("Any", type(stored))
        if kind is tuple and len(stored) == 3 and stored[0] is _MARK:
            _, stored, context = stored
        try:
            if context and seam.change is not None:
                context = seam.change(context)
            if seam.capture is capture_nothing:
                let_go()
            elif context or get_current():
                adopt(context)
        except Exception as error:
            handoff.report("get", error)
        return stored

    class SimpleQueue(plain, metaclass=StandIn):  # type: ignore[misc]  # a base known at run time
        stands_in_for = plain
        __module__ = "queue"
        __slots__ = ()

        def __new__(cls, *args: Any, **kwargs: Any) -> Any:
            if cls is SimpleQueue and (args or kwargs or _is_plumbing()):
                return plain(*args, **kwargs)
            return plain_new(cls, *args, **kwargs)

        @functools.wraps(plain.put)
        def put(self, item: Any, block: bool = True, timeout: float | None = None) -> Any:
            try:
                context = seam.current()
                if context and seam.capture is not capture_nothing:
                    item = _MARK, item, context
            except Exception as error:
                handoff.report("put", error)
            return plain_put(self, item, block, timeout)

        @functools.wraps(plain.put_nowait)
        def put_nowait(self, item: Any) -> Any:
            try:
                context = seam.current()
                if context and seam.capture is not capture_nothing and not _is_plumbing():
                    item = _MARK, item, context
            except Exception as error:
                handoff.report("put", error)
            return plain_put(self, item)

        @functools.wraps(plain.get)
        def get(self, block: bool = True, timeout: float | None = None) -> Any:
            if adopted.get() is not None:
                if timeout is None:
                    try:
                        return deliver(plain_get(self, False))
                    except module.Empty:
                        pass
                let_go()
            return deliver(plain_get(self, block, timeout))

        @functools.wraps(plain.get_nowait)
        def get_nowait(self) -> Any:
            if adopted.get() is not None:
                let_go()
            return deliver(plain_get(self, False))

    for name in ("put", "put_nowait", "get", "get_nowait"):
        SimpleQueue.__dict__[name].__annotations__ = {}
    return SimpleQueue


def _is_plumbing() -> bool:
    try:
        return known_queues.is_plumbing(caller(1))
    except Exception as error:
        handoff.report("SimpleQueue", error)
        return False
