"""When a consumer adopts the context of an item, and when it lets go of it again.

Nothing marks the end of the work on an item from ``get()``, so the rule is conservative. A flow
adopts an item's context only if no span of its own is running. It returns to its idle context (the
one in which it asked for the item) before it waits for another item, and when it calls
``task_done()``. Returning is no detach: it compares contexts, and does nothing if another context
was attached since.

Nearly all of the cost is setting context variables. So a flow's record is written only if it
changes, and a consumer whose next item already waits goes straight from one context to the next.
"""

from __future__ import annotations

import functools
from _thread import get_ident
from collections.abc import Callable
from typing import Any
from weakref import ref

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace.propagation import (
    _SPAN_KEY,  # pyright: ignore[reportPrivateUsage]  # a third of trace.get_current_span's cost
)

from otel_concurrency._core import compiled, handoff
from otel_concurrency._core.handoff import (
    BEGUN,
    FRESH,
    NO_CONTEXT,
    SEVERAL,
    TOLD,
    TOLD_SEVERAL,
    Record,
    Seam,
    adopted,
    attach,
    bodies,
    capture_nothing,
    get_current,
)
from otel_concurrency._items.loans import Loans
from otel_concurrency._linking import batches, origins

ABSTAINS: Record = [ref(Context()), Context(), (), BEGUN, None]
"""A record that marks a flow which adopts nothing, since it gets items for library code."""

_DEEPEST = 8
"""How many adopted contexts with another context on top of them are remembered at most."""


def _unknown() -> object:
    """Stand for the reference to a context that is not known; what it returns is no context."""
    return _unknown


def _adopt(context: Context | None) -> bool | None:
    """Make ``context`` current until :func:`let_go`, unless a span of the flow's own is running.

    Return True where one is. ``context`` is None for an item that was put without a context. If no
    span was started for the item before, the two are a batch. May raise.
    """
    current = get_current()
    record = adopted.get()
    buried: Any
    try:
        if record is None:
            if current and is_busy(current):
                return True
            together, stage, idle, buried = False, FRESH, current, ()
        elif record[0]() is current:
            if context is current:
                record[3] = SEVERAL
                return None
            _, idle, buried, so_far, earlier = record
            if earlier is not None:
                known = earlier.find(id(context), _unknown)
                if known() is context:
                    adopted.set([known, idle, buried, SEVERAL, earlier])
                    attach(context)  # pyright: ignore[reportArgumentType]  # one that was found
                    return None
            # What is called in the place of a part of other work is no part of that.
            together, stage = so_far <= FRESH and current is not bodies.get(get_ident()), FRESH
        elif current is record[1]:  # the flow has let go since, and is in its idle context
            if context and context is record[0]():
                attach(context)
                record[3] = FRESH
                return None
            together, stage, idle, buried = False, FRESH, current, record[2]
        else:
            together, stage = False, FRESH
            found = _dig(record, current)
            if found is not None:
                idle, buried = found[1], found[2]
            elif record is ABSTAINS:
                return None
            elif current and is_busy(current):
                return True
            else:
                idle, buried = current, _bury(record)
        if idle and context is not idle and _is_strangers(context, idle):
            idle = NO_CONTEXT
            buried = tuple((below, NO_CONTEXT) for below, _ in buried)
            if not context and record is not None:
                adopted.set(None)
        if together and record is not None:
            _adopt_together(record[4], current, context, idle, buried)
            return None
        if not context:
            if not idle:
                if current is not idle:
                    attach(idle)
                return None
            # One that is current nowhere else. Where no span is noted, nothing is a batch.
            context, stage = Context(), BEGUN
        handoff.any_adopted = True
        adopted.set([ref(context), idle, buried, stage, None])
        attach(context)
    except Exception:
        if get_current() is current:  # the flow is still in what its record says that it has
            adopted.set(record)
        raise
    return None


_batch: Any = batches.Together

adopt = (
    _adopt
    if compiled.functions is None
    else compiled.functions.adopt_or(_adopt, _SPAN_KEY, trace.INVALID_SPAN, _batch.known)
)


