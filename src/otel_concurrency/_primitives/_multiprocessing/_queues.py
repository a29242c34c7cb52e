"""``multiprocessing.Queue``, ``JoinableQueue``, ``SimpleQueue``: an item carries its context.

The context crosses as headers behind the item's pickle. A ``SimpleQueue`` pickles an item when it
is put. In the other queues, items wait for a thread that pickles them, and their contexts wait
beside them.

The consumer that gets an item adopts its context, as with the queues of one process
(``_items.adoption``).
"""

from __future__ import annotations

import contextlib
import functools
import select
import weakref
from collections import deque
from collections.abc import Callable
from types import ModuleType
from typing import Any

from opentelemetry.context import Context

from otel_concurrency._core import handoff
from otel_concurrency._core.callers import caller
from otel_concurrency._core.handoff import Seam, adopted, capture_nothing, get_current
from otel_concurrency._core.patching import Layer, Patch
from otel_concurrency._crossing import trailers
from otel_concurrency._items import adoption, known_queues, queue_hooks
from otel_concurrency._items.loans import Loans

_PLUMBING = "concurrent.futures.process"
"""The module with a class of queues that only the standard library uses, not the program."""


def _layers(queues: ModuleType, seam: Seam) -> list[Patch]:
    consumed = _Consumed(seam, queues.Empty)

    def buffer(queue: Any) -> _Buffer:
        return _Buffer(seam, queues._sentinel, consumed.loans_of(queue))

    return [
        consumed,
        Layer(queues, "_ForkingPickler", trailers.pickler),
        Layer(queues.Queue, "_start_thread", lambda raw: _start_thread(raw, seam, buffer)),
        Layer(queues.Queue, "get", lambda raw: _get(raw, consumed)),
        Layer(queues.JoinableQueue, "task_done", queue_hooks.task_done),
        Layer(queues.SimpleQueue, "put", lambda raw: _put(raw, consumed)),
        Layer(queues.SimpleQueue, "get", lambda raw: _simple_get(raw, consumed)),
    ]


MODULES = {"multiprocessing.queues": _layers}


class _Buffer(deque[Any]):
    """The items that wait for a queue's thread, with their contexts beside them.

    A producer holds the queue's lock; the thread takes items without it. So a context is stored
    before its item. Nothing is logged while the lock is held, since a logging handler of the
    program may put to this very queue. If another item comes out than the expected one, something
    has modified the queue directly. Then the contexts are dropped until the queue is empty.
    """

    __slots__ = ("_contexts", "_loans", "_seam", "_sentinel")

    def __init__(self, seam: Seam, sentinel: object, loans: Loans) -> None:
        super().__init__()
        self._seam = seam
        self._sentinel = sentinel
        self._loans = loans
        self._contexts: deque[tuple[object, Context | None]] | None = deque()

    def append(self, item: Any) -> None:
        if self._contexts is None and not self:
            self._contexts = deque()
        contexts = self._contexts
        if contexts is not None:
            context = None
            if self._seam.active and item is not self._sentinel:
                with contextlib.suppress(Exception):
                    context = self._loans.kept_with(item, self._seam.current())
            contexts.append((item, context))
        super().append(item)

    def popleft(self) -> Any:
        item = super().popleft()
        context = None
        if self._contexts is not None:
            due, context = self._contexts.popleft() if self._contexts else (self, None)
            if due is not item:
                self._contexts = context = None
        _send(self._seam, item, context)
        return item

    def clear(self) -> None:
        super().clear()
        self._contexts = deque()


def _start_thread(original: Any, seam: Seam, buffer: Any) -> Any:
    @functools.wraps(original)
    def _start_thread(self: Any) -> Any:
        if seam.active:
            _exchange_buffer(self, buffer)  # safe here: the original is about to clear it
        return original(self)

    return _start_thread


def _exchange_buffer(queue: Any, buffer: Callable[[Any], _Buffer]) -> None:
    try:
        if type(queue._buffer) is deque and not _is_plumbing(queue.__class__):
            queue._buffer = buffer(queue)
    except Exception as error:
        handoff.report_fault("put", error)


@functools.cache
def _is_plumbing(kind: type) -> bool:
    try:
        return any(base.__module__ == _PLUMBING for base in kind.__mro__)
    except Exception as error:
        handoff.report_fault("get", error)
        return False


