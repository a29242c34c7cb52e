"""The contexts of the items that wait in one queue, kept beside the queue.

An item is recognized by its identity, and by its place in the order in which items come out. Each
step passes the size of the queue. If the size is unexpected, or another item than the expected one
comes out, then the program has changed the container directly, or a subclass drops, merges or
transforms items. In that case all contexts are dropped: a missing parent is better than a wrong
one.

Nothing here is thread-safe: pairs are used under the lock of their queue, or in its event loop. In
a copy or a pickle of a queue they become None.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any, cast

from opentelemetry.context import Context

from otel_concurrency._items.loans import SOON, Loans

Owners = tuple[type | None, type | None]
"""The classes that define the outermost ``_put`` and ``_get`` of a queue."""

_NONE = type(None)
UNKNOWN = object()
"""A placeholder for an item that was in the queue before tracking started."""

_MARK = ""
"""Stands for a context; false, as is that of an item that was put without one."""


class Fifo(deque[Any]):
    """Pairs for a first-in first-out container, stored as item, context, item, context, ...

    They refer to the items themselves, so no other object can get an item's id meanwhile. The hooks
    of the stock queues contain the code of :meth:`put` and :meth:`take` instead of calling them.
    """

    __slots__ = ("_marked", "loans", "owners", "stored")

    def __init__(self, owners: Owners, size: int) -> None:
        """Start with ``size`` items in the queue."""
        super().__init__((UNKNOWN, None) * size)
        self._marked: Context | None = None
        self.loans = Loans(SOON)
        self.owners = owners
        self.stored: object = UNKNOWN

    def put(self, item: object, context: Context | None, size: int) -> None:
        """Remember the context of an item that has just been put; the queue holds ``size`` now."""
        self.append(item)
        self.append(context)
        if len(self) != 2 * size:
            self.forget(size)

    def take(self, item: object, size: int) -> Context | None:
        """Return the context of an item that has just been got; the queue holds ``size`` now."""
        if len(self) == 2 * size + 2:
            due, context = self.popleft(), self.popleft()
            if due is item:
                return self.unmarked(context) if context is _MARK else context
            if due is UNKNOWN:
                return None
        self.forget(size)
        return None

    def mark(self) -> None:
        """Have the hooks see to the item that was put last when it is got: it may come back."""
        self._marked = self[-1]
        self[-1] = _MARK

    def unmarked(self, context: Any) -> Context | None:
        """Return what was :meth:`put` in the place of ``context``."""
        if context is not _MARK:
            return cast("Context | None", context)
        marked, self._marked = self._marked, None
        return marked

    def forget(self, size: int) -> None:
        """Drop all contexts; the queue holds ``size`` items."""
        self.clear()
        self.extend((UNKNOWN, None) * size)
        self._marked = None

    def __reduce_ex__(self, protocol: object) -> tuple[Any, ...]:
        return _NONE, ()


class ChangedFifo(Fifo):
    """A Fifo whose contexts the policy changes, or which is measured.

    The hooks do not inline its methods.
    """

    __slots__ = ()


class WatchedFifo(Fifo):
    """One whose items may come back: while that is so, the hooks do not know it by heart."""

    __slots__ = ()


class Lifo(Fifo):
    """Pairs for a last-in first-out container."""

    __slots__ = ()

    def take(self, item: object, size: int) -> Context | None:
        """Return the context of an item that has just been got, from the end of the container."""
        self.rotate(2)
        return super().take(item, size)


class ChangedLifo(Lifo):
    """What ``ChangedFifo`` is to ``Fifo``."""

    __slots__ = ()


class Keyed:
    """Pairs for a container that returns its items in any other order.

    If the same object is in the queue several times, its contexts are returned in the order in
    which it was put. Objects that may have been in the queue before tracking started, or before
    contexts were dropped, have no context. Nor do they get one if they are put again while they may
    still be in the queue.
    """

    __slots__ = (
        "_before",
        "contexts",
        "held",
        "loans",
        "owners",
        "repeated",
        "stored",
        "unknown",
    )

    def __init__(
        self,
        owners: Owners,
        size: int,
        items: Sequence[object] | None = None,
        before: set[int] | None = None,
    ) -> None:
        """Start with ``size`` items in the queue.

        ``items`` are these items, if the container is known. Otherwise ``before`` has the ids of
        all objects that they may be. If both are None, no context is remembered until the queue was
        empty once.
        """
        self.loans = Loans()
        self.owners = owners
        self.stored: object = UNKNOWN
        """The item that a base class of the queue's class has stored or taken out in this step."""
        self.contexts: dict[int, Context | deque[Context | None] | None] = {}
        """By the id of an item: its context, or the contexts of one that was put several times."""
        self.held: dict[int, object] = {}
        """By its id: each item, or another object could get the id of one that is freed. The
        container may hold something else, or the program may have removed the item from it."""
        self.repeated = 0
        """How many items are in the queue again that are there already."""
        self.unknown = size - len(items or ())
        """How many were there before."""
        self._before = before
        for item in items or ():
            self._remember(item, None)

    def put(self, item: object, context: Context | None, size: int) -> None:
        """Remember the context of an item that has just been put; the queue holds ``size`` now."""
        if self.stored is not UNKNOWN:  # a subclass may have stored another object for the item
            item, self.stored = self.stored, UNKNOWN
        if self.unknown:
            if (
                self._before is None
                or len(self.contexts) + self.repeated + self.unknown + 1 != size
            ):
                self.forget(size)
                return
            if id(item) in self._before:
                context = None
        elif len(self.contexts) + self.repeated + 1 != size:
            self.forget(size)
            return
        self._remember(item, context)

    def _remember(self, item: object, context: Context | None) -> None:
        contexts, key = self.contexts, id(item)
        if key not in contexts:
            contexts[key] = context
            self.held[key] = item
            return
        self.repeated += 1
        several = contexts[key]
        if isinstance(several, deque):
            several.append(context)
        else:
            contexts[key] = deque((several, context))

    def take(self, item: object, size: int) -> Context | None:
        """Return the context of an item that has just been got; the queue holds ``size`` now."""
        if self.stored is not UNKNOWN:
            item, self.stored = self.stored, UNKNOWN
        contexts, key = self.contexts, id(item)
        if len(contexts) + self.repeated + self.unknown != size + 1:
            self.forget(size)
            return None
        if key not in contexts:
            if self.unknown and self._before is not None and key in self._before:
                self.unknown -= 1
                if not self.unknown:
                    self._before.clear()
            else:
                self.forget(size)
            return None
        several = contexts[key]
        if isinstance(several, deque) and len(several) > 1:
            self.repeated -= 1
            return several.popleft()
        del contexts[key], self.held[key]
        if not contexts and not self.unknown:
            self.forget(size)  # frees the memory of a dictionary that was large
        return several.popleft() if isinstance(several, deque) else several

    def forget(self, size: int) -> None:
        """Drop all contexts; the queue holds ``size`` items."""
        self._before = None if size else set[int]()
        self.contexts.clear()
        self.held.clear()
        self.repeated = 0
        self.unknown = size

    def __bool__(self) -> bool:
        return bool(self.contexts or self.unknown)

    def __reduce_ex__(self, protocol: object) -> tuple[Any, ...]:
        return _NONE, ()