def _adopt_together(
    together: batches.Together | None,
    current: Context,
    context: Context | None,
    idle: Context,
    buried: Any,
) -> None:
    """Adopt the ``context`` of one more item, which may belong to a batch. May raise.

    Whether it does is known when the flow starts its next span. Until then the context of the last
    item is current, since a program may have a task of its own for each item.
    """
    if together is None or not together.is_here():
        together = batches.Together(current)
    context = context or Context()  # one that is current nowhere else
    together.add(current, context)
    adopted.set([ref(context), idle, buried, SEVERAL, together])
    attach(context)


def _is_strangers(context: Context | None, idle: Context) -> bool:
    """Whether an item's ``context`` belongs to another trace than the flow's ``idle`` context.

    An item without a context counts, too. A flow that handles such an item has become a worker.
    From then on, what it does between items belongs to no trace. An idle context that belongs to no
    trace and that the flow has attached itself, such as one with baggage only, is kept.
    """
    trace = origins.trace_of(idle)
    if trace is None:
        return idle is bodies.get(get_ident())
    return not context or origins.trace_of(context) != trace


def is_busy(current: Context) -> bool:
    """Whether the flow has a current span of its own that is not known to have ended."""
    if current is bodies.get(get_ident()):
        return False  # the whole context was handed to the flow with its work
    span: Any = current.get(_SPAN_KEY)
    return span is not None and span is not trace.INVALID_SPAN and not _has_ended(span)


def _is_in_progress(current: Context) -> bool:
    """Whether what a flow was started in may go on still. After that, the flow has lived on."""
    return bool(current) and not _has_ended(current.get(_SPAN_KEY))


def _has_ended(span: Any) -> bool:
    # `origins.END`, which this library also sets on spans that are not sampled.
    ended = getattr(span, "_end_time", _MISSING)
    if ended is _MISSING:
        ended = getattr(span, "end_time", None)
    return ended is not None


_MISSING = object()


def _dig(record: Record, current: Context) -> Record | None:
    """Return the record as it was when ``current`` was adopted, without what came on top of it.

    None if ``current`` is not in the record.
    """
    for depth, (context, idle) in enumerate(record[2]):
        if context() is current:
            return [context, idle, record[2][depth + 1 :], BEGUN, None]
    return None


def _bury(record: Record) -> tuple[tuple[ref[Context], Context], ...]:
    """Return the adopted contexts of ``record`` that may become current again by a detach.

    They are still alive, and another context was attached on top of them.
    """
    newest = record[0]()
    layers = [] if newest is None else [(record[0], record[1])]
    for layer in record[2]:
        context = layer[0]()
        if context is not None and context is not newest:
            layers.append(layer)
    return tuple(layers[:_DEEPEST])


def let_go() -> None:
    """Return to the idle context if the last item's context is still current. Never raises."""
    record = adopted.get()
    if record is None or record is ABSTAINS:
        return
    try:
        current = get_current()
        if record[0]() is not current:
            found = _dig(record, current)
            if found is None:
                # Another context is on top, such as a span of the work. The adopted context becomes
                # current again when that one is detached.
                return
            record = found
        attach(record[1])
        handoff.pop(record)
    except Exception as error:
        handoff.report_fault("let go of an item", error)


def cannot_tell(error: Exception) -> None:
    """Report a fault in handing over the item that this flow has just got. Never raises.

    Nothing is known of that item, so it is not handled in the context of the last one. Call this
    from the ``except`` block.
    """
    let_go()
    handoff.report_fault("get", error)


def ask(is_empty: Callable[..., object], *queue: Any) -> None:
    """Note that the flow asks for an item. Never raises.

    It lets go of the last one, unless it has started no span for that and does not have to wait: if
    not ``is_empty(*queue)``, the items are a batch.
    """
    record = adopted.get()
    if record is None:
        return
    try:
        if record[3] <= FRESH and record[0]() is get_current() and not is_empty(*queue):
            return
    except Exception as error:
        handoff.report_fault("get", error)
    let_go()


