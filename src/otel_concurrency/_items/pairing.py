"""Pairs the items of one module's queues (``queue`` or ``asyncio.queues``) with contexts.

The hooks of ``queue_hooks`` call one method for each event: an item was put, an item was got, a
consumer has to wait. The methods run under the lock of the queue, or in its event loop.

Tracking of a queue starts with the first item that is put in a context. Until then nothing is kept
for the queue.
"""

from __future__ import annotations

import inspect
import sys
import weakref
from collections import deque
from collections.abc import Callable
from types import CodeType, FrameType, ModuleType
from typing import Any, cast

from opentelemetry.context import Context

from otel_concurrency._core import handoff
from otel_concurrency._core.handoff import Seam, adopted, get_current
from otel_concurrency._core.patching import definer
from otel_concurrency._items import adoption, known_queues
from otel_concurrency._items.contents import ids_in
from otel_concurrency._items.loans import Loans
from otel_concurrency._items.pairs import (
    UNKNOWN,
    ChangedFifo,
    ChangedLifo,
    Fifo,
    Keyed,
    Lifo,
    Pairs,
    Sorted,
    WatchedFifo,
    watch,
)

KEY = "_otel_concurrency_pairs"
"""The attribute of a queue that holds its pairs."""

UNPAIRED = Keyed((None, None), 0)
"""The pairs of a queue that hands no work off: see ``known_queues``."""

_NONE_YET = Keyed((None, None), 0)
"""The pairs of an empty queue that will be tracked from its first item on."""

_LOOK = "empty"
"""The method by which a program looks whether there is anything."""

_FRAMES_OF_A_CALL = 5
"""How many frames to search between a queue's method and our hook: other wrappers may add some."""


