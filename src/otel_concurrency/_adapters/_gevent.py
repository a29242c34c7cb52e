"""gevent: greenlets, its thread pool, and its queues.

THREADING covers greenlets. The context is captured when one is started, in gevent's own callback
for that. It sees greenlets of subclasses and pools too, and those of monkey-patched threads.
FUTURES covers calls that are handed to ``gevent.threadpool``, and QUEUE the items of
``gevent.queue``, whose classes replace those of ``queue`` under ``monkey.patch_all``.

Greenlets share a native thread. So with gevent, work is identified by its greenlet.
"""

from __future__ import annotations

import functools
import importlib
import sys
from types import ModuleType
from typing import Any

from otel_concurrency._core import handoff
from otel_concurrency._core.callers import caller
from otel_concurrency._core.handoff import NO_CONTEXT, BodyCall, Call, Seam
from otel_concurrency._core.patching import Layer, Patch, StandIn
from otel_concurrency._items import adoption
from otel_concurrency._items.known_queues import is_plumbing
from otel_concurrency._items.pairs import Fifo, Keyed, Lifo, beside
from otel_concurrency._primitives import modules_that_ask_for_the_thread

TESTED = ("25.9.1", "26.9.0")


def _greenlet_layers(gevent: ModuleType, seam: Seam) -> list[Patch]:
    return [
        _OnSpawn(gevent.Greenlet, seam),
        # One function under two names, since `gevent` has imported it from the hub by now.
        Layer(gevent.hub, "spawn_raw", lambda raw: _spawn_raw(raw, seam)),
        Layer(gevent, "spawn_raw", lambda raw: _spawn_raw(raw, seam)),
    ]


def _ident_layers(thread: ModuleType, seam: Seam) -> list[Patch]:
    return [
        Layer(module, "get_ident", lambda raw: thread.get_ident, check_signature=False)
        for module in modules_that_ask_for_the_thread()
    ]


def _pool_layers(threadpool: ModuleType, seam: Seam) -> list[Patch]:
    return [Layer(threadpool.ThreadPool, "spawn", lambda raw: _pool_spawn(raw, seam))]


_QUEUES = {"SimpleQueue": Fifo, "Queue": Fifo, "PriorityQueue": Keyed, "LifoQueue": Lifo}
"""For each class of queues: the kind of pairs for its items."""


def _queue_layers(gevent: ModuleType, seam: Seam) -> list[Patch]:
    # While it is imported it takes the name of a C module, so import hooks do not see it.
    queue: Any = importlib.import_module("gevent.queue")
    made: dict[Any, Any] = {}

    def stand_in(plain: Any, kind: Any) -> Any:
        if plain not in made:
            made[plain] = _queue_class(plain, kind, seam)
        return made[plain]

    owners: list[Any] = [queue]
    patched = sys.modules.get("queue")
    if patched is not None and vars(patched).get("Queue") is queue.Queue:
        owners.append(patched)
    names = dict(_QUEUES)
    if queue.JoinableQueue is queue.Queue:  # since 25.4.1
        names["JoinableQueue"] = Fifo
    return [
        Layer(owner, name, functools.partial(stand_in, kind=kind))
        for owner in owners
        for name, kind in names.items()
        if hasattr(getattr(owner, name, None), "_put")
    ]


MODULES = {
    "threading": {"gevent": _greenlet_layers, "gevent.thread": _ident_layers},
    "futures": {"gevent.threadpool": _pool_layers},
    "queue": {"gevent": _queue_layers},
}


class _OnSpawn:
    """A callback for greenlets that are started; applied and undone as a layer is."""

    layers = ()

    def __init__(self, greenlet: Any, seam: Seam) -> None:
        self._greenlet = greenlet
        self._seam = seam
        self._callback = self._started  # kept, since gevent removes a callback by identity

    def apply(self) -> None:
        """Register the callback with gevent, at most once."""
        self._greenlet.add_spawn_callback(self._callback)

    def undo(self) -> None:
        """Remove the callback from gevent."""
        self._greenlet.remove_spawn_callback(self._callback)

    def _started(self, greenlet: Any) -> None:
        try:
            run = greenlet._run  # gevent drops it when the greenlet ends, even if it never ran
            if greenlet.gr_context is None and not _is_thread(run):
                call = handoff.call(self._seam, run, BodyCall)
                if call is not None:
                    greenlet._run = call
        except Exception as error:
            handoff.report_fault("start", error)


def _is_thread(run: Any) -> bool:
    """Whether a greenlet stands for a ``threading.Thread``, which carries the context itself."""
    threading: Any = sys.modules.get("threading")
    return threading is not None and isinstance(getattr(run, "__self__", None), threading.Thread)


def _spawn_raw(original: Any, seam: Seam) -> Any:
    @functools.wraps(original)
    def spawn_raw(function: Any, *args: Any, **kwargs: Any) -> Any:
        call = handoff.call(seam, function, BodyCall) if callable(function) else None
        return original(call or function, *args, **kwargs)

    return spawn_raw


