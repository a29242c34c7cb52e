"""``multiprocessing.Queue``, ``JoinableQueue``, ``SimpleQueue``: an item carries its context.

The context crosses as headers behind the item's pickle. A ``SimpleQueue`` pickles an item when it
is put. In the other queues, items wait for a thread that pickles them, and their contexts wait
beside them.

The consumer that gets an item adopts its context, as with the queues of one process
(``_items.adoption``).
"""

from __future__ import annotations

import functools
import select
import sys
import weakref
from _thread import get_ident
from collections import deque
from collections.abc import Callable
from types import ModuleType
from typing import Any

from opentelemetry.context import Context

from otel_concurrency._core import compiled, handoff
from otel_concurrency._core.handoff import Seam, adopted, capture_nothing, get_current
from otel_concurrency._core.patching import Layer, Patch
from otel_concurrency._crossing import carrier, trailers
from otel_concurrency._crossing.carrier import decoded_behind
from otel_concurrency._items import adoption, known_queues, queue_hooks
from otel_concurrency._items.adoption import adopt
from otel_concurrency._items.loans import Loans

_PLUMBING = "concurrent.futures.process"
"""The module with a class of queues that only the standard library uses, not the program."""


def _layers(queues: ModuleType, seam: Seam) -> list[Patch]:
    consumed = _Consumed(seam, queues.Empty)

    def buffer(queue: Any) -> _Buffer:
        return _Buffer(seam, queues._sentinel, consumed.side_of(queue).loans)

    return [
        Layer(queues, "_ForkingPickler", trailers.pickler),
        Layer(queues.Queue, "_start_thread", lambda raw: _start_thread(raw, seam, buffer)),
        Layer(queues.Queue, "get", lambda raw: _get(raw, consumed, queues.Queue)),
        Layer(queues.JoinableQueue, "task_done", queue_hooks.task_done),
        Layer(queues.SimpleQueue, "put", lambda raw: _put(raw, consumed)),
        Layer(queues.SimpleQueue, "get", lambda raw: _simple_get(raw, consumed)),
        consumed,  # applied when these let go, and undone as long as they do
    ]


MODULES = {"multiprocessing.queues": _layers}


class _Buffer(deque[Any]):
    """The items that wait for a queue's thread, with their contexts beside them.

    A producer holds the queue's lock; the thread takes items without it. So a context is stored
    before its item, under the number of the item: both sides count. Nothing is logged while the
    lock is held, since a logging handler of the program may put to this very queue. If another item
    comes out than the expected one, something has modified the queue directly. Then the contexts
    are dropped until the queue is empty.
    """

    __slots__ = ("_contexts", "_loans", "_put", "_seam", "_sentinel", "_taken")

    def __init__(self, seam: Seam, sentinel: object, loans: Loans) -> None:
        super().__init__()
        self._seam = seam
        self._sentinel = sentinel
        self._loans = loans
        self._contexts: dict[int, tuple[object, Context]] | None = {}
        """By number: the items that were put in a context; None while they are not known."""
        self._put = self._taken = 0

    def append(self, item: Any) -> None:
        try:
            seam = self._seam
            if seam.capture is not capture_nothing and item is not self._sentinel:
                context: Context | None = seam.current()
                loans = self._loans
                if loans.noted and not loans.settled:
                    context = loans.kept_with(item, context)
                if context:
                    contexts = self._contexts
                    if contexts is None and not self:
                        contexts = self._contexts = {}
                        self._put = self._taken
                    if contexts is not None:
                        contexts[self._put + 1] = item, context
        except Exception:  # noqa: S110 - see above
            pass
        _append(self, item)
        self._put += 1

    def popleft(self) -> Any:
        contexts = self._contexts
        item = _popleft(self)
        self._taken = taken = self._taken + 1
        if contexts:
            due = contexts.pop(taken, None)
            if len(self) < self._put - taken or (due is not None and due[0] is not item):
                self._contexts = None
            elif due is not None:
                _send(self._seam, due)
        if contexts is not self._contexts:  # a producer may have begun to count anew in between
            self._contexts = None
        return item

    def clear(self) -> None:
        super().clear()
        self._contexts = {}
        self._put = self._taken = 0


_deque: Any = deque
_append, _popleft = _deque.append, _deque.popleft


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


class _Side:
    """What is known of one queue in this process."""

    __slots__ = ("descriptor", "gave_contexts", "loans", "poll", "queue")

    def __init__(self, queue: weakref.ref[Any]) -> None:
        self.queue = queue
        self.loans = Loans(by_value=True)
        self.gave_contexts = False
        """Whether an item with a context has come out of it."""
        self.poll: Callable[[int], list[tuple[int, int]]] | None = None
        """Asks whether there is something to read; None while that is not known, or in use."""
        self.descriptor: int | None = None
        """What it asks, as soon as that is known."""


