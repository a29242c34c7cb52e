"""``queue``: an item carries the context in which it was put to the consumer that gets it.

The contexts of a ``Queue`` are kept beside its items. ``SimpleQueue`` is a C type whose items
cannot be inspected. So a subclass takes its name, and stores each item together with its context.
"""

from __future__ import annotations

import functools
import sys
from types import ModuleType
from typing import Any

from opentelemetry.context import Context

from otel_concurrency._core import compiled, handoff
from otel_concurrency._core.callers import caller
from otel_concurrency._core.handoff import Seam, adopted, capture_nothing, get_current
from otel_concurrency._core.patching import Layer, Patch, StandIn
from otel_concurrency._items import adoption, known_queues, queue_hooks, reordered
from otel_concurrency._items.adoption import adopt, let_go
from otel_concurrency._items.loans import Loans
from otel_concurrency._items.pairing import Pairing
from otel_concurrency._items.pairs import Fifo, WatchedFifo, slots_of
from otel_concurrency._items.queue_hooks import Inlined, QueueHooks


def _layers(queue: ModuleType, seam: Seam) -> list[Patch]:
    if queue.Queue.__module__ != queue.__name__:
        return []  # gevent has replaced all of these classes, and its adapter covers them
    pairing = Pairing(queue, seam, container="queue", size="_qsize", waits=("_qsize", False))
    return [
        QueueHooks(
            pairing,
            {
                queue.Queue: _inlined(pairing),
                queue.LifoQueue: reordered.of_last_in_first_out(pairing, queue.LifoQueue),
                queue.PriorityQueue: reordered.of_priorities(pairing, queue.PriorityQueue),
            },
        ),
        Layer(queue.Queue, "task_done", queue_hooks.task_done),
        *queue_hooks.shutdown_layers(queue.Queue),
        Layer(queue, "SimpleQueue", lambda raw: _simple_queue(raw, seam)),
    ]


def _manager_layers(managers: ModuleType, seam: Seam) -> list[Patch]:
    return [Layer(managers.Server, "accept_connection", _accept_connection)]


def _accept_connection(original: Any) -> Any:
    abstains = adoption.abstaining(original)

    @functools.wraps(original)
    def accept_connection(*args: Any, **kwargs: Any) -> Any:
        # It serves until the connection ends, and takes items for others. Where `multiprocessing`
        # is on, these adopt them.
        carries = handoff.seams.get("multiprocessing")
        function = original if carries is not None and carries.active else abstains
        return function(*args, **kwargs)

    return accept_connection


MODULES = {
    "queue": _layers,
    "multiprocessing.managers": _manager_layers,
}


def _inlined(pairing: Pairing) -> Inlined:
    # The same code as in `_asyncio`, for another attribute. It is not shared because one more
    # function call would cost as much as all the rest.
    # A test compares the two, and compares both with the code of `Fifo` that they repeat.
    owner, start, remember = pairing.stock, pairing.start, pairing.remember
    deliver, lend, wait, fault = pairing.deliver, pairing.lend, pairing.wait, pairing.fault
    remember_watched, deliver_watched = pairing.remember_watched, pairing.deliver_watched

    def _put(self: Any, item: Any) -> None:
        container = self.queue
        container.append(item)
        try:
            pairs = self._otel_concurrency_pairs
            if pairs is None:
                if get_current():
                    start(self, item, owner)
            elif type(pairs) is Fifo:
                pairs.append(item)
                pairs.append(get_current())
                if len(pairs) != 2 * len(container):
                    pairs.forget(len(container))
            elif type(pairs) is WatchedFifo:
                remember_watched(pairs, item, len(container))
            else:
                remember(self, item, owner)
        except Exception as error:
            fault("put", error)

    def _get(self: Any) -> Any:
        container = self.queue
        item = container.popleft()
        try:
            pairs = self._otel_concurrency_pairs
            if pairs is None:
                if get_current():
                    deliver(self, item, owner)
            elif type(pairs) is Fifo:
                if len(pairs) == 2 * len(container) + 2 and pairs[0] is item:
                    pairs.popleft()
                    context = pairs.popleft()
                    if not context or adopt(context):
                        lend(self, item, context)
                else:
                    deliver(self, item, owner)
            elif type(pairs) is WatchedFifo:
                deliver_watched(pairs, item, len(container))
            else:
                deliver(self, item, owner)
        except Exception as error:
            fault("get", error)
        return item

    def _qsize(self: Any) -> int:
        size = len(self.queue)
        if not size:
            try:
                wait(self)
            except Exception as error:
                fault("get", error)
        return size

    parts = "queue", None, Fifo, deliver, lend, fault, owner, *slots_of(Fifo)
    return {
        "_put": (_put, ("queue", "append"), parts),
        "_get": (_get, ("queue", "popleft"), parts),
        "_qsize": (_qsize, ("len", "queue"), ()),
    }


