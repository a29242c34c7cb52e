"""Work that re-arms itself: a timer, or a scheduled action, that is started again by its own run.

Each run is a *round*, and a trace of its own, with a link to the round before. A round is known by
the thread that it runs on. The next one carries it instead of a link: many work re-arm first and
work then, so which span to link to is known when the next round starts its first one.
"""

from __future__ import annotations

import os
from _thread import get_ident
from collections.abc import Iterable, Mapping
from functools import partial
from types import FunctionType
from typing import Any, NamedTuple, Protocol

from opentelemetry.context import Context
from opentelemetry.trace import Link, get_current_span

from otel_concurrency._core import handoff
from otel_concurrency._core.handoff import NO_CONTEXT, Seam
from otel_concurrency._linking import origins
from otel_concurrency._linking.origins import Links


class Job(NamedTuple):
    """What is armed: a function, and what it is to be called with."""

    function: Any
    args: Iterable[Any] = ()
    kwargs: Mapping[str, Any] = {}


class Round:
    """One run of a job; knows the first span that was started in it."""

    __slots__ = ("_before", "_link", "job", "over", "primitive")

    def __init__(self, job: Job, primitive: str) -> None:
        self.job: Job | None = job
        self.primitive = primitive
        self.over = False
        self._link: Link | None = None
        self._before: Links | Round = ()

    def links(self) -> Links:
        """Return a link to the round, or, where it made no span, to what was before it."""
        if self._link is not None:
            return (self._link,)
        before = self._before
        return before.links() if isinstance(before, Round) else before

    def learn(self, span: Any, parent: Any) -> None:
        """Note the first span that was started in it.

        It is no placeholder, as of a disabled tracer, and belongs to no other process's trace.
        """
        if self._link is not None:
            return
        context = span.get_span_context()
        above = None if parent is None else parent.get_span_context()
        if above is None or not (above.is_remote or context is above):
            self._link = origins.link_to(context, self.primitive, "periodic")
            if self._link is not None:
                self._before = ()

    def armed_in(self, context: Context) -> None:
        """Remember what was before it: the one to link to if no span is started any more."""
        if self._link is not None:
            return
        span = get_current_span(context).get_span_context()
        link = origins.link_to(span, self.primitive, "periodic")
        before = origins.origin_of(context)
        if link is not None:
            self._before = (link,)
        elif isinstance(before, Round) and not before.over:
            self._before = before
        else:
            self._before = origins.pending(context)

    def end(self) -> None:
        """Note that it is over. It keeps nothing alive: rounds without spans would be a chain."""
        self.over = True
        self.job = None
        self._before = () if self._link is not None else self.links()


class Unasked(Protocol):
    """What stands for a round until it is needed."""

    def _begin_round(self) -> Round | None: ...


running: dict[int, Round | Unasked] = {}
"""By thread: the round that runs on it, if what runs there may arm itself again."""

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=running.clear)


def current() -> Round | None:
    """Return the round that runs on this thread."""
    thread = get_ident()
    found = running.get(thread)
    if found is None or isinstance(found, Round):
        return found
    begun = found._begin_round()  # pyright: ignore[reportPrivateUsage]
    if begun is not None:
        running[thread] = begun
    return begun


def begin(thread: int, job: Job, primitive: str) -> None:
    """Have a round of ``job`` run on ``thread``, the present one, until :func:`end`. Never raises.

    The caller keeps the number: a thread may have another one by its end (gevent's).
    """
    try:
        running[thread] = Round(job, primitive)
    except Exception as error:
        handoff.report("begin a round", error)


def end(thread: int) -> None:
    """Note that what runs on ``thread`` is over. Never raises."""
    try:
        last = running.pop(thread, None)
        if isinstance(last, Round):
            last.end()
    except Exception as error:
        handoff.report("end a round", error)


def learn(span: Any, parent: Any) -> None:
    """Tell the round that runs on this thread, if any, of a span that was started in it."""
    try:
        found = current()
        if found is not None:
            found.learn(span, parent)
    except Exception as error:
        handoff.report("start_span", error)


def repeated(job: Job) -> Round | None:
    """Return the round that runs on this thread if it is one of the same ``job``."""
    found = current()
    if found is None or found.job is None or job.function is None:
        return None
    try:
        return found if _is_same(found.job, job) else None
    except Exception:  # theirs: a comparison, or a loop of closures
        return None


def following(before: Round, seam: Seam, work: object, captured: Context | None) -> Context | None:
    """Return the context for ``work``, the round that comes after ``before``.

    ``captured`` is what would be handed on to it otherwise.
    """
    if captured is NO_CONTEXT:
        return captured
    if captured is None and seam.starts_clean is not None and seam.starts_clean(work):
        return None
    here = handoff.get_current()
    before.armed_in(here)
    return origins.without_span(here, before)


def _is_same(one: Job, other: Job, depth: int = 0) -> bool:
    """Whether two jobs are one, also if made anew for every round.

    A helper that runs any job (``lambda: job()``, ``partial(run, job)``, ``run`` with ``job`` as
    its argument) is another one for each.
    """
    return _is_alike(one.function, other.function, depth) and _are_alike(
        _callables(one.args, one.kwargs), _callables(other.args, other.kwargs), depth
    )


def _is_alike(one: Any, other: Any, depth: int) -> bool:
    if one is other or depth > _DEEPEST:
        return True
    if isinstance(one, _PARTIAL) and isinstance(other, _PARTIAL):
        return _is_same(_partial_job(one), _partial_job(other), depth + 1)
    if type(one) is FunctionType and type(other) is FunctionType:
        return one.__code__ is other.__code__ and _are_alike(
            _what_matters_of(one), _what_matters_of(other), depth + 1
        )
    return bool(one == other)


_DEEPEST = 4
"""Of closures in closures: one may refer to itself."""

_PARTIAL: Any = partial


def _partial_job(work: Any) -> Job:
    return Job(work.func, work.args, work.keywords)


def _are_alike(some: list[Any], others: list[Any], depth: int) -> bool:
    return len(some) == len(others) and all(
        _is_alike(one, other, depth) for one, other in zip(some, others, strict=True)
    )


def _callables(args: Iterable[Any], kwargs: Mapping[str, Any]) -> list[Any]:
    return [value for value in (*args, *kwargs.values()) if callable(value)]


def _what_matters_of(function: FunctionType) -> list[Any]:
    """Return the callables that a closure refers to, and whose method it stands in."""
    found: list[Any] = []
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            value = cell.cell_contents
        except ValueError:  # it is empty, as that of a name after its ``except`` clause
            continue
        if name == "self" or callable(value):
            found.append(value)
    return found
