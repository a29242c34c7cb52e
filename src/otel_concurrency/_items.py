"""When a consumer adopts the context of an item, and when it lets go of it again.

``get()`` has no natural end, so the rule is conservative. A flow adopts only where it has nothing
of its own going, and goes back to its idle context (the one in which it asked for the item) before
it waits for another, and when it says that it is done. Going back is no detach: it compares, and
does nothing where somebody else has attached since.

Setting a context variable is what all of this costs, so the flow's record is written only where it
changes, and a consumer that finds its next item waiting goes from one context straight to the next.
"""

from __future__ import annotations

from _thread import get_ident
from contextvars import ContextVar
from typing import Any

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace.propagation import (
    _SPAN_KEY,  # pyright: ignore[reportPrivateUsage]  # a third of trace.get_current_span's cost
)

from otel_concurrency import _handoff
from otel_concurrency._handoff import NO_CONTEXT, attach, bodies, get_current

adopted: ContextVar[tuple[Context, Context] | None] = ContextVar(
    "otel_concurrency_adopted", default=None
)
"""The context that this flow has adopted last and may still be in, and its idle context."""

ABSTAINS = (Context(), Context())
"""In place of a record: this flow adopts nothing, since it gets items for the standard library."""


def adopt(context: Context | None) -> None:
    """Make ``context`` current until :func:`let_go`, unless the flow has something of its own.

    None is the context of an item that was put without one. May raise.
    """
    current = idle = get_current()
    record = adopted.get()
    if record is not None and current is record[0]:
        if context is current:
            return
        idle = record[1]
    elif record is ABSTAINS or (current and _is_busy(current)):
        return
    if not context:
        if not idle:
            if record is not None:
                adopted.set(None)
            if current:
                attach(idle)
            return
        context = NO_CONTEXT
    if record is None or record[0] is not context or record[1] is not idle:
        adopted.set((context, idle))
    attach(context)


def _is_busy(current: Context) -> bool:
    """Whether a flow has something of its own going: a span that is not known to have ended."""
    if current is bodies.get(get_ident()):
        return False  # all that it has was handed to it
    span: Any = current.get(_SPAN_KEY)
    if span is None or span is trace.INVALID_SPAN:
        return False
    return getattr(span, "end_time", None) is None


def let_go() -> None:
    """Go back to the idle context if the flow still is where its last item put it."""
    record = adopted.get()
    if record is None or record is ABSTAINS:
        return
    try:
        current = get_current()
        if current is record[0]:
            attach(record[1])
        elif current and current is not record[1]:
            return  # buried, by a span of the work say, and comes back with the end of that
        adopted.set(None)
    except Exception as error:
        _handoff.report("let go of an item", error)


def flow() -> tuple[Context, tuple[Context, Context] | None] | None:
    """Return where the flow is, for :func:`go_back`; None after a reported fault."""
    try:
        return get_current(), adopted.get()
    except Exception as error:
        _handoff.report("get_current", error)
        return None


def go_back(flow: tuple[Context, tuple[Context, Context] | None] | None) -> None:
    """Undo what was adopted and let go of since ``flow``, by who only helped himself to an item."""
    record = adopted.get()
    if flow is None or record is flow[1]:
        return
    try:
        if record is None or get_current() is record[0]:
            attach(flow[0])
            adopted.set(flow[1])
    except Exception as error:
        _handoff.report("go back", error)
