"""The contexts of the items that wait in one queue, beside them.

An item is known by its identity, and by the place in the order in which items are due. After each
step the size of the queue is told. Where that is not what it should be, or another item comes out
than the one that is due, then somebody has reached into the queue, or a subclass drops, merges or
transforms items. All contexts are dropped then: a missing parent is better than a wrong one.

Nothing here is thread-safe: pairs are used under their queue's own lock, or in its event loop. To
who copies or pickles a queue they are None.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any, cast

from opentelemetry.context import Context

Owners = tuple[type | None, type | None]
"""The classes whose ``_put`` and ``_get`` a queue has."""

_NONE = type(None)
UNKNOWN = object()
"""Stands for an item that was in the queue already."""


class Fifo(deque[Any]):
    """For a container that gives the first of its items: items and contexts in turn.

    It refers to the items themselves, so nothing else can have their identity while they are due.
    The hooks of the stock queues do what :meth:`put` and :meth:`take` do without calling them.
    """

    __slots__ = ("owners", "stored")

    def __init__(self, owners: Owners, size: int) -> None:
        """Start with ``size`` items in the queue."""
        super().__init__((UNKNOWN, None) * size)
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
                return cast("Context | None", context)
            if due is UNKNOWN:
                return None
        self.forget(size)
        return None

    def forget(self, size: int) -> None:
        """Drop all contexts; the queue holds ``size`` items."""
        self.clear()
        self.extend((UNKNOWN, None) * size)

    def __reduce_ex__(self, protocol: object) -> tuple[Any, ...]:
        return _NONE, ()


class ChangedFifo(Fifo):
    """One whose contexts are not handed on as they are: the hooks do not know it by heart."""

    __slots__ = ()


class Lifo(Fifo):
    """For a container that gives the last of its items."""

    __slots__ = ()

    def take(self, item: object, size: int) -> Context | None:
        """Do as the first-in first-out one, from the other end."""
        self.rotate(2)
        return super().take(item, size)


class Keyed:
    """For a container that gives its items in an order of its own.

    Identical items are given their contexts in the order in which they were put. One that may be
    there from before, or from before contexts were dropped, has none, and nor has the same object
    when it is put again while it may still be there.
    """

    __slots__ = ("_before", "_contexts", "_count", "_held", "_unknown", "owners", "stored")

    def __init__(
        self,
        owners: Owners,
        size: int,
        items: Sequence[object] | None = None,
        before: set[int] | None = None,
    ) -> None:
        """Start with ``size`` items in the queue.

        Take these as ``items`` where the container is known, or else the ids of all objects that
        they may be; where that is not known either, nothing is remembered until they are gone.
        """
        self.owners = owners
        self.stored: object = UNKNOWN
        """What the class that this one derives from has stored, or taken out, in this step."""
        self._contexts: dict[int, Context | deque[Context | None] | None] = {}
        # A container of the user's own may hold something else than the item, which then dies,
        # and leaves its identity to another.
        self._held: dict[int, object] | None = {} if items is None else None
        self._count = 0
        self._unknown = size - len(items or ())
        self._before = before
        for item in items or ():
            self._remember(item, None)

    def put(self, item: object, context: Context | None, size: int) -> None:
        """Remember the context of an item that has just been put; the queue holds ``size`` now."""
        if self.stored is not UNKNOWN:  # it may be another: a subclass has made it of the item
            item, self.stored = self.stored, UNKNOWN
        if self._unknown:
            if self._before is None or self._count + self._unknown + 1 != size:
                self.forget(size)
                return
            if id(item) in self._before:
                context = None
        elif self._count + 1 != size:
            self.forget(size)
            return
        self._remember(item, context)

    def _remember(self, item: object, context: Context | None) -> None:
        self._count += 1
        contexts, key = self._contexts, id(item)
        if self._held is not None:
            self._held[key] = item
        if key not in contexts:
            contexts[key] = context
            return
        several = contexts[key]
        if isinstance(several, deque):
            several.append(context)
        else:
            contexts[key] = deque((several, context))

    def take(self, item: object, size: int) -> Context | None:
        """Return the context of an item that has just been got; the queue holds ``size`` now."""
        if self.stored is not UNKNOWN:
            item, self.stored = self.stored, UNKNOWN
        contexts, key = self._contexts, id(item)
        if self._count + self._unknown != size + 1:
            self.forget(size)
            return None
        if key not in contexts:
            if self._unknown and self._before is not None and key in self._before:
                self._unknown -= 1
                if not self._unknown:
                    self._before.clear()
            else:
                self.forget(size)
            return None
        self._count -= 1
        several = contexts[key]
        if isinstance(several, deque) and len(several) > 1:
            return several.popleft()
        del contexts[key]
        if self._held is not None:
            del self._held[key]
        if not contexts and not self._unknown:
            self.forget(size)  # gives back the memory of a dictionary that was large
        return several.popleft() if isinstance(several, deque) else several

    def forget(self, size: int) -> None:
        """Drop all contexts; the queue holds ``size`` items."""
        self._before = None if size else set[int]()
        self._contexts.clear()
        if self._held is not None:
            self._held.clear()
        self._count = 0
        self._unknown = size

    def __bool__(self) -> bool:
        return bool(self._contexts or self._unknown)

    def __reduce_ex__(self, protocol: object) -> tuple[Any, ...]:
        return _NONE, ()


Pairs = Fifo | Keyed


def beside(kind: type[Fifo] | type[Keyed], items: Sequence[object], item: object) -> Pairs:
    """Return pairs of ``kind`` for a container of ``items``, into which ``item`` was put last."""
    if kind is not Keyed:
        return kind((None, None), len(items) - 1)
    before = list(items)
    del before[next(place for place, one in enumerate(before) if one is item)]
    return Keyed((None, None), len(before), before)
