"""tornado: its queues, whose ``get`` and ``put`` return futures.

The setting ASYNCIO covers them. The producer takes the item out for a consumer that waits, and the
consumer puts the item of a producer that waits (see ``_items.relays``). The context comes with the
future that ``get`` returned. The flow that awaits the future adopts it.
"""

from __future__ import annotations

import functools
import inspect
from types import ModuleType
from typing import Any, cast

from otel_concurrency._core.callers import is_called_by
from otel_concurrency._core.handoff import Seam
from otel_concurrency._core.patching import Layer, Patch
from otel_concurrency._items import adoption, queue_hooks
from otel_concurrency._items.pairing import Pairing
from otel_concurrency._items.queue_hooks import QueueHooks
from otel_concurrency._items.relays import Entry, Incoming, Outgoing

TESTED = ("6.4.0", "6.6.1")

_CONTEXT = "_otel_concurrency_context"


def _layers(queues: ModuleType, seam: Seam) -> list[Patch]:
    stock: Any = vars(queues)["Queue"]
    pairing = Pairing(
        queues,
        seam,
        container="_queue",
        size="qsize",
        waits=("qsize", False),
        consumers=("get_nowait",),
    )
    incoming, outgoing = Incoming(pairing), Outgoing(pairing)
    put, get = _code(stock.put), _code(stock.get)
    return [
        QueueHooks(pairing, {}),
        Layer(queues, "Future", lambda raw: _future(raw, outgoing)),
        Layer(stock, "put", lambda raw: _put(raw, incoming, outgoing)),
        Layer(stock, "put_nowait", lambda raw: _put_nowait(raw, incoming, outgoing, put)),
        Layer(stock, "get", _get),
        Layer(stock, "get_nowait", lambda raw: _get_nowait(raw, outgoing, get)),
        Layer(stock, "task_done", queue_hooks.task_done),
        *queue_hooks.shutdown_layers(stock),
    ]


MODULES = {"asyncio": {"tornado.queues": _layers}}


def _code(function: Any) -> Any:
    return inspect.unwrap(function).__code__


def _future(plain: Any, outgoing: Outgoing) -> Any:
    """Return the class of the futures that the queues make."""

    class Future(plain):  # type: ignore[misc]  # a base known at run time
        __module__ = plain.__module__
        __qualname__ = plain.__qualname__

        def set_result(self, result: Any) -> None:
            taken = outgoing.taken(result)
            if taken is not None:
                setattr(self, _CONTEXT, taken)
            plain.set_result(self, result)

        def __await__(self) -> Any:
            result = cast("Any", (yield from plain.__await__(self)))
            taken = getattr(self, _CONTEXT, None)
            if taken is not None:
                setattr(self, _CONTEXT, None)
                outgoing.arrive(taken)
                taken = None
            return result

        __iter__ = __await__

    return Future


def _put(original: Any, incoming: Incoming, outgoing: Outgoing) -> Any:
    @functools.wraps(original)
    def put(self: Any, item: Any, timeout: Any = None) -> Any:
        entry = incoming.put(self, item)
        try:
            future = original(self, item, timeout)
        except BaseException:
            incoming.is_put(self, entry, failed=True)
            raise
        finally:
            outgoing.forget()
        if entry is not None:
            if future.done():
                incoming.is_put(self, entry)
            else:
                future.add_done_callback(functools.partial(_is_put, incoming, self, entry))
        return future

    return put


def _is_put(incoming: Incoming, queue: Any, entry: Entry, future: Any) -> None:
    # `exception()` would mark the exception as retrieved, and suppress the warning about it.
    incoming.is_put(queue, entry, failed=future.cancelled() or future._exception is not None)


def _put_nowait(original: Any, incoming: Incoming, outgoing: Outgoing, put: Any) -> Any:
    @functools.wraps(original)
    def put_nowait(self: Any, item: Any) -> Any:
        if is_called_by(put):
            return original(self, item)
        entry, failed = incoming.put(self, item), True
        try:
            result = original(self, item)
            failed = False
        finally:
            incoming.is_put(self, entry, failed=failed)
            outgoing.forget()
        return result

    return put_nowait


def _get(original: Any) -> Any:
    @functools.wraps(original)
    def get(self: Any, timeout: Any = None) -> Any:
        adoption.ask(self.empty)
        return original(self, timeout)

    return get


def _get_nowait(original: Any, outgoing: Outgoing, get: Any) -> Any:
    @functools.wraps(original)
    def get_nowait(self: Any) -> Any:
        if is_called_by(get):
            return original(self)
        adoption.ask(lambda: False)  # it raises if there is none
        item = original(self)
        taken = outgoing.taken(item)
        if taken is not None:
            outgoing.arrive(taken)
            taken = None
        return item

    return get_nowait