class _Consumed:
    """The queues from which items were adopted; applied and undone as a layer is."""

    layers = ()  # as in `QueueHooks`: it patches only instances

    def __init__(self, seam: Seam, empty: type[Exception]) -> None:
        """Take the seam, and what is raised where there is no item."""
        self.seam = seam
        self.empty = empty
        self.sides: dict[int, _Side] = {}
        """By the id of the queue."""

    def adopt(self, queue: Any, item: object, message: bytes | None) -> None:
        """Adopt the context of an item that has come out of ``queue``, by what came with it."""
        try:
            side = self.sides.get(id(queue)) or self.side_of(queue)
            loans, context = side.loans, None
            if message is not None:
                side.gave_contexts = True
                try:
                    context = decoded_behind(message, trailers.behind)
                except Exception as error:
                    handoff.report_fault("extract", error)
                if (
                    context
                    and loans.settled
                    and loans.first is None
                    and self.seam.capture is not capture_nothing
                    and not adopt(context)
                ):
                    return  # most items take this way through `arrive`
            adoption.arrive(self.seam, context, item, loans)
        except Exception as error:
            adoption.cannot_tell(error)

    def side_of(self, queue: Any) -> _Side:
        """Return what is known of ``queue``."""
        key, sides = id(queue), self.sides
        side = sides.get(key)
        if side is None:
            side = sides[key] = _Side(weakref.ref(queue, lambda _: sides.pop(key, None)))
        return side

    def asked_in_vain(self, queue: Any) -> None:
        """Note that ``queue`` has had no item for the present flow."""
        try:
            adoption.asked_in_vain(self.side_of(queue).loans)
        except Exception as error:
            handoff.report_fault("get", error)

    def is_empty(self, queue: Any) -> bool:
        """Whether ``queue`` has no item at present, without the selector that its method makes."""
        side = self.sides.get(id(queue)) or self.side_of(queue)
        poll, side.poll = side.poll, None  # two threads cannot use it at a time
        if poll is None:
            if _POLL is None or not _has_empty_of_its_module(queue.__class__):
                return bool(queue.empty())
            waiting = _POLL()
            side.descriptor = descriptor = queue._reader.fileno()
            waiting.register(descriptor, _POLLIN)
            poll = waiting.poll
        found = poll(0)
        side.poll = poll
        return not found or not found[0][1] & _POLLIN

    def apply(self) -> None:
        """Remove what :meth:`undo` has left on the queues."""
        queues = self._alive()
        self.sides.clear()
        for queue in queues:
            if type(queue.__dict__.get("get")) is _LastGet:
                del queue.__dict__["get"]
            # A consumer may not have asked it for an item since `undo`.
            self.side_of(queue).gave_contexts = True

    def undo(self) -> None:
        """Make every consumer let go of its last item when it next calls ``get``."""
        for queue in self._alive():
            queue.__dict__.setdefault("get", _LastGet(queue))
        adoption.let_go()  # no later hook will do it for this flow

    def _alive(self) -> list[Any]:
        queues = [side.queue() for side in list(self.sides.values()) if side.gave_contexts]
        return [queue for queue in queues if queue is not None]


@functools.cache
def _has_empty_of_its_module(kind: type) -> bool:
    return getattr(getattr(kind, "empty", None), "__module__", None) == kind.__module__


_POLL, _POLLIN = getattr(select, "poll", None), getattr(select, "POLLIN", 0)
"""Missing on Windows."""


class _LastGet:
    """Replaces a queue's ``get`` after ``undo()``, to let go of the last item of each consumer."""

    def __init__(self, queue: Any) -> None:
        self._queue = weakref.ref(queue)

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        adoption.let_go()
        queue: Any = self._queue()
        return queue.__class__.get(queue, *args, **kwargs)