_MARK = object()
"""The first of the three parts in which a ``SimpleQueue`` stores an item with its context."""

_NOTED = object()
"""The first of four where it may come back: the last are the loans of the queue."""

_NONE_YET: Any = ""
"""What stands for the loans of a queue that has not seen a context yet; it is false.

Of a queue that is known to hand work on it is None, and the loans are kept elsewhere.
"""


_type: Any = type  # a `cast` of what it returns would cost a call


def _simple_queue(plain: Any, seam: Seam) -> Any:
    plain_new, plain_put, plain_get = plain.__new__, plain.put, plain.get
    module = sys.modules["queue"]

    def deliver(queue: Any, stored: Any) -> Any:
        context: Context | None = None
        if _type(stored) is tuple:
            if len(stored) == 3 and stored[0] is _MARK:
                _, stored, context = stored
            elif len(stored) == 4 and stored[0] is _NOTED:
                return deliver_noted(queue, *stored[1:])
        try:
            if seam.capture is capture_nothing:
                let_go()
            elif context:
                if seam.change is not None:
                    context = seam.change(context)
                if adopt(context):
                    lend(queue, stored, context)
            elif get_current() or queue._otel_concurrency_loans:
                deliver_bare(queue, stored)
        except Exception as error:
            adoption.cannot_tell(error)
        return stored

    def deliver_noted(queue: Any, item: Any, context: Context | None, loans: Loans) -> Any:
        try:
            adoption.hand_over(seam, context, item, loans)
            if loans.settled and queue._otel_concurrency_loans is loans:
                settle(queue, loans)
        except Exception as error:
            adoption.cannot_tell(error)
        return item

    def deliver_bare(queue: Any, item: Any) -> None:
        """Hand over an item without a context, where there is one or it may come back."""
        loans = queue._otel_concurrency_loans
        if loans is None:
            if adopt(None):
                lend(queue, item, None)
        else:
            if not loans:
                loans = queue._otel_concurrency_loans = Loans()
            adoption.arrive(seam, None, item, loans)

    def lend(queue: Any, item: Any, context: Context | None) -> None:
        loans = queue._otel_concurrency_loans
        if loans is None:
            loans = queue._otel_concurrency_settled
            if context and loans.to_pass:
                loans.to_pass -= 1
                return
        elif not loans:
            loans = queue._otel_concurrency_loans = Loans()
        loans.took(item, context, get_current(), busy=True)
        if not loans.settled:
            queue._otel_concurrency_loans = loans
        elif queue._otel_concurrency_loans is not None:
            settle(queue, loans)

    def settle(queue: Any, loans: Loans) -> None:
        queue._otel_concurrency_settled = loans
        queue._otel_concurrency_loans = None

    def noted(queue: Any, item: Any, context: Context | None) -> Any:
        """Return what to store of an item that may have come back. May raise."""
        loans = queue._otel_concurrency_loans
        if seam.capture is capture_nothing:
            return item
        if loans is None:
            return (_MARK, item, context) if context else item
        if not loans:
            loans = queue._otel_concurrency_loans = Loans()
        return _NOTED, item, loans.kept_with(item, context), loans

    def lends(queue: Any) -> bool:
        try:
            loans = queue._otel_concurrency_loans
            return bool(loans and loans.lends and seam.capture is not capture_nothing)
        except Exception as error:
            handoff.report_fault("get", error)
            return False

    def asked_in_vain(queue: Any) -> None:
        try:
            if not lends(queue):
                adoption.found_none()
            loans = queue._otel_concurrency_loans
            if loans is not None and seam.capture is not capture_nothing and get_current():
                if not loans:
                    loans = queue._otel_concurrency_loans = Loans()
                adoption.asked_in_vain(loans)
        except Exception as error:
            handoff.report_fault("get", error)

    class SimpleQueue(plain, metaclass=StandIn):  # type: ignore[misc]  # a base known at run time
        stands_in_for = plain
        __module__ = "queue"
        __slots__ = ("_otel_concurrency_loans", "_otel_concurrency_settled")

        def __new__(cls, *args: Any, **kwargs: Any) -> Any:
            if cls is SimpleQueue and (args or kwargs or _is_plumbing()):
                return plain(*args, **kwargs)
            queue = plain_new(cls, *args, **kwargs)
            queue._otel_concurrency_loans = _NONE_YET
            return queue

        @functools.wraps(plain.put)
        def put(self, item: Any, block: bool = True, timeout: float | None = None) -> Any:
            try:
                context = seam.current()
                if context:
                    if seam.capture is not capture_nothing:
                        if self._otel_concurrency_loans is None:
                            item = _MARK, item, context
                        else:
                            item = noted(self, item, context)
                elif self._otel_concurrency_loans:
                    item = noted(self, item, context)
            except Exception as error:
                handoff.report_fault("put", error)
            return plain_put(self, item, block, timeout)

        @functools.wraps(plain.get)
        def get(self, block: bool = True, timeout: float | None = None) -> Any:
            if adopted.get() is not None:
                if timeout is None:
                    try:
                        return deliver(self, plain_get(self, False))
                    except module.Empty:
                        pass
                if block and not lends(self):
                    let_go()
            try:
                return deliver(self, plain_get(self, block, timeout))
            except module.Empty:
                asked_in_vain(self)
                raise

        @functools.wraps(plain.put_nowait)
        def put_nowait(self, item: Any) -> Any:
            try:
                context = seam.current()
                if (context or self._otel_concurrency_loans) and not _is_plumbing():
                    item = noted(self, item, context)
            except Exception as error:
                handoff.report_fault("put", error)
            return plain_put(self, item)

        @functools.wraps(plain.get_nowait)
        def get_nowait(self) -> Any:
            try:
                return deliver(self, plain_get(self, False))
            except module.Empty:
                asked_in_vain(self)
                raise

    for name in ("put", "put_nowait", "get", "get_nowait"):
        SimpleQueue.__dict__[name].__annotations__ = {}
    if compiled.functions is not None:
        slots = (*map(SimpleQueue.__dict__.get, SimpleQueue.__slots__), vars(Loans)["to_pass"])
        for name, plain_method in (("put", plain_put), ("get", plain_get)):
            twin = SimpleQueue.__dict__[name]
            parts = seam, plain_method, _MARK, deliver, lend, module.Empty, *slots
            method = compiled.functions.method(f"SimpleQueue.{name}", twin, *parts)
            setattr(SimpleQueue, name, method)
    SimpleQueue.__qualname__ = "SimpleQueue"  # PyPy's has another, by which this is not found
    return SimpleQueue


def _is_plumbing() -> bool:
    try:
        return known_queues.is_plumbing(caller(1))
    except Exception as error:
        handoff.report_fault("SimpleQueue", error)
        return False
