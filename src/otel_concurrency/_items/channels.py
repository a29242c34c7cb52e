"""Channels of tasks, in which an item may go straight from a sender to a receiver that waits.

What a channel consists of is its state, which its ends share. The contexts of the items that are on
their way lie beside it, in the order in which they were sent; whoever receives an item takes the
first context of that very item. A channel is accompanied from the first item on that is sent in a
context while nothing is on its way, so that none is taken for another; from then on all items are
noted. Where nothing can be on its way any more, what is left is dropped.
"""

from __future__ import annotations

import functools
import inspect
import weakref
from collections.abc import Callable
from types import CodeType
from typing import Any

from opentelemetry.context import Context

from otel_concurrency._core import handoff
from otel_concurrency._core.callers import is_called_by
from otel_concurrency._core.handoff import Seam, adopted
from otel_concurrency._core.patching import Layer
from otel_concurrency._items import adoption

Entry = list[Any]
"""An item, and its context."""


class _Way:
    """What is on its way in one channel."""

    __slots__ = ("accompanied", "entries", "receiving", "sending", "state")

    def __init__(self, state: weakref.ref[Any]) -> None:
        self.state = state
        self.accompanied = False
        self.entries: list[Entry] = []
        self.sending = 0
        """How many are inside a ``send`` of ours: theirs may not be there yet."""
        self.receiving = 0
        """How many are inside a ``receive`` of ours: they wait, or have been given an item."""


class Channels:
    """The hooks of one library's channels; applied and undone as a layer is."""

    def __init__(
        self,
        seam: Seam,
        sender: type,
        receiver: type,
        *,
        stored: Callable[[Any], int],
        waiting: Callable[[Any], int],
    ) -> None:
        """Take the two ends, and what tells of a state how many items and receivers wait."""
        self._seam = seam
        self._stored, self._waiting = stored, waiting
        self._ways: dict[int, _Way] = {}
        self.layers = [
            Layer(sender, "send", self._send),
            Layer(sender, "send_nowait", functools.partial(self._send_nowait, _code(sender.send))),  # type: ignore[attr-defined]
            Layer(receiver, "receive", self._receive),
            Layer(
                receiver,
                "receive_nowait",
                functools.partial(self._receive_nowait, _code(receiver.receive)),  # type: ignore[attr-defined]
            ),
        ]

    def apply(self) -> None:
        """Set the hooks."""
        for layer in self.layers:
            layer.apply()

    def undo(self) -> None:
        """Take the hooks away, and every context that waits."""
        for layer in reversed(self.layers):
            layer.undo()
        self._ways.clear()
        adoption.let_go()  # nobody will tell this flow to do it any more

    # What is on its way.

    def _put(self, state: Any, item: Any) -> Entry | None:
        """Note an item that is about to be sent."""
        try:
            if not self._seam.active:
                return None
            context: Context | None = self._seam.current() or None
            way = self._ways.get(id(state))
            if way is None or not way.accompanied:
                if context is None or self._is_anything_on_its_way(state, way):
                    return None
                way = way or self._way(state)
                way.accompanied = True
            elif way.entries and not self._is_anything_on_its_way(state, way):
                way.entries.clear()
            entry = [item, context]
            way.entries.append(entry)
        except Exception as error:
            handoff.report("send", error)
            return None
        return entry

    def _way(self, state: Any) -> _Way:
        key, ways = id(state), self._ways
        if key not in ways:
            ways[key] = _Way(weakref.ref(state, lambda _: ways.pop(key, None)))
        return ways[key]

    def _way_safely(self, state: Any) -> _Way | None:
        """Return what :meth:`_way` does, or None after a reported fault."""
        try:
            return self._way(state)
        except Exception as error:
            handoff.report("send", error)
            return None

    def _is_anything_on_its_way(self, state: Any, way: _Way | None) -> bool:
        if way is not None and (way.sending or way.receiving > self._waiting(state)):
            return True
        return self._stored(state) > 0

    def _take_back(self, state: Any, entry: Entry | None) -> None:
        try:
            way = self._ways.get(id(state))
            if entry is not None and way is not None:
                way.entries[:] = [one for one in way.entries if one is not entry]
                entry.clear()  # a traceback leads through here
        except Exception as error:
            handoff.report("send", error)

    def _deliver(self, state: Any, item: Any) -> None:
        """Give the context of an item that has just been received to the receiver."""
        try:
            context = None
            way = self._ways.get(id(state))
            if way is not None:
                for place, entry in enumerate(way.entries):
                    if entry[0] is item:
                        context = entry[1]
                        del way.entries[place]
                        break
            if context and self._seam.change is not None:
                context = self._seam.change(context)
            if self._seam.active and (context or handoff.get_current()):
                adoption.adopt(context)
        except Exception as error:
            handoff.report("receive", error)

    # The hooks.

    def _send_nowait(self, send: CodeType, original: Any) -> Any:
        @functools.wraps(original)
        def send_nowait(self_: Any, item: Any) -> Any:
            if is_called_by(send):
                return original(self_, item)
            entry = self._put(self_._state, item)
            try:
                return original(self_, item)
            except BaseException:
                self._take_back(self_._state, entry)
                raise
            finally:
                del entry

        return send_nowait

    def _send(self, original: Any) -> Any:
        @functools.wraps(original)
        async def send(self_: Any, item: Any) -> Any:
            entry = self._put(self_._state, item)
            way = self._way_safely(self_._state)
            if way is not None:
                way.sending += 1
            try:
                return await original(self_, item)
            except BaseException:
                self._take_back(self_._state, entry)
                raise
            finally:
                if way is not None:
                    way.sending -= 1
                del entry

        return send

    def _receive_nowait(self, receive: CodeType, original: Any) -> Any:
        @functools.wraps(original)
        def receive_nowait(self_: Any) -> Any:
            if is_called_by(receive):
                return original(self_)
            if adopted.get() is not None:
                adoption.let_go()
            item = original(self_)
            self._deliver(self_._state, item)
            return item

        return receive_nowait

    def _receive(self, original: Any) -> Any:
        @functools.wraps(original)
        async def receive(self_: Any) -> Any:
            if adopted.get() is not None:
                adoption.let_go()
            way = self._way_safely(self_._state)
            if way is not None:
                way.receiving += 1
            try:
                item = await original(self_)
            finally:
                if way is not None:
                    way.receiving -= 1
            self._deliver(self_._state, item)
            return item

        return receive


def _code(function: Any) -> CodeType:
    code: CodeType = inspect.unwrap(function).__code__
    return code
