"""Things that are kept in queues: connections, sessions, permits, buffers.

Whoever takes such a thing out of a queue and puts it back hands nothing on, and whoever takes it
next has been handed no work. No list can name the queues of which this is true, and nothing about a
queue tells before it is used. So what is taken out of a queue is noted as a *loan*, and what is put
is compared with the loans:

- What a flow takes out inside a span of its own and puts back has no context from then on.
- What a flow takes out otherwise and puts back keeps the context that it came with: a job that is
  tried again its producer's, a connection none. Where it may be another job that was made since, it
  has none unless that is certain to be right.
- What a flow puts inside the trace in which it has asked the same queue, for something that had no
  context or was not there, has none either: it is a connection made anew, in a wrapper of its own.

A flow that puts to a queue from which it has taken nothing hands work on, as ever. Of a queue out
of which one item after the other is taken by flows that put nothing back, nothing more is noted:
it hands work on, and pays nothing here. Of flows with a span of their own more are looked at, and
some again from time to time, since things that were put inside a span seem to be work at first.
Nothing that was taken out is kept alive.

A queue to which things without a context come back lends them: who takes one out has been handed
no work, and stays in its own context.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import Any
from weakref import ref

from opentelemetry.context import Context
from opentelemetry.trace import SpanContext
from opentelemetry.trace.propagation import (
    _SPAN_KEY,  # pyright: ignore[reportPrivateUsage]  # a third of trace.get_current_span's cost
)

from otel_concurrency._core.handoff import adopted, get_current
from otel_concurrency._items import members
from otel_concurrency._linking import origins

_SETTLED_AFTER = 32
"""How many items are to be taken, with nothing coming back in between, before a queue is known to
hand work on. More than there are flows without a span that hold a thing of one pool at a time."""

SOON = 2
"""How many where all have a context, as the things of a pool have not, and it is noticed if one has
none."""

_LENDS_AFTER = 2
"""How many things without a context are to come back, with no flow taking a second one before,
until a queue is known to lend them."""

_MOST_OF_A_POOL = 256
"""How many where the flows have a span of their own, and may all hold a thing of one pool."""

_TO_PASS = 4096
"""After how many more of these the next few are noted again."""

_MOST_OF_A_FLOW = 8
_MOST_OF_A_QUEUE = 16

_VALUES: Any = (type(None), bool, bytes, float, int, str)
"""Types of which two equal objects are the same permit, or piece of work."""

_SEQUENCES: Any = (tuple, list)
"""Types of items that are taken apart at once, whose place in memory the next one takes."""


class Loan:
    """Something that was taken out of a queue, or was asked for in vain."""

    __slots__ = ("_came_with", "_contents", "_item", "_span", "busy", "in_vain", "key", "loans")

    def __init__(
        self,
        loans: Loans,
        key: object,
        item: object,
        context: Context | None,
        span: SpanContext | None = None,
        *,
        busy: bool = False,
        in_vain: bool = False,
    ) -> None:
        """Take what it is known by; ``key`` is None for what cannot come back as it is.

        ``span`` is what the span is known by in which it was taken out, if there was one.
        """
        self.in_vain = in_vain
        """Whether there was nothing to take."""
        self.loans = loans
        self.key = key
        self.busy = busy
        """Whether it was taken inside a span of the flow's own."""
        try:
            self._item: ref[Any] | None = ref(item)
        except TypeError:
            self._item = None
            self._contents = _contents(item)
        self._came_with = ref(context) if context else None
        self._span = span

    @property
    def is_new(self) -> bool:
        """Whether it had no context, so that something else may come back in its place."""
        return self._came_with is None

    @property
    def trace(self) -> int:
        """The trace in which it was taken; 0: in none."""
        return 0 if self._span is None else self._span.trace_id

    def is_of(self, key: object, item: object) -> bool:
        """Whether it is ``item``, which has this key, that was taken out."""
        if key is None or self.key != key:
            return False
        return (
            self._item() is item
            if self._item
            else members.are_alike(self._contents, _contents(item))
        )

    def came_with_again(self, current: Context | None) -> Context | None:
        """Return :meth:`came_with` for what is put where ``current`` is, and was found to be this.

        Without weak references it may be what was made since, in the same place in memory. Of the
        same value it counts as tried again, unless that is in another trace; otherwise it has a
        context only if that is current as well.
        """
        context = self.came_with()
        if context is None or context is current or self._item is not None:
            return context
        if isinstance(self._contents, members.Members):
            return None
        if current and origins.trace_of(current) != origins.trace_of(context):
            return None
        return context

    @property
    def is_held(self) -> bool:
        """Whether somebody is known to have what was taken out."""
        return self._item is not None and self._item() is not None

    @property
    def is_gone(self) -> bool:
        """Whether what was taken out is known not to exist any more."""
        return self._item is not None and self._item() is None

    def came_from(self) -> int | None:
        """Return the trace of the context that it came with; None of none, or where it is gone."""
        context = self.came_with()
        return None if context is None else origins.trace_of(context)

    def came_with(self) -> Context | None:
        """Return the context that it came with, while somebody is in that; None: there is none."""
        return None if self._came_with is None else self._came_with()


