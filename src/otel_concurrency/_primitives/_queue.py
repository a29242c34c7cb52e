"""``queue``: an item carries the context in which it was put to the consumer that gets it.

The contexts lie beside the items. A ``Queue`` whose items have never had one is left as it is: its
``_put`` and ``_get`` (its class's own, or those of the user's subclass) are accompanied from the
first ``put`` inside a context on, by two attributes of that one queue, so that each step is paired
under the queue's own lock.

``SimpleQueue`` is a C type whose items nobody can look at, so there an item and its context are
stored as one, in a subclass that takes its name.
"""

from __future__ import annotations

import functools
import sys
from types import ModuleType
from typing import Any

from opentelemetry.context import Context

from otel_concurrency import _handoff, _items
from otel_concurrency._handoff import Seam
from otel_concurrency._patching import Layer, StandIn


def _layers(queue: ModuleType, seam: Seam) -> list[Layer]:
    pairing = _items.Accompaniment(queue, seam, get=queue.Queue.get, size="_qsize")
    return [
        Layer(queue.Queue, "put", lambda raw: _put(raw, pairing)),
        Layer(queue.Queue, "get", _get),
        Layer(queue.Queue, "task_done", _task_done),
        Layer(queue, "SimpleQueue", lambda raw: _simple_queue(raw, seam)),
    ]


MODULES = {"queue": _layers}


def _put(original: Any, pairing: _items.Accompaniment) -> Any:
    @functools.wraps(original)
    def put(self: Any, item: Any, block: bool = True, timeout: float | None = None) -> Any:
        if _handoff.get_current() and "_put" not in self.__dict__:
            _start(self, pairing)
        return original(self, item, block, timeout)

    return put


def _start(queue: Any, pairing: _items.Accompaniment) -> None:
    try:
        if _items.is_plumbing(sys._getframe(1)):  # pyright: ignore[reportPrivateUsage]
            return
        with queue.mutex:
            if "_put" not in queue.__dict__:
                pairing.start(queue, getattr(queue, "queue", ()))
    except Exception as error:
        _handoff.report("put", error)


def _get(original: Any) -> Any:
    @functools.wraps(original)
    def get(self: Any, block: bool = True, timeout: float | None = None) -> Any:
        if _handoff.installed.get() is None and not _handoff.get_current():
            return original(self, block, timeout)
        if _handoff.installed.get() is not None:
            _items.let_go()
        item = original(self, block, timeout)
        if "_get" not in self.__dict__:
            _items.adopt_safely(None)
        return item

    return get


def _task_done(original: Any) -> Any:
    @functools.wraps(original)
    def task_done(self: Any) -> Any:
        _items.let_go()
        return original(self)

    return task_done


class _Carried(tuple[Any, Context]):
    """An item of a ``SimpleQueue`` together with the context in which it was put."""

    __slots__ = ()


def _simple_queue(plain: Any, seam: Seam) -> Any:
    plain_new, plain_put, plain_get = plain.__new__, plain.put, plain.get

    def carry(item: Any) -> Any:
        try:
            context = seam.capture(item)
        except Exception as error:
            _handoff.report("put", error)
            return item
        return item if context is None else _Carried((item, context))

    def receive(stored: Any) -> Any:
        item, context = stored if type(stored) is _Carried else (stored, None)
        try:
            if seam.capture is not _handoff.capture_nothing:
                _items.adopt(context)
        except Exception as error:
            _handoff.report("get", error)
        return item

    class SimpleQueue(plain, metaclass=StandIn):  # type: ignore[misc]  # a base known at run time
        stands_in_for = plain
        __module__ = "queue"
        __slots__ = ()

        def __new__(cls, *args: Any, **kwargs: Any) -> Any:
            frame = sys._getframe(1)  # pyright: ignore[reportPrivateUsage]  # documented
            if cls is SimpleQueue and _items.is_plumbing(frame):
                return plain(*args, **kwargs)
            return plain_new(cls, *args, **kwargs)

        @functools.wraps(plain.put)
        def put(self, item: Any, block: bool = True, timeout: float | None = None) -> Any:
            return plain_put(self, carry(item), block, timeout)

        @functools.wraps(plain.put_nowait)
        def put_nowait(self, item: Any) -> Any:
            return plain_put(self, carry(item))

        @functools.wraps(plain.get)
        def get(self, block: bool = True, timeout: float | None = None) -> Any:
            if _handoff.installed.get() is not None:
                _items.let_go()
            return receive(plain_get(self, block, timeout))

        @functools.wraps(plain.get_nowait)
        def get_nowait(self) -> Any:
            if _handoff.installed.get() is not None:
                _items.let_go()
            return receive(plain_get(self, False))

    return SimpleQueue
