"""When a consumer adopts the context of an item, and when it lets go of it again.

``get()`` has no natural end, so the rule is conservative. A flow adopts only where it has nothing
of its own going, and goes back to its idle context (the one in which it asked for the item) before
it waits for another, and when it says that it is done. Going back is no detach: it compares, and
does nothing where somebody else has attached since.

Setting a context variable is what all of this costs, so the flow's record is written only where it
changes, and a consumer that finds its next item waiting goes from one context straight to the next.
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
from otel_concurrency._linking import origins

ABSTAINS: Record = (ref(Context()), Context(), ())
"""In place of a record: this flow adopts nothing, since it gets items for the standard library."""

_DEEPEST = 8
"""How many adopted contexts are kept in mind that others have been attached over."""


def adopt(context: Context | None) -> None:
    """Make ``context`` current until :func:`let_go`, unless the flow has something of its own.

    None is the context of an item that was put without one. May raise.
    """
    current = idle = get_current()
    record = adopted.get()
    buried: Any = ()
    if record is None:
        if current and _is_busy(current):
            return
    elif current is record[1]:  # it has let go a moment ago
        if context and context is record[0]():
            attach(context)
            return
        buried = record[2]
    elif record[0]() is current:
        if context is current:
            return
        _, idle, buried = record
    else:
        found = _dig(record, current)
        if found is not None:
            _, idle, buried = found
        elif record is ABSTAINS or (current and _is_busy(current)):
            return
        else:
            buried = _bury(record)
    if idle and context is not idle and _is_strangers(context, idle):
        idle = NO_CONTEXT
        buried = tuple((below, NO_CONTEXT) for below, _ in buried)
        if not context and record is not None:
            adopted.set(None)
    if not context:
        if not idle:
            if current is not idle:
                attach(idle)
            return
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


def _is_strangers(context: Context | None, idle: Context) -> bool:
    """Whether an item's ``context`` has nothing to do with ``idle``, which its flow was started in.

    A flow that handles such an item has become a worker: what it does between items belongs to no
    trace from then on. What a flow has attached by itself without a span, baggage say, is its own.
    """
    trace = origins.trace_of(idle)
    if trace is None:
        return idle is bodies.get(get_ident())
    return not context or origins.trace_of(context) != trace


def _is_busy(current: Context) -> bool:
    """Whether a flow has something of its own going: a span that is not known to have ended."""
    if current is bodies.get(get_ident()):
        return False  # all that it has was handed to it
    span: Any = current.get(_SPAN_KEY)
    if span is None or span is trace.INVALID_SPAN:
        return False
    ended = getattr(span, "_end_time", None)  # as `_links.END`: also of one that is not sampled
    return ended is None and getattr(span, "end_time", None) is None


def _dig(record: Record, current: Context) -> Record | None:
    """Return what was the record when ``current`` was adopted: all on top of it is gone."""
    for depth, (context, idle) in enumerate(record[2]):
        if context() is current:
            return context, idle, record[2][depth + 1 :]
    return None


def _bury(record: Record) -> tuple[tuple[ref[Context], Context], ...]:
    """Return what may come back when what has been attached over ``record`` is detached."""
    layers = (record[:2], *record[2])
    return tuple(layer for layer in layers if layer[0]() is not None)[:_DEEPEST]


def let_go() -> None:
    """Go back to the idle context if the flow still is where its last item put it."""
    record = adopted.get()
    if record is None or record is ABSTAINS:
        return
    try:
        current = get_current()
        if record[0]() is not current:
            found = _dig(record, current)
            if found is None:
                return  # buried, by a span of the work say, and comes back with the end of that
            record = found
        attach(record[1])
        adopted.set((*record[2][0], record[2][1:]) if record[2] else None)
    except Exception as error:
        handoff.report("let go of an item", error)


def hand_over(seam: Seam, context: Context | None) -> None:
    """Hand an item that the present flow has just got over to it, with the item's ``context``.

    None is that of an item that was put without one. May raise.
    """
    arrive(seam, seam.changed(context))


def arrive(seam: Seam, context: Context | None) -> None:
    """Adopt ``context``, which is as the policy has it; let go where ``seam`` is off. May raise."""
    if seam.capture is capture_nothing:
        let_go()
    elif context or get_current():
        adopt(context)


def end_in(context: Context) -> None:
    """Forget what this flow has adopted directly in ``context``, which it has just detached."""
    record = adopted.get()
    if record is not None and record[1] is context:
        adopted.set((*record[2][0], record[2][1:]) if record[2] else None)


def abstaining(function: Any) -> Any:
    """Wrap a function of which neither the items that it gets nor their ends are anybody's work."""

    @functools.wraps(function)
    def abstains(*args: Any, **kwargs: Any) -> Any:
        token = adopted.set(ABSTAINS)
        try:
            return function(*args, **kwargs)
        finally:
            adopted.reset(token)

    return abstains