class Sorted(Keyed):
    """Those of a stock ``PriorityQueue``, whose contexts stay as they are."""

    __slots__ = ()


def slots_of(kind: Any) -> tuple[Any, ...]:
    """Return what a hook in C reads of pairs, by which their classes read it."""
    of_keyed = (getattr(kind, name, None) for name in ("unknown", "repeated", "contexts", "held"))
    loans: Any = Loans
    return kind.loans, loans.settled, loans.has_given, loans.to_pass, *of_keyed


def watch(pairs: Pairs) -> None:
    """Have the hooks ask for loans, or not, as long as nothing comes back."""
    kind = Fifo if pairs.loans.settled else WatchedFifo
    changing: Any = pairs
    if type(changing) is not kind and type(changing) in (Fifo, WatchedFifo):
        changing.__class__ = kind  # they differ in nothing else


Pairs = Fifo | Keyed


def beside(kind: type[Fifo] | type[Keyed], items: Sequence[object], *put: object) -> Pairs:
    """Return pairs of ``kind`` for a container with ``items``, of which ``put`` were put last."""
    if kind is not Keyed:
        return kind((None, None), len(items) - len(put))
    before = list(items)
    for item in put:
        del before[next(place for place, one in enumerate(before) if one is item)]
    return Keyed((None, None), len(before), before)
