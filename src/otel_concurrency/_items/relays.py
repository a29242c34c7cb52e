"""Pairs the items of queues in which another flow may put or take an item for a waiting flow.

In an event loop, a consumer that finds the queue empty waits, and the next producer or the loop
takes an item out for it. If a producer finds the queue full, the flow that makes room puts the
item. So an item has the context in which ``put`` was called, and that context waits beside the
queue until the item is stored. The context of an item that was taken out waits with the thread that
took it, until the consumer itself resumes and gets both.
"""

from __future__ import annotations

from _thread import get_native_id
from typing import Any

from otel_concurrency._core import handoff
from otel_concurrency._core.patching import definer
from otel_concurrency._items import adoption
from otel_concurrency._items.loans import Loans
from otel_concurrency._items.pairing import KEY, Pairing

_PUTTING = "_otel_concurrency_putting"
"""The attribute of a queue with the items that are being put, and their producers' contexts."""

Entry = list[Any]
"""An item, and its context."""

Taken = tuple[Any, Any, Loans]
"""The context of an item that was taken out, the item, and the loans of its queue."""


class Relay(Pairing):
    """The contexts of items on their way in, in the queue, and on their way out."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._taken: dict[int, Taken] = {}
        """By native thread, not by flow: what was taken out last."""

    def put(self, queue: Any, item: Any) -> Entry | None:
        """Remember the context of an item that is about to be put; None if nothing was kept."""
        try:
            if not self.seam.active:
                return None
            if self.seam.concerned():
                if getattr(queue, KEY, None) is self.at_first:
                    self.accompany(queue, definer(queue.__class__, "_put"))
            elif not queue.__dict__.get(_PUTTING):
                return None
            entry = [item, self.loans_of(queue).kept_with(item, self.seam.current())]
            queue.__dict__.setdefault(_PUTTING, []).append(entry)
        except Exception as error:
            handoff.report("put", error)
            return None
        return entry

    def put_failed(self, queue: Any, entry: Entry | None) -> None:
        """Forget an item that will not be put any more."""
        if entry is None:
            return
        try:
            entries: list[Entry] = queue.__dict__.get(_PUTTING, [])
            places = [place for place, one in enumerate(entries) if one is entry]
            # The entry may have been used for another put of the same object: remove that one's.
            places += [place for place, one in enumerate(entries) if one[0] is entry[0]]
            if places:
                del entries[places[0]]
            entry.clear()  # a traceback of the producer must not keep the item and context alive
        except Exception as error:
            handoff.report("put", error)

    def context_of(self, queue: Any, item: Any) -> Any:
        """Return the context in which ``item`` was handed to ``put``. May raise."""
        entries: list[Entry] = queue.__dict__.get(_PUTTING, [])
        for place, entry in enumerate(entries):
            if entry[0] is item:
                del entries[place]
                return entry[1]
        return None

    def give(self, item: Any, context: Any, loans: Loans) -> None:
        """Keep the context of an item that was taken out: its consumer is not known yet."""
        self._taken[get_native_id()] = context, item, loans

    def taken(self, item: Any) -> Taken | None:
        """Return what is known of ``item``; None if ``item`` was not the last taken out.

        Neither this method nor :meth:`forget_taken` raises.
        """
        try:
            if not self._taken:
                return None
            taken = self._taken.pop(get_native_id(), None)
            return None if taken is None or taken[1] is not item else taken
        except Exception as error:
            handoff.report("get", error)
            return None

    def forget_taken(self) -> None:
        """Forget an item that was taken out and for which no consumer has come."""
        try:
            if self._taken:
                self._taken.pop(get_native_id(), None)
        except Exception as error:
            handoff.report("get", error)

    def arrive(self, taken: Taken) -> None:
        """Have the present flow, the consumer, adopt the context of its item. Never raises."""
        try:
            adoption.arrive(self.seam, *taken)
        except Exception as error:
            handoff.report("get", error)