_taken: ContextVar[tuple[Loan, ...]] = ContextVar("otel_concurrency_taken", default=())
"""What this flow has taken out last, of whatever queues."""

_put_first: ContextVar[object] = ContextVar("otel_concurrency_put_first", default=None)
"""The :class:`Loans` of the queue to which this flow has put the first item in a context."""


class Loans:
    """What has been taken out of one queue, and may come back. Its methods may raise."""

    # What is asked of each item is read the quickest from a slot.
    __slots__ = ("__dict__", "has_given", "settled", "to_pass")

    settled: bool
    """Whether the queue is known to hand work on."""
    has_given: bool
    """Whether items were taken out before anything was noted: one of these may come back."""
    to_pass: int
    """How many items in a context need not be noted that are taken by flows with a span."""
    # Most queues never need another value.
    noted = False
    """Whether anything was."""
    _lacked = False
    """Whether a flow with a span of its own ever got nothing, or something without a context."""
    _asked = False
    """Whether a flow ever asked in vain, which is forgotten when it takes something."""
    _kept = 0
    """How many items were taken one after the other with nothing coming back."""
    _handed = 0
    """The same for items in a context that were taken by flows with a span of their own."""
    lent = False
    """Whether a flow that was started in a span has taken something without a context."""
    _returned = 0
    """How many without a context have come back."""
    first: Loan | None = None
    """The first item in a context, where it may have been taken out before it was put."""

    def __init__(self, enough: int = _SETTLED_AFTER, *, by_value: bool = False) -> None:
        """Take how much is to be noted.

        ``enough`` is how many items are to be taken, with nothing coming back in between, before
        the queue is settled; ``by_value`` says that it gives copies, known by their value.
        """
        self.settled = self.has_given = False
        self.to_pass = 0
        self._enough = enough
        self._by_value = by_value
        self._by_key: dict[object, Loan] = {}
        """What was taken out in some trace, which another flow may put back in the same."""
        self._spans: dict[int, bool] = {}
        """The ids of spans inside which something else may come back, and whether anything was
        taken out there, rather than asked for in vain."""
        self.things: dict[int, None] = {}
        """Traces of which all that lies in the queue is known to be things."""

    def _key(self, item: object) -> object:
        """Return what ``item`` is known by; None where it can only come back as another."""
        if not self._by_value:
            return id(item)
        kind = type(item)
        return (kind, hash(item)) if kind in _VALUES else None

    @property
    def lends(self) -> bool:
        """Whether what is taken out of the queue without a context is no work, as far as known."""
        return self._returned >= _LENDS_AFTER and not self.settled

    # Taking.

    def due(self, item: object, context: Context | None) -> Context | None:
        """Return the context to adopt with ``item``, which was put with ``context``."""
        if not context:
            return context
        if self.first is not None and self.first.is_of(self._key(item), item):
            self.first = None
            if _put_first.get() is self:
                return None
        return None if origins.trace_of(context) in self.things else context

    def took(self, item: object, context: Context | None, before: Context, *, busy: bool) -> None:
        """Note that the present flow has taken ``item`` out, which came with ``context``.

        ``before`` was current when it did so, and still is where it is ``busy``, with a span of its
        own.
        """
        if busy and context:
            self._kept, self._enough, self.settled = 0, _SETTLED_AFTER, False
            self._handed += 1
            if self._handed % _MOST_OF_A_QUEUE == 0 and self._is_enough_of_busy_flows():
                return
        elif busy or (not context and self._enough == SOON):
            self._kept, self._enough, self.settled = 0, _SETTLED_AFTER, False
            self._handed, self.to_pass = 0, 0
        taken = _taken.get()
        if self._returned and (
            (context and not busy) or any(one.loans is self and not one.in_vain for one in taken)
        ):
            self._returned = 0  # work, or a worker that has the next item and keeps the last one
        if not busy and (self.settled or self._is_enough()):
            return
        key = self._key(item) if self._by_value else id(item)
        span: Any = before.get(_SPAN_KEY)
        if span is not None:
            span = span.get_span_context()
        loan = Loan(self, key, item, context, span, busy=busy)
        if span is not None:
            _keep(self._by_key, key, loan)
            if context:
                if self._lacked:
                    self._spans.pop(span.span_id, None)
            elif busy:
                self._lacked = True
                if not self._spans.get(span.span_id):
                    _keep(self._spans, span.span_id, True)
            else:
                if self._lacked:
                    self._spans.pop(span.span_id, None)
                self.lent = True
        if self._asked:
            self._note(loan)
        else:
            self.noted = True
            _taken.set((loan, *taken[: _MOST_OF_A_FLOW - 1]))

    def _is_enough_of_busy_flows(self) -> bool:
        if self.things:
            return False
        noted = list(self._by_key.values())
        enough = self._handed >= _MOST_OF_A_POOL
        # Of a pool whose things are all taken all are held, of work only what is in progress.
        if enough and sum(loan.is_held for loan in noted) == _MOST_OF_A_QUEUE:
            return False
        if enough or all(loan.is_gone for loan in noted):
            self.settled = True
            self._handed, self.to_pass = _MOST_OF_A_POOL - _MOST_OF_A_QUEUE, _TO_PASS
        return self.settled

    def _is_enough(self) -> bool:
        self._kept += 1
        if self._kept % self._enough == 0 and not self.things:
            held = self._by_key and any(loan.is_held for loan in list(self._by_key.values()))
            self.settled = not held
        return self.settled

    def asked_in_vain(self, *, busy: bool) -> None:
        """Note that the present flow has found nothing, and goes on: it may make what it needs.

        It is ``busy`` in a span of its own, or in one that it was handed.
        """
        span = _span(get_current())
        if self.settled or span is None:
            return
        if any(loan.loans is self and not loan.is_new for loan in _taken.get()):
            return  # it has taken work
        if busy and span.span_id not in self._spans:
            _keep(self._spans, span.span_id, False)
        self._lacked = True
        self._asked = True
        self._note(Loan(self, None, None, None, span, busy=True, in_vain=True))

    def _note(self, loan: Loan) -> None:
        """Note ``loan``, and forget that the flow has asked in vain."""
        self.noted = True
        others = (one for one in _taken.get() if one.loans is not self or one.key is not None)
        _taken.set((loan, *others)[:_MOST_OF_A_FLOW])

    # Putting.

    def kept_with(self, item: object, current: Context | None) -> Context | None:
        """Return the context to put ``item`` with, where ``current`` is current."""
        if not self.noted or self.settled:
            if current and self.has_given:
                self._begin(item)
            return current
        key = self._key(item) if self._by_value else id(item)
        mine = False
        for loan in _taken.get():
            if loan.loans is self:
                mine = mine or not loan.in_vain
                if loan.key == key and loan.is_of(key, item):
                    return self._came_back_to_its_place(loan, current)
        other = self._by_key.get(key)
        if other is not None and not other.is_of(key, item):
            other = None
        if current and (self._lacked or other is not None):
            span = _span(current)
            if span is not None:
                if other is not None and other.trace == span.trace_id:
                    if other.is_new or (other.busy and other.came_from() != other.trace):
                        self._came_back(other)
                        return None
                    return current  # the flow that put it may put it again
                if span.span_id in self._spans or self._is_lacking(span.trace_id):
                    # Who looks whether there is an item, and puts one, may hand work on after all:
                    # what others take, and do not put back, shows that in the end.
                    if mine or self._spans.get(span.span_id):
                        self._kept = self._handed = 0
                    return None
        if mine:
            self._kept = 0  # it may be what was taken, in a wrapper of its own
        elif current and self.has_given:
            self._begin(item)
        return current

    def _is_lacking(self, trace: int) -> bool:
        """Whether the present flow, in this trace, has found nothing, or nothing in a context."""
        return any(
            loan.loans is self and loan.busy and loan.is_new and loan.trace == trace
            for loan in _taken.get()
        )

    def _came_back_to_its_place(self, loan: Loan, current: Context | None) -> Context | None:
        """Return the context to put again what the present flow has taken out."""
        self._came_back(loan)
        if loan.is_new:
            self._returned += 1
        if not loan.busy:
            return loan.came_with_again(current)
        if loan.came_from() == loan.trace:
            _keep(self.things, loan.trace, None)  # the flow that filled the pool uses it
        return None

    def _came_back(self, loan: Loan) -> None:
        self._kept, self._handed, self._enough = 0, 0, _SETTLED_AFTER
        self._by_key.pop(loan.key, None)
        _taken.set(tuple(one for one in _taken.get() if one is not loan))

    def _begin(self, item: object) -> None:
        """Note that ``item`` is the first that is put in a context, after others were taken out."""
        self.has_given = False
        if adopted.get() is None:
            self.first = Loan(self, self._key(item), item, None)
            _put_first.set(self)


def _contents(item: object) -> object:
    """Return what tells ``item`` from most that take its place in memory; no code of its runs."""
    kind = type(item)
    if kind in _VALUES:
        return hash(item)
    for base in _SEQUENCES:
        if issubclass(kind, base):
            parts = base.__getitem__(item, slice(_MOST_OF_A_FLOW))
            return tuple(hash(one) if type(one) in _VALUES else id(one) for one in parts)
    value = next((base.__hash__(item) for base in _VALUES if issubclass(kind, base)), None)
    return members.of(item) if value is None else value


def _span(context: Context) -> Any:
    """Return what the span of ``context`` is known by; None where there is none."""
    span: Any = context.get(_SPAN_KEY)
    if span is None:
        return None
    found = span.get_span_context()
    return found if found.is_valid else None


def _keep(table: dict[Any, Any], key: object, value: object) -> None:
    """Put something at the end of a table that does not grow without limit."""
    table.pop(key, None)
    while len(table) >= _MOST_OF_A_QUEUE:
        table.pop(next(iter(table)), None)
    table[key] = value