def _pool_spawn(original: Any, seam: Seam) -> Any:
    @functools.wraps(original)
    def spawn(self: Any, func: Any, *args: Any, **kwargs: Any) -> Any:
        if not seam.active or isinstance(func, Call):
            return original(self, func, *args, **kwargs)
        # Also without a context: what it forgets to detach must not reach the next call.
        call = handoff.call(seam, func, BodyCall) or BodyCall(NO_CONTEXT, func)
        try:
            return original(self, call, *args, **kwargs)
        except BaseException:
            call.release()
            raise

    return spawn


_PAIRS = "_otel_concurrency_pairs"
_PUTTING = "_otel_concurrency_putting"
"""The attribute with the items that are being put, and the contexts of the calls of ``put``."""


def _queue_class(plain: Any, kind: Any, seam: Seam) -> Any:
    """Return a subclass of the queue ``plain``, a C type, whose items carry contexts.

    Items go in and out by ``_put`` and ``_get``. If ``put`` has to wait, the hub puts the item
    later. So the context is the one that was current when ``put`` was called.
    """
    module: Any = sys.modules[plain.__module__]

    class Queue(plain, metaclass=StandIn):  # type: ignore[misc]  # a base known at run time
        stands_in_for = plain
        __module__ = plain.__module__
        __slots__ = (_PAIRS, _PUTTING)

        def __new__(cls, *args: Any, **kwargs: Any) -> Any:
            if cls is Queue and is_plumbing(caller()):
                return plain(*args, **kwargs)
            return plain.__new__(cls, *args, **kwargs)

        @functools.wraps(plain.put)
        def put(self, item: Any, block: bool = True, timeout: Any = None) -> Any:
            # One that may have to wait is noted without a context, too: the same object may be
            # put in a context meanwhile.
            if not seam.active or not (handoff.is_concerned(seam) or plain.full(self)):
                return plain.put(self, item, block, timeout)
            waiting: list[list[Any]] | None = getattr(self, _PUTTING, None)
            if waiting is None:
                waiting = []
                setattr(self, _PUTTING, waiting)
            entry = [item, _kept_with(self, item, handoff.current_safely())]
            waiting.append(entry)
            try:
                return plain.put(self, item, block, timeout)
            finally:
                waiting[:] = [other for other in waiting if other is not entry]
                entry.clear()  # a traceback with this frame must not keep the context alive

        def _put(self, item: Any) -> None:
            plain._put(self, item)
            try:
                _remember(self, item)
            except Exception as error:
                handoff.report_fault("put", error)

        @functools.wraps(plain.get)
        def get(self, block: bool = True, timeout: Any = None) -> Any:
            adoption.ask(lambda: block and not len(self.queue))
            try:
                return plain.get(self, block, timeout)
            except module.Empty:
                adoption.found_none()
                _asked_in_vain(self)
                raise

        def _get(self) -> Any:
            item = plain._get(self)
            try:
                _deliver(self, item)
            except Exception as error:
                adoption.cannot_tell(error)
            return item

        @functools.wraps(plain.empty)
        def empty(self) -> Any:
            is_empty = plain.empty(self)
            if is_empty:
                _asked_in_vain(self)  # a pool looks before it makes a thing
            return is_empty

        if hasattr(plain, "task_done"):

            @functools.wraps(plain.task_done)
            def task_done(self) -> None:
                adoption.let_go()
                plain.task_done(self)

        if hasattr(plain, "shutdown"):
            shutdown = adoption.abstaining(plain.shutdown)

    Queue.__name__ = plain.__name__

    def _asked_in_vain(queue: Any) -> None:
        try:
            if seam.active and handoff.get_current():
                adoption.asked_in_vain(_pairs_of(queue).loans)
        except Exception as error:
            handoff.report_fault("get", error)

    def _remember(queue: Any, item: Any) -> None:
        context = None
        putting: list[list[Any]] = getattr(queue, _PUTTING, None) or []
        for place, entry in enumerate(putting):
            if entry[0] is item:
                context = entry[1]
                del putting[place]
                break
        else:
            _kept_with(queue, item, None)
        if context or getattr(queue, _PAIRS, None) is not None:
            _pairs_of(queue, item).put(item, context, len(queue.queue))

    def _deliver(queue: Any, item: Any) -> None:
        pairs = getattr(queue, _PAIRS, None)
        if pairs is not None:
            context = pairs.take(item, len(queue.queue))
            adoption.hand_over(seam, context, item, pairs.loans)
        elif handoff.get_current():
            adoption.hand_over(seam, None, item, _pairs_of(queue).loans)

    def _pairs_of(queue: Any, *put: Any) -> Any:
        pairs = getattr(queue, _PAIRS, None)
        if pairs is None:
            pairs = beside(kind, queue.queue, *put)
            setattr(queue, _PAIRS, pairs)
        return pairs

    return Queue


def _kept_with(queue: Any, item: Any, context: Any) -> Any:
    """Return the context to put an item with. Never raises."""
    try:
        pairs = getattr(queue, _PAIRS, None)
        return context if pairs is None else pairs.loans.kept_with(item, context)
    except Exception as error:
        handoff.report_fault("put", error)
        return None