def _get(original: Any, consumed: _Consumed, stock: type) -> Any:
    seam, sides, receiving = consumed.seam, consumed.sides, trailers.receiving

    @functools.wraps(original)
    def get(self: Any, block: bool = True, timeout: float | None = None) -> Any:
        if _type(self) is not stock and _is_plumbing(self.__class__):
            return original(self, block, timeout)
        if begins is None or not block or not begins(seam, sides, self):
            if adopted.get() is not None:
                adoption.ask(consumed.is_empty if block else _never, self)
            if seam.capture is capture_nothing:
                return original(self, block, timeout)
        thread = get_ident()
        if thread in receiving:
            return trailers.apart(original, get, self, block, timeout)
        if not trailers.receives:
            trailers.begin_to_receive()
        receiving[thread] = None
        try:
            item = original(self, block, timeout)
        except BaseException as error:
            receiving.pop(thread, None)
            if isinstance(error, consumed.empty):
                adoption.found_none()
                consumed.asked_in_vain(self)
            raise
        message = receiving.pop(thread, None)
        try:
            if arrived is not None and arrived(seam, sides, self, message, _OF_CARRIER):
                return item
            if message is None and adopted.get() is None and not get_current():
                side = sides.get(id(self))
                if side is not None and side.loans.settled:
                    return item
        except Exception as error:
            handoff.report_fault("get", error)
        consumed.adopt(self, item, message)
        return item

    _plain[get] = original
    return get


begins, arrived = (getattr(compiled.functions, name, None) for name in ("begins", "arrived"))
"""What ``get`` calls where there is a compiled part, which says what they do. Otherwise None."""

_OF_CARRIER = vars(carrier)

_type: Any = type  # it is cheaper to ask than ``__class__``


def _never(queue: Any) -> bool:
    return False


def _simple_get(original: Any, consumed: _Consumed) -> Any:
    seam, sides, receiving = consumed.seam, consumed.sides, trailers.receiving

    @functools.wraps(original)
    def get(self: Any) -> Any:
        if begins is None or not begins(seam, sides, self):
            if adopted.get() is not None:
                adoption.ask(consumed.is_empty, self)
            if seam.capture is capture_nothing:
                return original(self)
        thread = get_ident()
        if thread in receiving:
            return trailers.apart(original, get, self)
        if not trailers.receives:
            trailers.begin_to_receive()
        receiving[thread] = None
        try:
            item = original(self)
        except BaseException:
            receiving.pop(thread, None)
            raise
        message = receiving.pop(thread, None)
        try:
            if (
                arrived is not None
                and (message is None or not _is_called_by_plumbing())
                and arrived(seam, sides, self, message, _OF_CARRIER)
            ):
                return item
            if message is None and adopted.get() is None and not get_current():
                side = sides.get(id(self))
                if side is not None and side.loans.settled:
                    return item
                if _is_called_by_plumbing():
                    consumed.side_of(self).loans.settled = True  # it need not be asked again
                    return item
        except Exception as error:
            handoff.report_fault("get", error)
        if not _is_called_by_plumbing():
            consumed.adopt(self, item, message)
        return item

    return get


_plain: weakref.WeakKeyDictionary[Any, Any] = weakref.WeakKeyDictionary()
"""The original below each patched method that has nothing to do for the queues of executors."""


def plumbing_method(queue: Any, name: str) -> Any:
    """Return a method of an executor's internal queue, without this library's patch."""
    method = getattr(queue, name)
    plain = _plain.get(getattr(method, "__func__", None))
    return method if plain is None else plain.__get__(queue)


def _send(seam: Seam, put: tuple[object, Context]) -> None:
    """Send headers behind an item: what the policy makes of its context."""
    try:
        if seam.change is not None:
            put = put[0], seam.change(put[1])
        if not trailers.sends:
            trailers.begin_to_send()
        trailers.sending[get_ident()] = put
    except Exception as error:
        handoff.report_fault("put", error)


def _put(original: Any, consumed: _Consumed) -> Any:
    seam, sides, sending = consumed.seam, consumed.sides, trailers.sending

    def send(queue: Any, item: object) -> None:
        try:
            context: Context | None = seam.current()
            loans = (sides.get(id(queue)) or consumed.side_of(queue)).loans
            if loans.noted and not loans.settled:
                context = loans.kept_with(item, context)
        except Exception as error:
            handoff.report_fault("put", error)
            return
        if context:
            _send(seam, (item, context))

    @functools.wraps(original)
    def put(self: Any, obj: Any) -> Any:
        carries = False
        try:
            if seam.capture is not capture_nothing and seam.concerned():
                carries = not _is_called_by_plumbing()
        except Exception as error:
            handoff.report_fault("put", error)
        if not carries:
            return original(self, obj)
        send(self, obj)
        try:
            return original(self, obj)
        finally:
            if sending:  # nothing was pickled
                trailers.send(obj, None)

    _plain[put] = original
    return put


def _is_called_by_plumbing() -> bool:
    try:
        return known_queues.is_plumbing(_getframe(2))
    except ValueError:  # there is no calling frame: a thread starts in this function
        return False
    except Exception as error:
        handoff.report_fault("get", error)
        return True


_getframe = sys._getframe  # pyright: ignore[reportPrivateUsage]  # documented