class Pairing:
    """Facts about the queues of one module, and the contexts of their items."""

    def __init__(
        self,
        module: ModuleType,
        seam: Seam,
        *,
        container: str | tuple[str, ...],
        size: str,
        waits: tuple[str, bool],
        consumers: tuple[str, ...] = ("get", "get_nowait"),
        stock: str = "Queue",
        alike: tuple[str, ...] = (),
    ) -> None:
        """Take the names of the stock queue class, from which others derive, and of its parts.

        ``container`` is the attribute with the items (or several names to try), and ``size`` the
        method that returns their number. The classes ``alike`` put items as the stock class does.
        ``waits`` is the method that a consumer calls to find out whether it has to wait, and the
        truth value of the result that means so. ``consumers`` are the methods that call it.
        """
        self.module: Any = module
        self.seam = seam
        self.stock: Any = vars(module)[stock]
        self.waits, self.waits_when = waits
        self.on_first: Callable[[], None] | None = None
        """A function to call before tracking of the first queue starts."""
        self.context_of: Callable[[Any, Any], Any] = self._context_of
        """Returns the context of an item that has just been put to a queue. May raise."""
        self.give: Callable[[Any, Any, Loans], None] = self._give
        """Hands an item that was taken out, its context and its loans to a flow. May raise."""
        self._containers = (container,) if isinstance(container, str) else container
        self._size = size
        self._in_order = (self.stock, *(vars(module)[name] for name in alike))
        self._consumers = tuple(
            _code(getattr(self.stock, name)) for name in consumers if hasattr(self.stock, name)
        )
        # Only a consumer calls a private method, so the name of its caller is enough.
        self._own_consumers = consumers if self.waits.startswith("_") else ()
        self._accompanied: dict[int, weakref.ref[Any]] = {}
        self._early: dict[int, tuple[weakref.ref[Any], Loans]] = {}
        """By queue: the loans of those that are not accompanied yet, and are left as they are."""
        self.at_first: Pairs | None = None
        """The pairs of a queue that is not tracked yet."""

    def begin(self) -> None:
        """Choose the first pairs of a queue: with metrics, items are counted from the first one."""
        self.at_first = None if self.seam.current is get_current else _NONE_YET

    def start(self, queue: Any, item: Any, owner: type) -> None:
        """Start tracking with ``item``, which has just been put and is in the queue. May raise."""
        self.accompany(queue, owner, known=1)
        if queue._otel_concurrency_pairs is not None:
            self.remember(queue, item, owner)
            if type(queue._otel_concurrency_pairs) is Fifo:
                queue._otel_concurrency_pairs.mark()

    def loans_of(self, queue: Any) -> Loans:
        """Return the loans of ``queue``, which may not be accompanied yet."""
        pairs: Pairs | None = queue._otel_concurrency_pairs
        if pairs is not None and pairs is not _NONE_YET:
            return pairs.loans
        key, early = id(queue), self._early
        if key not in early:
            early[key] = weakref.ref(queue, lambda _: early.pop(key, None)), Loans()
        return early[key][1]

    def lend(self, queue: Any, item: Any, context: Context | None) -> None:
        """Note that a flow has taken ``item`` out, which may come back. May raise.

        The flow has a span of its own, or ``item`` no ``context``, or the first one of its queue.
        """
        pairs: Fifo = queue._otel_concurrency_pairs
        loans = pairs.loans
        if context:
            if loans.to_pass:
                loans.to_pass -= 1
                return
            loans.took(item, context, get_current(), busy=True)
        else:
            self.give(item, pairs.unmarked(context), loans)
        watch(pairs)

    def lend_settled(self, loans: Loans, item: Any, context: Context | None) -> None:
        """Do what :meth:`lend` does, for a queue of another order that is settled. May raise."""
        if not context:
            self.give(item, context, loans)
        elif loans.to_pass:
            loans.to_pass -= 1
        else:
            loans.took(item, context, get_current(), busy=True)

    def remember_watched(self, pairs: WatchedFifo, item: Any, size: int) -> None:
        """Pair ``item``, which was put and may have come back, with its context. May raise.

        The queue of ``pairs`` holds ``size`` items now.
        """
        pairs.put(item, pairs.loans.kept_with(item, get_current()), size)

    def deliver_watched(self, pairs: WatchedFifo, item: Any, size: int) -> None:
        """Pass the context of ``item``, which was got and may come back, on. May raise.

        The queue of ``pairs`` holds ``size`` items now.
        """
        self.give(item, pairs.take(item, size), pairs.loans)
        if pairs.loans.settled:
            watch(pairs)

    def accompany(self, queue: Any, owner: type, known: int = 0) -> None:
        """Start tracking ``queue``, unless another class has the outermost hooks. May raise.

        ``known`` of the items in the queue will be passed to :meth:`remember` by the caller.
        """
        kind = queue.__class__
        if not self.seam.active or definer(kind, "_put") is not owner:
            return
        owners = owner, definer(kind, "_get")
        size = getattr(queue, self._size)() - known
        pairs: Pairs
        if known_queues.is_plumbing(sys._getframe(1)):  # pyright: ignore[reportPrivateUsage]
            pairs = UNPAIRED
        else:
            pairs = self._pairs(queue, owners, size)
        if pairs is not UNPAIRED:
            if id(queue) in self._early:
                pairs.loans = self._early.pop(id(queue))[1]
                watch(pairs)
            unfinished = getattr(queue, "unfinished_tasks", getattr(queue, "_unfinished_tasks", 0))
            pairs.loans.has_given = unfinished > size
        if self.on_first is not None:
            self.on_first()
        object.__setattr__(queue, KEY, pairs)  # access to its __dict__ would make the queue slower
        self.note(queue)

    def _pairs(self, queue: Any, owners: tuple[Any, Any], size: int) -> Pairs:
        """Return pairs for the container of ``queue``, which holds ``size`` items. May raise."""
        putter, getter = owners
        container = self._container(queue)
        kind = cast("type[object]", type(container))
        as_it_is = self.seam.change is None and self.at_first is None
        if putter in self._in_order and getter is self.stock and kind is deque:
            return (Fifo if as_it_is else ChangedFifo)(owners, size)
        if putter is getter is self.module.LifoQueue and kind in (list, deque):
            return (Lifo if as_it_is else ChangedLifo)(owners, size)
        if putter is getter is self.module.PriorityQueue and kind is list:
            sort = Sorted if as_it_is else Keyed
            return sort(owners, size, cast("list[object]", container))
        return Keyed(owners, size, before=ids_in(queue, size) if size else set[int]())

    def _container(self, queue: Any) -> Any:
        """Return the container of a queue's items, if it has the attribute of a stock queue.

        May raise.
        """
        found = (getattr(queue, name, None) for name in self._containers)
        return next((one for one in found if one is not None), None)

    def hands_no_work_off(self, queue: Any) -> bool:
        """Whether ``queue`` hands no work off, judged by the present caller of it. May raise.

        Once that is found, the queue is never tracked.
        """
        pairs: Pairs | None = queue._otel_concurrency_pairs
        if pairs is not None and pairs is not _NONE_YET:
            return pairs is UNPAIRED
        if not self.seam.active or not known_queues.is_plumbing(sys._getframe(1)):  # pyright: ignore[reportPrivateUsage]
            return False
        object.__setattr__(queue, KEY, UNPAIRED)
        self.note(queue)
        return True

    def note(self, queue: Any) -> None:
        """Add ``queue`` to the queues that carry pairs, by a weak reference."""
        key, accompanied = id(queue), self._accompanied
        accompanied[key] = weakref.ref(queue, lambda _: accompanied.pop(key, None))

    def accompanied(self) -> list[Any]:
        """Return the queues that :meth:`note` has added."""
        queues = [reference() for reference in list(self._accompanied.values())]
        return [queue for queue in queues if queue is not None]

    def forget_all(self) -> list[Any]:
        """Return the queues that :meth:`note` has added, and forget them."""
        queues = self.accompanied()
        self._accompanied.clear()
        self._early.clear()
        return queues

    def remember(self, queue: Any, item: Any, owner: type) -> None:
        """Pair ``item``, which has just been put, with the current context. May raise."""
        pairs: Pairs = queue._otel_concurrency_pairs
        if pairs.owners[0] is owner:
            if pairs.owners[1] is not owner and not _is_stored(item, self._container(queue), pairs):
                pairs.forget(getattr(queue, self._size)())
            else:
                pairs.put(item, self.context_of(queue, item), getattr(queue, self._size)())
        elif pairs is _NONE_YET:
            self.accompany(queue, owner, known=1)
            if queue._otel_concurrency_pairs is not _NONE_YET:
                self.remember(queue, item, owner)
        elif pairs is not UNPAIRED:
            pairs.stored = item

    def _context_of(self, queue: Any, item: Any) -> Any:
        """Return the context to keep ``item`` with: the present flow has just put it. May raise."""
        context = self.seam.current()
        pairs: Pairs | None = queue._otel_concurrency_pairs
        if context and pairs is not None and pairs.loans.settled and not pairs.loans.has_given:
            return context
        return self.loans_of(queue).kept_with(item, context)

    def deliver(self, queue: Any, item: Any, owner: type) -> None:
        """Pass the context of ``item``, which has just been got, to the consumer. May raise."""
        pairs: Pairs | None = queue._otel_concurrency_pairs
        if pairs is None or pairs is _NONE_YET:
            is_outermost = definer(queue.__class__, "_get") is owner
            if is_outermost and not self.hands_no_work_off(queue):
                loans = self.loans_of(queue)
                self.give(item, None, loans)
                if loans.lent and not loans.settled:  # see whether it comes back
                    self.accompany(queue, definer(queue.__class__, "_put"))
        elif pairs.owners[1] is owner:
            context = pairs.take(item, getattr(queue, self._size)())
            self.give(item, self.seam.changed(context), pairs.loans)
            if type(pairs) is Fifo or type(pairs) is WatchedFifo:
                watch(pairs)
        elif pairs is not UNPAIRED:
            pairs.stored = item

    def _give(self, item: Any, context: Any, loans: Loans) -> None:
        """Have the present flow, which has just got ``item``, adopt ``context``. May raise."""
        adoption.arrive(self.seam, context, item, loans)

    def wait(self, queue: Any) -> None:
        """Note that the caller has found ``queue`` empty; a consumer lets go of its last item.

        May raise.
        """
        pairs: Pairs | None = queue._otel_concurrency_pairs
        if pairs is UNPAIRED or not (pairs or get_current() or adopted.get() is not None):
            return
        frame: FrameType | None = sys._getframe(2)  # pyright: ignore[reportPrivateUsage]
        for _ in range(_FRAMES_OF_A_CALL):
            if frame is None:
                break
            code = frame.f_code
            if code in self._consumers or code.co_name in self._own_consumers:
                if pairs is not None and pairs.loans.lends:
                    pass  # what the flow asks for is no work: it goes on with what it has
                elif _waits(frame):
                    adoption.let_go()
                else:
                    adoption.found_none()
                if pairs:
                    pairs.forget(0)  # the queue is empty, so it was cleared without the hooks
                if get_current() and not _waits(frame, for_ever=True):
                    adoption.asked_in_vain(self.loans_of(queue))
                return
            if frame.f_globals is vars(self.module) or frame.f_globals is globals():
                if code.co_name == _LOOK:
                    break
                return  # the caller is another method of the queue, or a hook
            frame = frame.f_back
        else:
            if self.waits != _LOOK:
                return
        if get_current():  # a pool looks before it makes a thing
            adoption.asked_in_vain(self.loans_of(queue))

    def fault(self, step: str, error: Exception) -> None:
        """Report a fault of a hook, unless the library is off and the hook is only left over.

        As in :func:`adoption.cannot_tell`, a consumer is not to stay in its last item's context.
        """
        if step == "get":
            adoption.let_go()
        if self.seam.active:
            handoff.report_fault(step, error)


def _is_stored(item: object, items: Any, pairs: Pairs) -> bool:
    """Whether the queue has stored ``item`` itself, or it is known what was stored in its place.

    For queues with a ``_put`` and a ``_get`` of different classes, which may transform items.
    """
    if pairs.stored is not UNKNOWN:
        return True
    return type(items) not in (deque, list) or any(item is one for one in reversed(items))


def _waits(consumer: FrameType, *, for_ever: bool = False) -> bool:
    """Whether a consumer's method waits for an item if there is none, or does so ``for_ever``."""
    given = consumer.f_locals
    if consumer.f_code.co_name.endswith("_nowait") or not given.get("block", True):
        return False
    return not for_ever or given.get("timeout") is None


def _code(function: Any) -> CodeType:
    return cast("CodeType", inspect.unwrap(function).__code__)
