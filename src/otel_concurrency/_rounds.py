"""Work that re-arms itself: a timer, or a scheduled action, that is started again by its own run.

Each run is a *round*, and a trace of its own, with a link to the round before. A round is known by
the thread that it runs on. The next one carries it instead of a link: many work re-arm first and
work then, so which span to link to is known when the next round starts its first one.
"""

from __future__ import annotations

import os
from _thread import get_ident
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

from opentelemetry.context import Context
from opentelemetry.trace import Link, SpanContext, get_current_span

from otel_concurrency import _handoff, _links
from otel_concurrency._handoff import NO_CONTEXT, Seam


class Runner(Protocol):
    """What runs rounds, one after the other, on one thread."""

    def current(self) -> Round | None:
        """Return the round that runs at present."""

    def end(self) -> None:
        """Note that it is over."""


running: dict[int, Runner] = {}
"""By thread: what runs work on it that may re-arm itself."""

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=running.clear)


class Round:
    """One run of ``function``; knows the first span that was started in it, not what it ran in."""

    __slots__ = ("_before", "function", "over", "primitive", "span")

    def __init__(self, function: Any, primitive: str) -> None:
        self.function = function
        self.primitive = primitive
        self.span: SpanContext | None = None
        self.over = False
        self._before: Link | _links.Origin | None = None

    def current(self) -> Round:
        """Return itself: a thread that runs nothing else."""
        return self

    def end(self) -> None:
        """Note that it is over, and nothing is to be kept alive by it."""
        self.over = True
        self.function = None

    def link(self) -> Link | None:
        """Return a link to the round, or, where it made no span, to what was before it."""
        if self.span is not None:
            return _links.link_to(self.span, self.primitive, "periodic")
        before = self._before
        return before if before is None or isinstance(before, Link) else before.link()

    def armed_in(self, context: Context) -> None:
        """Remember what was before it: the one to link to if no span is started any more."""
        if self.span is not None:
            return
        span = get_current_span(context).get_span_context()
        before = (
            _links.link_to(span, self.primitive, "periodic")
            if span.is_valid
            else _links.origin_of(context)
        )
        if isinstance(before, Round) and before.over:
            before = before.link()  # else rounds without any span were a chain without an end
        self._before = before


def learn(span: Any) -> None:
    """Tell the round that runs on this thread, if any, of a span that was started in it."""
    try:
        runner = running.get(get_ident())
        current = None if runner is None else runner.current()
        if current is not None and current.span is None:
            current.span = span.get_span_context()
    except Exception as error:
        _handoff.report("start_span", error)


def following(seam: Seam, work: object, function: Any, context: Context | None) -> Context | None:
    """Return the context for ``work`` that was captured, or for the next round of what runs here.

    ``function`` is what ``work`` (a thread or a callable) will call.
    """
    runner = running.get(get_ident())
    current = None if runner is None else runner.current()
    if current is None or function is None or not _is_same(current.function, function):
        return context
    if context is None:
        context = NO_CONTEXT
        if seam.starts_clean is not None and seam.starts_clean(work):
            return None
    elif context is NO_CONTEXT:
        return context
    here = _handoff.get_current()
    current.armed_in(here)
    return _links.without_span(here, current)


def _is_same(one: Any, other: Any) -> bool:
    """Whether two callables are one function, also if made anew for every round."""
    one, other = _function(one), _function(other)
    if one is other or one == other:
        return True
    code = getattr(one, "__code__", None)
    return (
        code is not None
        and code is getattr(other, "__code__", None)
        and _callables(one) == _callables(other)
    )


def _function(work: Any) -> Any:
    while isinstance(work, partial):
        work = work.func
    return work


def _callables(function: Any) -> list[Callable[..., Any]]:
    """Return what a closure calls: a helper's ``lambda: job()`` is another one for each job."""
    return [
        cell.cell_contents
        for cell in getattr(function, "__closure__", None) or ()
        if callable(cell.cell_contents)
    ]
