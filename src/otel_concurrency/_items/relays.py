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
from otel_concurrency._core.handoff import capture_nothing
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


class Incoming:
    """The items that have been handed to ``put`` and are not in their queue yet."""

    def __init__(self, pairing: Pairing) -> None:
        """Tell ``pairing`` the contexts of the items that come into its queues."""
        self._pairing = pairing
        pairing.context_of = self._context_of

    def put(self, queue: Any, item: Any) -> Entry | None:
        """Remember the context of an item that is about to be put; None if nothing was kept.

        An item that may have to wait is remembered without a context, too, because the same object
        may be put in a context in the meantime. Never raises, nor does :meth:`is_put`.
        """
        pairing = self._pairing
        try:
            seam = pairing.seam
            if seam.capture is capture_nothing:
                return None
            if seam.concerned():
                if getattr(queue, KEY, None) is pairing.at_first:
                    pairing.accompany(queue, definer(queue.__class__, "_put"))
            elif not queue.__dict__.get(_PUTTING) and not queue.full():
                return None
            entry = [item, pairing.loans_of(queue).kept_with(item, seam.current())]
            queue.__dict__.setdefault(_PUTTING, []).append(entry)
        except Exception as error:
            handoff.report_fault("put", error)
            return None
        return entry

    def is_put(self, queue: Any, entry: Entry | None, *, failed: bool = False) -> None:
        """Forget an item that is in its queue, or, where ``put`` has failed, will not be put."""
        if entry is None:
            return
        try:
            entries: list[Entry] = queue.__dict__.get(_PUTTING, [])
            places = [place for place, one in enumerate(entries) if one is entry]
            if failed:
                # Its entry may have gone with another put of the same object: remove that one.
                places += [place for place, one in enumerate(entries) if one[0] is entry[0]]
            if places:
                del entries[places[0]]
            entry.clear()  # a traceback of the producer must not keep the item and context alive
        except Exception as error:
            handoff.report_fault("put", error)

    def _context_of(self, queue: Any, item: Any) -> Any:
        """Return the context in which ``item`` was handed to ``put``. May raise."""
        entries: list[Entry] = queue.__dict__.get(_PUTTING, [])
        for place, entry in enumerate(entries):
            if entry[0] is item:
                del entries[place]
                return entry[1]
        return None


class Outgoing:
    """The items that have been taken out of a queue for consumers that have not resumed yet."""

    def __init__(self, pairing: Pairing) -> None:
        """Keep what ``pairing`` hands over: the present flow may not be the consumer's."""
        self._seam = pairing.seam
        self._taken: dict[int, Taken] = {}
        """By native thread, not by flow: what was taken out last."""
        pairing.give = self._keep

    def _keep(self, item: Any, context: Any, loans: Loans) -> None:
        self._taken[get_native_id()] = context, item, loans

    def taken(self, item: Any) -> Taken | None:
        """Return what is known of ``item``; None if ``item`` was not the last taken out.

        Neither this method nor :meth:`forget` raises.
        """
        try:
            if not self._taken:
                return None
            taken = self._taken.pop(get_native_id(), None)
            return None if taken is None or taken[1] is not item else taken
        except Exception as error:
            handoff.report_fault("get", error)
            return None

    def forget(self) -> None:
        """Forget an item that was taken out and for which no consumer has come."""
        try:
            if self._taken:
                self._taken.pop(get_native_id(), None)
        except Exception as error:
            handoff.report_fault("get", error)

    def arrive(self, taken: Taken) -> None:
        """Have the present flow, the consumer, adopt the context of its item. Never raises."""
        try:
            adoption.arrive(self._seam, *taken)
        except Exception as error:
            adoption.cannot_tell(error)
