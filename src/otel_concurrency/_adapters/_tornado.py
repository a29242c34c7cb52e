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
from otel_concurrency._items.queue_hooks import QueueHooks
from otel_concurrency._items.relays import Entry, Relay

TESTED = ("6.4.0", "6.6.1")

_CONTEXT = "_otel_concurrency_context"


def _layers(queues: ModuleType, seam: Seam) -> list[Patch]:
    stock: Any = vars(queues)["Queue"]
    relay = Relay(
        queues,
        seam,
        container="_queue",
        size="qsize",
        waits=("qsize", False),
        consumers=("get_nowait",),
    )
    return [
        QueueHooks(relay, {}),
        Layer(queues, "Future", lambda raw: _future(raw, relay)),
        Layer(stock, "put", lambda raw: _put(raw, relay)),
        Layer(stock, "put_nowait", lambda raw: _put_nowait(raw, relay, _code(stock.put))),
        Layer(stock, "get", _get),
        Layer(stock, "get_nowait", lambda raw: _get_nowait(raw, relay, _code(stock.get))),
        Layer(stock, "task_done", queue_hooks.task_done),
        *queue_hooks.shutdown_layers(stock),
    ]


MODULES = {"asyncio": {"tornado.queues": _layers}}


def _code(function: Any) -> Any:
    return inspect.unwrap(function).__code__


def _future(plain: Any, relay: Relay) -> Any:
    """Return the class of the futures that the queues make."""

    class Future(plain):  # type: ignore[misc]  # a base known at run time
        __module__ = plain.__module__
        __qualname__ = plain.__qualname__

        def set_result(self, result: Any) -> None:
            taken = relay.taken(result)
            if taken is not None:
                setattr(self, _CONTEXT, taken)
            plain.set_result(self, result)

        def __await__(self) -> Any:
            result = cast("Any", (yield from plain.__await__(self)))
            taken = getattr(self, _CONTEXT, None)
            if taken is not None:
                setattr(self, _CONTEXT, None)
                relay.arrive(taken)
                taken = None
            return result

        __iter__ = __await__

    return Future


def _put(original: Any, relay: Relay) -> Any:
    @functools.wraps(original)
    def put(self: Any, item: Any, timeout: Any = None) -> Any:
        entry = relay.put(self, item)
        try:
            future = original(self, item, timeout)
        except BaseException:
            relay.put_failed(self, entry)
            raise
        finally:
            relay.forget_taken()
        if entry is not None and not future.done():
            future.add_done_callback(functools.partial(_is_put, relay, self, entry))
        return future

    return put


def _is_put(relay: Relay, queue: Any, entry: Entry, future: Any) -> None:
    # `exception()` would mark the exception as retrieved, and suppress the warning about it.
    if future.cancelled() or future._exception is not None:
        relay.put_failed(queue, entry)


def _put_nowait(original: Any, relay: Relay, put: Any) -> Any:
    @functools.wraps(original)
    def put_nowait(self: Any, item: Any) -> Any:
        if is_called_by(put):
            return original(self, item)
        entry = relay.put(self, item)
        try:
            return original(self, item)
        except BaseException:
            relay.put_failed(self, entry)
            raise
        finally:
            relay.forget_taken()

    return put_nowait


def _get(original: Any) -> Any:
    @functools.wraps(original)
    def get(self: Any, timeout: Any = None) -> Any:
        adoption.let_go()
        return original(self, timeout)

    return get


def _get_nowait(original: Any, relay: Relay, get: Any) -> Any:
    @functools.wraps(original)
    def get_nowait(self: Any) -> Any:
        if is_called_by(get):
            return original(self)
        adoption.let_go()
        item = original(self)
        taken = relay.taken(item)
        if taken is not None:
            relay.arrive(taken)
            taken = None
        return item

    return get_nowait