class _Consumed:
    """The queues from which items were adopted; applied and undone as a layer is."""

    layers = ()  # as in `QueueHooks`: it patches only instances

    def __init__(self, seam: Seam, empty: type[Exception]) -> None:
        """Take the seam, and what is raised where there is no item."""
        self.seam = seam
        self.empty = empty
        self._queues: dict[int, weakref.ref[Any]] = {}
        self._loans: dict[int, tuple[weakref.ref[Any], Loans]] = {}

    def adopt(self, queue: Any, item: object, trailer: bytes | None) -> None:
        """Adopt the context of an item that has come out of ``queue``."""
        try:
            if trailer is not None and id(queue) not in self._queues:
                key, queues = id(queue), self._queues
                queues[key] = weakref.ref(queue, lambda _: queues.pop(key, None))
            context = trailers.unpack(trailer)
            adoption.arrive(self.seam, context, item, self.loans_of(queue))
        except Exception as error:
            handoff.report_fault("get", error)

    def is_settled(self, queue: Any) -> bool:
        """Whether ``queue`` is known to hand work on."""
        known = self._loans.get(id(queue))
        return known is not None and known[1].settled

    def loans_of(self, queue: Any) -> Loans:
        """Return the loans of ``queue`` in this process."""
        key, loans = id(queue), self._loans
        if key not in loans:
            loans[key] = weakref.ref(queue, lambda _: loans.pop(key, None)), Loans(by_value=True)
        return loans[key][1]

    def asked_in_vain(self, queue: Any) -> None:
        """Note that ``queue`` has had no item for the present flow."""
        try:
            adoption.asked_in_vain(self.loans_of(queue))
        except Exception as error:
            handoff.report_fault("get", error)

    def apply(self) -> None:
        """Remove what :meth:`undo` has left on the queues."""
        for queue in self._alive():
            if type(queue.__dict__.get("get")) is _LastGet:
                del queue.__dict__["get"]
        self._queues.clear()
        self._loans.clear()

    def undo(self) -> None:
        """Make every consumer let go of its last item when it next calls ``get``."""
        for queue in self._alive():
            queue.__dict__.setdefault("get", _LastGet(queue))
        adoption.let_go()  # no later hook will do it for this flow

    def _alive(self) -> list[Any]:
        queues = [reference() for reference in list(self._queues.values())]
        return [queue for queue in queues if queue is not None]


class _LastGet:
    """Replaces a queue's ``get`` after ``undo()``, to let go of the last item of each consumer."""

    def __init__(self, queue: Any) -> None:
        self._queue = weakref.ref(queue)

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        adoption.let_go()
        queue: Any = self._queue()
        return queue.__class__.get(queue, *args, **kwargs)


def _get(original: Any, consumed: _Consumed) -> Any:
    seam = consumed.seam

    @functools.wraps(original)
    def get(self: Any, block: bool = True, timeout: float | None = None) -> Any:
        if _is_plumbing(self.__class__):
            return original(self, block, timeout)
        if adopted.get() is not None:
            adoption.ask(lambda: block and _is_empty(self))
        if seam.capture is capture_nothing:
            return original(self, block, timeout)
        try:
            item, trailer = trailers.receive(original, self, block, timeout)
        except consumed.empty:
            adoption.found_none()
            consumed.asked_in_vain(self)
            raise
        try:
            if trailer is None and adopted.get() is None and not get_current():
                if not consumed.is_settled(self):
                    consumed.adopt(self, item, trailer)
                return item
        except Exception as error:
            handoff.report_fault("get", error)
        consumed.adopt(self, item, trailer)
        return item

    _plain[get] = original
    return get


def _simple_get(original: Any, consumed: _Consumed) -> Any:
    seam = consumed.seam

    @functools.wraps(original)
    def get(self: Any) -> Any:
        if adopted.get() is not None:
            adoption.ask(functools.partial(_is_empty, self))
        if seam.capture is capture_nothing or trailers.is_received():
            return original(self)
        item, trailer = trailers.receive(original, self)
        try:
            if trailer is None and adopted.get() is None and not get_current():
                if not consumed.is_settled(self) and not _is_called_by_plumbing():
                    consumed.adopt(self, item, trailer)
                return item
        except Exception as error:
            handoff.report_fault("get", error)
        if not _is_called_by_plumbing():
            consumed.adopt(self, item, trailer)
        return item

    return get


def _is_empty(queue: Any) -> Any:
    """Whether ``queue`` has no item at present, without the selector that its method makes."""
    function = getattr(queue.empty, "__func__", None)
    if _POLL is None or getattr(function, "__module__", None) != queue.__class__.__module__:
        return queue.empty()
    waiting = _POLL()
    waiting.register(queue._reader.fileno(), select.POLLIN)
    return not waiting.poll(0)


_POLL = getattr(select, "poll", None)
"""Missing on Windows."""

_plain: weakref.WeakKeyDictionary[Any, Any] = weakref.WeakKeyDictionary()
"""The original below each patched method that has nothing to do for the queues of executors."""


def plumbing_method(queue: Any, name: str) -> Any:
    """Return a method of an executor's internal queue, without this library's patch."""
    method = getattr(queue, name)
    plain = _plain.get(getattr(method, "__func__", None))
    return method if plain is None else plain.__get__(queue)


def _send(seam: Seam, item: object, context: Context | None) -> None:
    """Send headers behind ``item``: what the policy makes of ``context``, unless that is empty."""
    try:
        trailers.send(item, seam.changed(context) or None)
    except Exception as error:
        handoff.report_fault("put", error)


def _put(original: Any, consumed: _Consumed) -> Any:
    seam = consumed.seam

    def send(queue: Any, item: object) -> None:
        try:
            context = consumed.loans_of(queue).kept_with(item, seam.current())
        except Exception as error:
            handoff.report_fault("put", error)
            return
        _send(seam, item, context)

    @functools.wraps(original)
    def put(self: Any, obj: Any) -> Any:
        if (
            seam.capture is capture_nothing
            or not handoff.is_concerned(seam)
            or _is_called_by_plumbing()
        ):
            return original(self, obj)
        send(self, obj)
        try:
            return original(self, obj)
        finally:
            trailers.send(obj, None)

    _plain[put] = original
    return put


def _is_called_by_plumbing() -> bool:
    try:
        return known_queues.is_plumbing(caller(1))
    except Exception as error:
        handoff.report_fault("get", error)
        return True
