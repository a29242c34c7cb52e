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
from typing import Any
from weakref import ref

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace.propagation import (
    _SPAN_KEY,  # pyright: ignore[reportPrivateUsage]  # a third of trace.get_current_span's cost
)

from otel_concurrency._core import handoff
from otel_concurrency._core.handoff import (
    NO_CONTEXT,
    Record,
    Seam,
    adopted,
    attach,
    bodies,
    capture_nothing,
    get_current,
)
from otel_concurrency._items.loans import Loans
from otel_concurrency._linking import origins

ABSTAINS: Record = (ref(Context()), Context(), ())
"""A record that marks a flow which adopts nothing, since it gets items for library code."""

_DEEPEST = 8
"""How many adopted contexts with another context on top of them are remembered at most."""


def adopt(context: Context | None) -> bool | None:
    """Make ``context`` current until :func:`let_go`, unless a span of the flow's own is running.

    Return True where one is. ``context`` is None for an item that was put without a context. May
    raise.
    """
    current = get_current()
    record = adopted.get()
    buried: Any
    if record is None:
        if current and is_busy(current):
            return True
        idle, buried = current, ()
    elif current is record[1]:  # the flow has let go since, and is in its idle context
        if context and context is record[0]():
            attach(context)
            return None
        idle, buried = current, record[2]
    elif record[0]() is current:
        if context is current:
            return None
        _, idle, buried = record
    else:
        found = _dig(record, current)
        if found is not None:
            _, idle, buried = found
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
    if not context:
        if not idle:
            if current is not idle:
                attach(idle)
            return None
        context = NO_CONTEXT
    if (
        record is None
        or record[0]() is not context
        or record[1] is not idle
        or record[2] is not buried
    ):
        handoff.any_adopted = True
        adopted.set((ref(context), idle, buried))
    attach(context)
    return None


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
    if span is None or span is trace.INVALID_SPAN:
        return False
    # `origins.END`, which this library also sets on spans that are not sampled.
    ended = getattr(span, "_end_time", None)
    return ended is None and getattr(span, "end_time", None) is None


def _dig(record: Record, current: Context) -> Record | None:
    """Return the record as it was when ``current`` was adopted, without what came on top of it.

    None if ``current`` is not in the record.
    """
    for depth, (context, idle) in enumerate(record[2]):
        if context() is current:
            return context, idle, record[2][depth + 1 :]
    return None


def _bury(record: Record) -> tuple[tuple[ref[Context], Context], ...]:
    """Return the adopted contexts of ``record`` that may become current again by a detach.

    They are still alive, and another context was attached on top of them.
    """
    layers = (record[:2], *record[2])
    return tuple(layer for layer in layers if layer[0]() is not None)[:_DEEPEST]


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
        adopted.set((*record[2][0], record[2][1:]) if record[2] else None)
    except Exception as error:
        handoff.report_fault("let go of an item", error)


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
        context = loans.due(item, context)
        before = get_current()
        if before:
            record = adopted.get()
            if record is not None and record[0]() is before:
                before = record[1]
        loans.took(item, context, before, busy=adopt(context) is True)
    elif context or get_current():
        adopt(context)


def end_in(context: Context) -> None:
    """Forget the adoption whose idle context is ``context``, which this flow has just detached."""
    record = adopted.get()
    if record is not None and record[1] is context:
        adopted.set((*record[2][0], record[2][1:]) if record[2] else None)


def asked_in_vain(loans: Loans) -> None:
    """Note that the present flow has found nothing in the queue of ``loans``. May raise."""
    current = get_current()
    if current:
        loans.asked_in_vain(busy=is_busy(current))


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
