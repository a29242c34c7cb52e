"""The hooks of ``queue.LifoQueue`` and ``queue.PriorityQueue``, with the stock bodies inlined.

As with the hooks of ``Queue`` (see ``_primitives._queue``), another function call would cost as
much as what is done here. What these do not know by heart, they leave to the pairing.
"""

from __future__ import annotations

from heapq import heappop, heappush
from typing import Any

from otel_concurrency._core.handoff import get_current
from otel_concurrency._items.adoption import adopt
from otel_concurrency._items.pairing import Pairing
from otel_concurrency._items.pairs import Lifo, Sorted, slots_of
from otel_concurrency._items.queue_hooks import Inlined


def of_last_in_first_out(pairing: Pairing, owner: type) -> Inlined:
    """Return the hooks of ``owner``, the stock class whose last item comes out first."""
    start, remember, deliver = pairing.start, pairing.remember, pairing.deliver
    lend, fault = pairing.lend_settled, pairing.fault

    def _put(self: Any, item: Any) -> None:
        container = self.queue
        container.append(item)
        try:
            pairs = self._otel_concurrency_pairs
            if pairs is None:
                if get_current():
                    start(self, item, owner)
            elif type(pairs) is Lifo and pairs.loans.settled and not pairs.loans.has_given:
                pairs.append(item)
                pairs.append(get_current())
                if len(pairs) != 2 * len(container):
                    pairs.forget(len(container))
            else:
                remember(self, item, owner)
        except Exception as error:
            fault("put", error)

    def _get(self: Any) -> Any:
        container = self.queue
        item = container.pop()
        try:
            pairs = self._otel_concurrency_pairs
            if pairs is None:
                if get_current():
                    deliver(self, item, owner)
            elif type(pairs) is Lifo and pairs.loans.settled:
                if len(pairs) == 2 * len(container) + 2 and pairs[-2] is item:
                    context = pairs.pop()
                    pairs.pop()
                    if not context or adopt(context):
                        lend(pairs.loans, item, context)
                else:
                    deliver(self, item, owner)
            else:
                deliver(self, item, owner)
        except Exception as error:
            fault("get", error)
        return item

    parts = "queue", None, Lifo, deliver, lend, fault, owner, *slots_of(Lifo)
    return {
        "_put": (_put, ("queue", "append"), parts),
        "_get": (_get, ("queue", "pop"), parts),
        "_qsize": (_size_of(pairing), ("len", "queue"), ()),
    }


def of_priorities(pairing: Pairing, owner: type) -> Inlined:
    """Return the hooks of ``owner``, the stock class whose least item comes out first."""
    accompany, remember, deliver = pairing.accompany, pairing.remember, pairing.deliver
    lend, fault = pairing.lend_settled, pairing.fault

    def _put(self: Any, item: Any) -> None:
        container = self.queue
        try:
            pairs = self._otel_concurrency_pairs
            if pairs is pairing.at_first and pairing.seam.concerned():
                accompany(self, owner)
                pairs = self._otel_concurrency_pairs
        except Exception as error:
            fault("put", error)
            pairs = None
        heappush(container, item)
        if pairs is None:
            return
        try:
            if type(pairs) is Sorted and pairs.loans.settled and not pairs.loans.has_given:
                pairs.put(item, get_current(), len(container))
            else:
                remember(self, item, owner)
        except Exception as error:
            fault("put", error)

    def _get(self: Any) -> Any:
        container = self.queue
        item = heappop(container)
        try:
            pairs = self._otel_concurrency_pairs
            if pairs is None:
                if get_current():
                    deliver(self, item, owner)
            elif type(pairs) is Sorted and pairs.loans.settled:
                context = pairs.take(item, len(container))
                if not context or adopt(context):
                    lend(pairs.loans, item, context)
            else:
                deliver(self, item, owner)
        except Exception as error:
            fault("get", error)
        return item

    parts = Sorted, deliver, lend, fault, owner, *slots_of(Sorted)
    return {
        "_put": (_put, ("heappush", "queue"), ("queue", heappush, *parts)),
        "_get": (_get, ("heappop", "queue"), ("queue", heappop, *parts)),
        "_qsize": (_size_of(pairing), ("len", "queue"), ()),
    }


def _size_of(pairing: Pairing) -> Any:
    wait, fault = pairing.wait, pairing.fault

    def _qsize(self: Any) -> int:
        size = len(self.queue)
        if not size:
            try:
                wait(self)
            except Exception as error:
                fault("get", error)
        return size

    return _qsize