def found_none() -> None:
    """Note that a consumer that does not wait has found no other item. Never raises.

    It lets go if it has started a span for those that it has, or was told before. Otherwise these
    are a batch, and what they have in common becomes current.
    """
    record = adopted.get()
    if record is None or record is ABSTAINS:
        return
    try:
        current = get_current()
        if record[0]() is current and record[3] in (FRESH, SEVERAL):
            together: batches.Together | None = record[4]
            if together is None or not together.is_here():
                record[3] = TOLD if record[3] == FRESH else TOLD_SEVERAL
                return
            merged = together.merged(current)
            adopted.set([ref(merged), record[1], record[2], TOLD_SEVERAL, None])
            attach(merged)
            return
    except Exception as error:
        handoff.report_fault("get", error)
    let_go()


def set_aside() -> tuple[Record, Context] | None:
    """Let go before a wait of unknown length; return what :func:`take_up` needs. Never raises.

    None if there is nothing to take up: a span was started for the last item.
    """
    record = adopted.get()
    if record is None or record is ABSTAINS:
        return None
    aside = None
    try:
        current = get_current()
        if record[3] <= FRESH and record[0]() is current:
            aside = record, current
    except Exception as error:
        handoff.report_fault("get", error)
    let_go()
    return aside


def take_up(aside: tuple[Record, Context] | None) -> None:
    """Adopt again what was set aside, so that it is one batch with what the flow has got now.

    May raise.
    """
    if aside is not None:
        record, context = aside
        if get_current() is record[1]:
            attach(context)
            adopted.set(record)


def is_batch() -> bool:
    """Whether the flow has several items, and has started no span for them. Never raises."""
    try:
        record = adopted.get()
        return record is not None and record[3] in (SEVERAL, TOLD_SEVERAL)
    except Exception as error:
        handoff.report_fault("get", error)
        return False


def hand_over(
    seam: Seam, context: Context | None, item: object = None, loans: Loans | None = None
) -> None:
    """Have the present flow adopt ``context``, of an ``item`` that it has just got.

    The policy of ``seam`` is applied first. ``context`` is None for an item that was put without a
    context. ``loans`` are those of the item's queue, if they are noted. May raise.
    """
    arrive(seam, seam.changed(context), item, loans)


def arrive(
    seam: Seam, context: Context | None, item: object = None, loans: Loans | None = None
) -> None:
    """Adopt ``context``, to which the policy was applied; let go if ``seam`` is off. May raise."""
    if seam.capture is capture_nothing:
        let_go()
    elif loans is not None:
        if context and loans.settled and loans.first is None:
            if not adopt(context):
                return
            if loans.to_pass:
                loans.to_pass -= 1
            else:
                loans.took(item, context, get_current(), busy=True)
            return
        if loans.first is not None or loans.things:
            context = loans.due(item, context)
        before, record = get_current(), adopted.get()
        has_item = bool(before) and record is not None and record[0]() is before
        if not context and loans.lends and (has_item or _is_in_progress(before)):
            busy = not has_item and is_busy(before)  # a thing changes nothing
        else:
            busy = bool(adopt(context))
        if has_item and record is not None and not busy:
            before = record[1]
        loans.took(item, context, before, busy=busy)
    elif context or get_current():
        adopt(context)


def end_in(context: Context) -> None:
    """Forget the adoption whose idle context is ``context``, which this flow has just detached."""
    record = adopted.get()
    if record is not None and record[1] is context:
        handoff.pop(record)


def asked_in_vain(loans: Loans) -> None:
    """Note that the present flow has found nothing in the queue of ``loans``. May raise."""
    current, record = get_current(), adopted.get()
    if current:
        has_item = record is not None and record[0]() is current
        loans.asked_in_vain(busy=not has_item and is_busy(current))


def abstaining(function: Any) -> Any:
    """Wrap a function so that items which it gets or finishes change no flow's context."""

    @functools.wraps(function)
    def abstains(*args: Any, **kwargs: Any) -> Any:
        token = adopted.set(ABSTAINS)
        try:
            return function(*args, **kwargs)
        finally:
            adopted.reset(token)

    return abstains
