"""Watches items on their way through the queues of one process.

The record of an item is kept beside the queue, by the item's identity. This is less strict than the
library's treatment of contexts: if one object is put several times, its records are taken in the
order of the puts.
"""

from __future__ import annotations

import functools
import weakref
from collections import OrderedDict, deque
from types import FrameType, ModuleType
from typing import Any

from otel_concurrency._core.callers import caller
from otel_concurrency._core.patching import Layer, StandIn
from otel_concurrency._items import known_queues
from otel_concurrency._observer import flows, state
from otel_concurrency._observer.flows import hand_off
from otel_concurrency._observer.records import Record

_MOST = 20_000
"""The maximum number of records for a queue: a record stays if its item leaves unseen."""

_LAST = 64


class Records:
    """The records of one queue's items. It keeps the items alive so that no id is reused."""

    __slots__ = ("_got", "_waiting", "recirculates")

    def __init__(self) -> None:
        self._waiting: OrderedDict[int, deque[tuple[object, Record]]] = OrderedDict()
        self._got: deque[int] = deque(maxlen=_LAST)
        self.recirculates = False
        """Whether items that were got are put back: then it is a pool of objects, not of work."""

    def clear(self) -> None:
        self._waiting.clear()
        self._got.clear()

    def put(self, item: object, record: Record) -> None:
        if not self.recirculates and id(item) in self._got:
            self.recirculates = True
        self._waiting.setdefault(id(item), deque()).append((item, record))
        if len(self._waiting) > _MOST:
            self._waiting.popitem(last=False)

    def take_back(self, item: object) -> None:
        several = self._waiting.get(id(item))
        if several:
            several.pop()
        if not several:
            self._waiting.pop(id(item), None)

    def take(self, item: object) -> Record | None:
        several = self._waiting.get(id(item))
        if not several:
            return None
        record = several.popleft()[1]
        if not several:
            self._waiting.pop(id(item), None)
        self._got.append(id(item))
        return record


_queues: dict[int, tuple[weakref.ref[Any], Records]] = {}


def records_of(queue: Any) -> Records:
    """Return the records of ``queue``, which are dropped when the queue is garbage-collected."""
    key = id(queue)
    known = _queues.get(key)
    if known is not None and known[0]() is queue:
        return known[1]
    records = Records()
    _queues[key] = weakref.ref(queue, lambda _: _queues.pop(key, None)), records
    return records


def forget() -> None:
    """Reset the recorded state, so that no item is kept alive any more."""
    while _queues:
        _queues.popitem()[1][1].clear()


def is_plumbing(frame: FrameType | None) -> bool:
    """Whether the standard library uses the queue internally."""
    return not state.watching() or known_queues.is_plumbing(frame)


def putting(primitive: str, call: str) -> Any:
    """Return a wrapper for a method that puts an item."""

    def wrap(original: Any) -> Any:
        @functools.wraps(original)
        def put(self: Any, item: Any, *args: Any, **kwargs: Any) -> Any:
            record = None
            try:
                if not is_plumbing(caller()):
                    record = hand_off(primitive, call)
                    if record is not None:
                        records_of(self).put(item, record)
                        if not state.watching():  # watching has ended in between
                            forget()
            except Exception as error:
                state.fault("put", error)
            try:
                return original(self, item, *args, **kwargs)
            except BaseException:
                if record is not None:
                    records_of(self).take_back(item)
                raise

        return put

    return wrap


def getting(original: Any) -> Any:
    """Wrap a method that gets an item."""

    @functools.wraps(original)
    def get(self: Any, *args: Any, **kwargs: Any) -> Any:
        if is_plumbing(caller()):
            return original(self, *args, **kwargs)
        has_its_own = flows.next_item()
        item = original(self, *args, **kwargs)
        try:
            records = records_of(self)
            record = records.take(item)
            if record is not None:
                flows.begin(record, source=records, adopted=not has_its_own)
        except Exception as error:
            state.fault("get", error)
        return item

    return get


def _asking(original: Any) -> Any:
    """Wrap a method that waits for an item, which may never come."""

    @functools.wraps(original)
    async def get(self: Any, *args: Any, **kwargs: Any) -> Any:
        flows.next_item()
        return await original(self, *args, **kwargs)

    return get


def finishing(original: Any) -> Any:
    """Wrap the method that a consumer calls when it is done with its item."""

    @functools.wraps(original)
    def task_done(self: Any) -> Any:
        flows.let_go()
        return original(self)

    return task_done


def _layers(queue: ModuleType) -> list[Layer]:
    return [
        Layer(queue.Queue, "put", putting("queue", "Queue.put")),
        Layer(queue.Queue, "get", getting),
        Layer(queue.Queue, "task_done", finishing),
        Layer(queue, "SimpleQueue", _simple_queue),
    ]


def _asyncio_layers(queues: ModuleType) -> list[Layer]:
    return [
        Layer(queues.Queue, "put_nowait", putting("asyncio", "asyncio.Queue.put")),
        Layer(queues.Queue, "get", _asking),
        Layer(queues.Queue, "get_nowait", getting),
        Layer(queues.Queue, "task_done", finishing),
    ]


MODULES = {"queue": _layers, "asyncio.queues": _asyncio_layers}


def _simple_queue(plain: Any) -> Any:
    """Return a subclass to replace ``plain``, a C type whose methods cannot be patched."""
    builtin = plain
    while "stands_in_for" in vars(builtin):
        builtin = builtin.stands_in_for
    put, get = putting("queue", "SimpleQueue.put"), getting

    class SimpleQueue(plain, metaclass=StandIn):  # type: ignore[misc]  # a base known at run time
        stands_in_for = plain
        __module__ = "queue"
        __slots__ = ()

        def __new__(cls, *args: Any, **kwargs: Any) -> Any:
            if cls is SimpleQueue and known_queues.is_plumbing(caller()):
                return builtin(*args, **kwargs)
            return plain.__new__(cls, *args, **kwargs)

    for name, wrap in (("put", put), ("put_nowait", put), ("get", get), ("get_nowait", get)):
        setattr(SimpleQueue, name, wrap(getattr(plain, name)))
    return SimpleQueue
