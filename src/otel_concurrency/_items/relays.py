"""Pairs the items of queues that somebody else may put or take for whoever has to wait.

In an event loop, a consumer that finds nothing waits for an item that the next producer, or the
loop, takes out for it; and what a producer could not put is put by whoever makes room. So the
context of an item is the one in which ``put`` was called, and lies beside the queue until the item
is in; and the context of an item that was taken out lies beside the flow that has taken it, until
the consumer itself comes for both.
"""

from __future__ import annotations

from _thread import get_native_id
from typing import Any

from otel_concurrency._core import handoff
from otel_concurrency._core.patching import definer
from otel_concurrency._items import adoption
from otel_concurrency._items.pairing import KEY, Pairing

_PUTTING = "_otel_concurrency_putting"
"""The attribute with what is being put: items, and the contexts of their putters."""

Entry = list[Any]
"""An item, and its context."""


class Relay(Pairing):
    """The contexts of items on their way in, in the queue, and on their way out."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._taken: dict[int, tuple[Any, Any]] = {}
        """By thread, whatever runs on it: the item that was taken out last, and its context."""

    def put(self, queue: Any, item: Any) -> Entry | None:
        """Note the context of an item that is about to be put; None: there is nothing to note."""
        try:
            if not self.seam.active:
                return None
            if self.seam.concerned():
                if getattr(queue, KEY, None) is self.at_first:
                    self.accompany(queue, definer(queue.__class__, "_put"))
            elif not queue.__dict__.get(_PUTTING):
                return None
            entry = [item, self.seam.current()]
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
            # Its own may have gone with an item that is the same.
            places += [place for place, one in enumerate(entries) if one[0] is entry[0]]
            if places:
                del entries[places[0]]
            entry.clear()  # a traceback leads through who has put
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

    def give(self, item: Any, context: Any) -> None:
        """Keep what is the consumer's: it is not known yet who that is."""
        self._taken[get_native_id()] = item, context

    def taken(self, item: Any) -> tuple[Any] | None:
        """Return the context that came with ``item``; None unless this was taken out just now.

        Never raises, nor does the next one.
        """
        try:
            if not self._taken:
                return None
            taken = self._taken.pop(get_native_id(), None)
            return None if taken is None or taken[0] is not item else (taken[1],)
        except Exception as error:
            handoff.report("get", error)
            return None

    def forget_taken(self) -> None:
        """Let go of an item that nobody has come for."""
        try:
            if self._taken:
                self._taken.pop(get_native_id(), None)
        except Exception as error:
            handoff.report("get", error)

    def arrive(self, context: Any) -> None:
        """Have the consumer, in whose flow this is, adopt the context of its item. Never raises."""
        try:
            adoption.arrive(self.seam, context)
        except Exception as error:
            handoff.report("get", error)
