"""Channels between tasks, in which an item may go straight from a sender to a waiting receiver.

The two ends of a channel share a state object. The contexts of the channel's items are kept beside
that state. Those of items in the channel are kept in the order in which the items come out. Those
of items that were given to a waiting receiver are kept by that receiver's task.

Tracking of a channel starts with the first item that is sent in a context. Items that are in the
channel by then, or that were given to a receiver before, have no context. From then on every item
is recorded.

``send`` and ``receive`` call ``send_nowait`` and ``receive_nowait`` first, and wait if these
refuse. So the hooks of the two ``_nowait`` methods see every item, in the task that sends or
receives it. The hooks of the other two see how a task that had to wait goes on.
"""

from __future__ import annotations

import functools
import inspect
import weakref
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import CodeType
from typing import Any

from otel_concurrency._core import handoff
from otel_concurrency._core.callers import caller, is_called_by
from otel_concurrency._core.handoff import Seam
from otel_concurrency._core.patching import Layer
from otel_concurrency._items import adoption
from otel_concurrency._items.loans import Loans

Entry = list[Any]
"""An item, and its context."""


@dataclass(frozen=True)
class Kind:
    """The classes of one library's channels, and functions to read their state, which may raise."""

    sender: type
    receiver: type
    items: Callable[[Any], list[Any]]
    """Returns the items in a channel in their order, including those of waiting senders."""
    size: Callable[[Any], int]
    """Returns the number of these items."""
    senders: Callable[[Any], list[Any]]
    """Returns one object for each waiting sender, in the order of their items."""
    waiting: Callable[[Any], tuple[Any, ...]]
    """Returns the waiting receivers. One of them may be given the next item."""
    given: Callable[[Any, tuple[Any, ...]], object]
    """Returns the task whose receiver was given the last sent item; None if the item is stored."""
    task: Callable[[], object]
    """Returns the present task, in the form in which :attr:`given` returns tasks."""


class _Way:
    """The items that are on their way through one channel, and their contexts."""

    __slots__ = ("given", "inside", "kind", "loans", "state")

    def __init__(self, kind: Kind, state: Any, forget: Callable[[object], object]) -> None:
        self.kind = kind
        self.state = weakref.ref(state, forget)
        self.inside: deque[Entry] = deque([item, None] for item in kind.items(state))
        self.loans = Loans()
        self.given: dict[object, Entry] = {}
        """By task: the item that its waiting receiver was given. The task has not resumed yet."""

    def align(self, items: Iterable[object]) -> None:
        """Record that ``items`` are in the channel, after some came or went without our hooks.

        An object keeps its contexts only if it is in the channel as many times as before.
        """
        items = list(items)
        counts = Counter(map(id, items))
        known: dict[int, deque[Entry]] = {}
        for entry in self.inside:
            known.setdefault(id(entry[0]), deque()).append(entry)
        certain = {key for key, entries in known.items() if len(entries) == counts[key]}
        self.inside = deque(
            known[id(item)].popleft() if id(item) in certain else [item, None] for item in items
        )

    def take(self, item: object, state: Any) -> Entry:
        """Return the entry of ``item``, which has just come out of the channel."""
        inside = self.inside
        if len(inside) != self.kind.size(state) + 1 or inside[0][0] is not item:
            self.align([item, *self.kind.items(state)])
        return self.inside.popleft()

    def take_given(self, item: object, *, certain: bool) -> Entry | None:
        """Return the entry of ``item``, which a receiver of the present task was given.

        ``certain``: the item was surely recorded, since the channel was tracked all the time.
        """
        tasks = [task for task, entry in self.given.items() if entry[0] is item]
        if not tasks:
            return None
        if len(tasks) == 1 and certain:
            return self.given.pop(tasks[0])
        task = self.kind.task()
        return self.given.pop(task) if task in tasks else None


