"""eventlet: green threads, its pool of native threads, and its queues.

THREADING covers green threads: the context is captured when one is made, also by a pool or for a
monkey-patched thread. FUTURES covers calls that are handed to ``tpool``, and QUEUE covers items:
the hub puts and takes items on behalf of green threads that wait (see ``_items.relays``).

Green threads share a native thread. So with eventlet, work is identified by its green thread.
"""

from __future__ import annotations

import functools
import threading
from types import ModuleType
from typing import Any

from otel_concurrency._core import handoff
from otel_concurrency._core.handoff import NO_CONTEXT, BodyCall, Call, Seam
from otel_concurrency._core.patching import Layer, Patch
from otel_concurrency._items import adoption, queue_hooks
from otel_concurrency._items.pairing import Pairing
from otel_concurrency._items.queue_hooks import QueueHooks
from otel_concurrency._items.relays import Incoming, Outgoing
from otel_concurrency._primitives import modules_that_ask_for_the_thread

TESTED = ("0.38.0", "0.41.3")

_CONTEXT = "_otel_concurrency_context"


def _green_layers(greenthread: Any, seam: Seam) -> list[Patch]:
    ident = _green_ident(greenthread)
    return [
        Layer(greenthread.GreenThread, "__init__", lambda raw: _init(raw, seam)),
        Layer(greenthread.GreenThread, "main", lambda raw: _main(raw, seam)),
        Layer(greenthread, "_spawn_n", lambda raw: _spawn_n(raw, seam)),
        *(
            Layer(one, "get_ident", lambda raw: ident, check_signature=False)
            for one in modules_that_ask_for_the_thread()
        ),
    ]


def _pool_layers(tpool: ModuleType, seam: Seam) -> list[Patch]:
    return [Layer(tpool, "execute", lambda raw: _execute(raw, seam))]


def _queue_layers(queue: Any, seam: Seam) -> list[Patch]:
    pairing = Pairing(
        queue,
        seam,
        stock="LightQueue",
        alike=("Queue",),
        container="queue",
        size="qsize",
        waits=("qsize", False),
        consumers=("get",),
    )
    incoming, outgoing = Incoming(pairing), Outgoing(pairing)
    return [
        QueueHooks(pairing, {}),
        Layer(queue.LightQueue, "put", lambda raw: _put(raw, incoming)),
        Layer(queue.LightQueue, "get", lambda raw: _get(raw, outgoing)),
        Layer(queue.Queue, "task_done", queue_hooks.task_done),
    ]


MODULES = {
    "threading": {"eventlet.greenthread": _green_layers},
    "futures": {"eventlet.tpool": _pool_layers},
    "queue": {"eventlet.queue": _queue_layers},
}


def _green_ident(greenthread: Any) -> Any:
    current = greenthread.getcurrent
    return lambda: id(current())


def _init(original: Any, seam: Seam) -> Any:
    @functools.wraps(original)
    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:  # noqa: N807
        original(self, *args, **kwargs)
        try:
            context = seam.capture(self)
            if context is not None:
                self.__dict__[_CONTEXT] = context
        except Exception as error:
            handoff.report_fault("spawn", error)

    return __init__


def _main(original: Any, seam: Seam) -> Any:
    @functools.wraps(original)
    def main(self: Any, function: Any, args: Any, kwargs: Any) -> Any:
        context = self.__dict__.pop(_CONTEXT, None)
        try:
            if context is not None and seam.active and not _is_known(seam, function, args):
                function = BodyCall(context, function)
        except Exception as error:
            handoff.report_fault("spawn", error)
        context = None
        return original(self, function, args, kwargs)

    return main


def _is_known(seam: Seam, function: Any, args: Any) -> bool:
    """Whether to leave a green thread alone.

    It stands for a ``threading.Thread``, which carries the context itself, or starts clean.
    """
    first = args[0] if args else None
    if isinstance(getattr(first, "__self__", None), threading.Thread):
        return True
    return seam.starts_clean is not None and seam.starts_clean(function)


def _spawn_n(original: Any, seam: Seam) -> Any:
    @functools.wraps(original)
    def _spawn_n(seconds: Any, func: Any, args: Any, kwargs: Any) -> Any:
        call = None
        if callable(func) and not isinstance(
            getattr(args[0] if args else None, "__self__", None), threading.Thread
        ):
            call = handoff.call(seam, func, BodyCall)
        return original(seconds, call or func, args, kwargs)

    return _spawn_n


def _execute(original: Any, seam: Seam) -> Any:
    @functools.wraps(original)
    def execute(meth: Any, *args: Any, **kwargs: Any) -> Any:
        if not seam.active or isinstance(meth, Call):
            return original(meth, *args, **kwargs)
        # Also without a context: what it forgets to detach must not reach the next call.
        call = handoff.call(seam, meth, BodyCall) or BodyCall(NO_CONTEXT, meth)
        try:
            return original(call, *args, **kwargs)
        finally:
            call.release()

    return execute


def _put(original: Any, incoming: Incoming) -> Any:
    @functools.wraps(original)
    def put(self: Any, item: Any, block: Any = True, timeout: Any = None) -> Any:
        entry, failed = incoming.put(self, item), True
        try:
            result = original(self, item, block, timeout)
            failed = False
        finally:
            incoming.is_put(self, entry, failed=failed)
        return result

    return put


def _get(original: Any, outgoing: Outgoing) -> Any:
    @functools.wraps(original)
    def get(self: Any, block: Any = True, timeout: Any = None) -> Any:
        adoption.ask(lambda: block and not self.qsize())
        item = original(self, block, timeout)
        taken = outgoing.taken(item)
        if taken is not None:
            outgoing.arrive(taken)
            taken = None
        return item

    return get