class Channels:
    """The hooks of one library's channels. They are applied and undone like a layer."""

    def __init__(self, seam: Seam, kind: Kind) -> None:
        self._seam = seam
        self._kind = kind
        self._ways: dict[int, _Way] = {}
        self._waiting: dict[int, Entry | None] = {}
        """By frame of a library's ``send`` or ``receive``: the entry that it sent or took out."""
        sender: Any = kind.sender
        receiver: Any = kind.receiver
        self.layers = [
            Layer(sender, "send", self._send),
            Layer(sender, "send_nowait", functools.partial(self._send_nowait, _code(sender.send))),
            Layer(sender, "close", self._close),
            Layer(receiver, "receive", self._receive),
            Layer(
                receiver,
                "receive_nowait",
                functools.partial(self._receive_nowait, _code(receiver.receive)),
            ),
        ]

    def apply(self) -> None:
        """Set the hooks."""
        for layer in self.layers:
            layer.apply()

    def undo(self) -> None:
        """Remove the hooks, and drop every context that waits."""
        for layer in reversed(self.layers):
            layer.undo()
        self._ways.clear()
        adoption.let_go()  # without the hooks, this flow would stay in the context of its last item

    # Sending.

    def _send_nowait(self, send: CodeType, original: Any) -> Any:
        @functools.wraps(original)
        def send_nowait(self_: Any, *args: Any, **kwargs: Any) -> Any:
            entry, receivers = self._begin(self_._state, args, kwargs)
            if entry is None:
                return original(self_, *args, **kwargs)
            try:
                result = original(self_, *args, **kwargs)
            except Exception:
                if is_called_by(send):
                    self._wait(self_._state, entry)
                raise
            else:
                self._record_sent(self_._state, entry, receivers)
            finally:
                del entry, receivers  # a traceback of this frame must not keep them alive
            return result

        return send_nowait

    def _send(self, original: Any) -> Any:
        @functools.wraps(original)
        async def send(self_: Any, *args: Any, **kwargs: Any) -> Any:
            coroutine = original(self_, *args, **kwargs)
            key = id(getattr(coroutine, "cr_frame", None))
            self._waiting[key] = None
            try:
                return await coroutine
            except BaseException:
                self._take_back(self_._state, args, kwargs, key)
                raise
            finally:
                self._waiting.pop(key, None)

        return send

    def _begin(
        self, state: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> tuple[Entry | None, tuple[Any, ...]]:
        """Return an entry for an item that is about to be sent, and the waiting receivers.

        The entry is None if there is nothing to record. Neither this method nor any of the
        following ones of this class raises.
        """
        try:
            way = self._ways.get(id(state))
            context = self._seam.current() or None
            if (way is None and context is None) or not self._seam.active:
                return None, ()
            if way is None:
                way = self._accompany(state)
            elif len(way.inside) != self._kind.size(state):
                way.align(self._kind.items(state))
            item = _only(args, kwargs)
            return [item, way.loans.kept_with(item, context)], self._kind.waiting(state)
        except Exception as error:
            handoff.report_fault("send", error)
            return None, ()

    def _accompany(self, state: Any) -> _Way:
        key, ways = id(state), self._ways
        way = ways[key] = _Way(self._kind, state, lambda _: ways.pop(key, None))
        return way

    def _record_sent(self, state: Any, entry: Entry, receivers: tuple[Any, ...]) -> None:
        """Record where an item has gone: to one of the waiting receivers, or into the channel."""
        try:
            way = self._ways.get(id(state))
            if way is None:
                return
            task = self._kind.given(state, receivers) if receivers else None
            if task is None:
                way.inside.append(entry)
            else:
                way.given[task] = entry
        except Exception as error:
            handoff.report_fault("send", error)

    def _wait(self, state: Any, entry: Entry) -> None:
        """Record that the ``send`` which called ``send_nowait`` will wait until its item is taken.

        If ``send`` fails instead of waiting, its hook takes the item back at once.
        """
        try:
            way = self._ways.get(id(state))
            if way is None:
                return
            way.inside.append(entry)
            key = id(caller(1))
            if key in self._waiting:
                self._waiting[key] = entry
        except Exception as error:
            handoff.report_fault("send", error)

    def _take_back(
        self, state: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], key: int
    ) -> None:
        """Forget the item of a ``send`` that has failed; ``key`` is that of its frame."""
        try:
            entry = self._waiting.get(key)
            way = self._ways.get(id(state))
            if way is None or len(way.inside) <= self._kind.size(state):
                return  # the item is in the channel although `send` failed, or never got there
            if entry is None:
                # This `send` was waiting already when tracking of the channel started.
                item = _only(args, kwargs)
                old = [one for one in way.inside if one[0] is item and one[1] is None]
                entry = old[-1] if old else None
            if entry is not None:
                way.inside = deque(one for one in way.inside if one is not entry)
                entry.clear()  # a traceback must not keep the item and its context alive
        except Exception as error:
            handoff.report_fault("send", error)

    def _close(self, original: Any) -> Any:
        @functools.wraps(original)
        def close(self_: Any) -> None:
            senders = self._senders(self_._state)
            original(self_)
            self._withdraw(self_._state, senders)

        return close

    def _senders(self, state: Any) -> list[Any]:
        """Return the senders that wait, if their items are noted. Never raises."""
        try:
            way = self._ways.get(id(state))
            if way is not None and len(way.inside) == self._kind.size(state):
                return self._kind.senders(state)
        except Exception as error:
            handoff.report_fault("close", error)
        return []

    def _withdraw(self, state: Any, senders: list[Any]) -> None:
        """Forget the items of those of ``senders`` that do not wait any more."""
        try:
            way = self._ways.get(id(state))
            if way is None or not senders:
                return
            left = set(self._kind.senders(state))
            stored = len(way.inside) - len(senders)
            way.inside = deque(
                entry
                for place, entry in enumerate(way.inside)
                if place < stored or senders[place - stored] in left
            )
        except Exception as error:
            handoff.report_fault("close", error)

    # Receiving.

    def _receive_nowait(self, receive: CodeType, original: Any) -> Any:
        @functools.wraps(original)
        def receive_nowait(self_: Any) -> Any:
            if is_called_by(receive):
                item = original(self_)
                self._keep(self_._state, item)
                return item
            adoption.ask(_never)
            try:
                item = original(self_)
            except Exception:
                adoption.found_none()
                self._asked_in_vain(self_._state)
                raise
            self._deliver(self_._state, item)
            return item

        return receive_nowait

    def _receive(self, original: Any) -> Any:
        @functools.wraps(original)
        async def receive(self_: Any) -> Any:
            adoption.ask(lambda: not self._kind.size(self_._state))
            way = self._begin_to_receive(self_._state)
            coroutine = original(self_)
            key = id(getattr(coroutine, "cr_frame", None))
            self._waiting[key] = None
            entry = None
            try:
                item = await coroutine
            except BaseException:
                self._begin_to_receive(self_._state)
                raise
            finally:
                entry = self._waiting.pop(key, None)
            self._arrive(self_._state, item, entry, way)
            return item

        return receive

    def _begin_to_receive(self, state: Any) -> _Way | None:
        """Forget an item that the present task was given earlier and has never received."""
        try:
            way = self._ways.get(id(state))
            if way is not None and way.given:
                way.given.pop(self._kind.task(), None)
        except Exception as error:
            handoff.report_fault("receive", error)
            return None
        return way

    def _keep(self, state: Any, item: Any) -> None:
        """Keep the entry of an item that ``receive`` has taken out by ``receive_nowait``."""
        try:
            way = self._ways.get(id(state))
            if way is None:
                return
            key = id(caller(1))
            entry = way.take(item, state)
            if key in self._waiting:
                self._waiting[key] = entry
            else:  # our hook of `receive` does not know this frame: another wrapper is below it
                way.given[self._kind.task()] = entry
        except Exception as error:
            handoff.report_fault("receive", error)

    def _arrive(self, state: Any, item: Any, entry: Entry | None, before: _Way | None) -> None:
        """Have the task adopt the context of a received item, perhaps after waiting."""
        try:
            way = self._ways.get(id(state))
            if entry is None and way is not None:
                entry = way.take_given(item, certain=way is before)
            self._adopt(state, item, entry)
        except Exception as error:
            handoff.report_fault("receive", error)

    def _deliver(self, state: Any, item: Any) -> None:
        """Have the task adopt the context of an item that was received without waiting."""
        try:
            way = self._ways.get(id(state))
            self._adopt(state, item, None if way is None else way.take(item, state))
        except Exception as error:
            handoff.report_fault("receive", error)

    def _adopt(self, state: Any, item: Any, entry: Entry | None) -> None:
        loans = self._loans_of(state)
        adoption.hand_over(self._seam, None if entry is None else entry[1], item, loans)

    def _asked_in_vain(self, state: Any) -> None:
        try:
            loans = self._loans_of(state)
            if loans is not None:
                adoption.asked_in_vain(loans)
        except Exception as error:
            handoff.report_fault("receive", error)

    def _loans_of(self, state: Any) -> Loans | None:
        """Return the loans of a channel; None where it has never seen a context."""
        way = self._ways.get(id(state))
        if way is None and self._seam.active and handoff.get_current():
            way = self._accompany(state)
        return None if way is None else way.loans


def _only(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """Return the only argument of ``send``, whose name differs between libraries."""
    return next(iter((*args, *kwargs.values())), None)


def _never() -> bool:
    """Return False: a method that does not wait has an item, or raises."""
    return False


def _code(function: Any) -> CodeType:
    code: CodeType = inspect.unwrap(function).__code__
    return code
