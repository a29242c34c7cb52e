"""Work that arms itself again, such as a timer or a scheduled action that its own run restarts.

Each run is a *round*. It is a separate trace with a link to the round before. A running round is
found by its thread. The context of the next round carries the round before and not yet a link: many
jobs arm themselves first and do their work then, so the span to link to is known only when the next
round starts its first span.
"""

from __future__ import annotations

import os
from _thread import get_ident
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from types import FunctionType
from typing import Any, Protocol

from opentelemetry.context import Context
from opentelemetry.trace import Link, get_current_span

from otel_concurrency._core import handoff
from otel_concurrency._core.handoff import NO_CONTEXT, Seam
from otel_concurrency._linking import origins
from otel_concurrency._linking.origins import Links

_NO_KEYWORDS: Mapping[str, Any] = {}


class Job:
    """A function that is armed, and the arguments that it will be called with."""

    __slots__ = ("args", "function", "kwargs")

    def __init__(
        self, function: Any, args: Iterable[Any] = (), kwargs: Mapping[str, Any] = _NO_KEYWORDS
    ) -> None:
        self.function = function
        self.args = args
        self.kwargs = kwargs


class Round:
    """One run of a job. It remembers the first span that was started in it."""

    __slots__ = ("_before", "_link", "job", "over", "primitive")

    def __init__(self, job: Job, primitive: str) -> None:
        self.job: Job | None = job
        self.primitive = primitive
        self.over = False
        self._link: Link | None = None
        self._before: Links | Round = ()

    def links(self) -> Links:
        """Return a link to the round's first span; without one, the links of the round before."""
        if self._link is not None:
            return (self._link,)
        before = self._before
        return before.links() if isinstance(before, Round) else before

    def learn(self, span: Any, parent: Any) -> None:
        """Remember the first span that was started in this round.

        Placeholder spans, as of a disabled tracer, and spans with a remote parent do not count.
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
        """Remember the origin in ``context``: the link to use if this round starts no span."""
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
        """Mark the round as over, and drop its references.

        Otherwise rounds that start no span would form a growing chain.
        """
        self.over = True
        self.job = None
        self._before = () if self._link is not None else self.links()


class Unasked(Protocol):
    """A placeholder that makes its round only when the round is needed."""

    def _begin_round(self) -> Round | None: ...


running: dict[int, Any] = {}
"""By thread: the round that runs on it, if the work there may arm itself again.

A :class:`Round`, an :class:`Unasked`, or an object of one of the classes in :data:`made_of`.
"""

made_of: dict[type, Callable[[Any], Round]] = {}
"""By class: the function that makes the round of an object that is itself in :data:`running`."""

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=running.clear)


def current() -> Round | None:
    """Return the round that runs on this thread."""
    thread = get_ident()
    found: Round | Unasked | None = running.get(thread)
    if found is None or isinstance(found, Round):
        return found
    make = next((make for kind, make in made_of.items() if isinstance(found, kind)), None)
    begun = found._begin_round() if make is None else make(found)  # pyright: ignore[reportPrivateUsage]
    if begun is not None:
        running[thread] = begun
    return begun


def begin(thread: int, job: Job, primitive: str) -> None:
    """Have a round of ``job`` run on ``thread``, the present one, until :func:`end`. Never raises.

    The caller keeps ``thread`` for :func:`end`, since gevent may have changed the number by then.
    """
    try:
        running[thread] = Round(job, primitive)
    except Exception as error:
        handoff.report_fault("begin a round", error)


def end(thread: int) -> None:
    """End the round that runs on ``thread``. Never raises."""
    try:
        finish(running.pop(thread, None))
    except Exception as error:
        handoff.report_fault("end a round", error)


def finish(last: object) -> None:
    """End what was in :data:`running` until now, if it is a round. Never raises."""
    try:
        if isinstance(last, Round):
            last.end()
    except Exception as error:
        handoff.report_fault("end a round", error)


def learn(span: Any, parent: Any) -> None:
    """Have the round on this thread, if any, remember a span that was started. Never raises."""
    try:
        found = current()
        if found is not None:
            found.learn(span, parent)
    except Exception as error:
        handoff.report_fault("start_span", error)


def repeated(job: Job) -> Round | None:
    """Return the round that runs on this thread if it is one of the same ``job``."""
    found = current()
    if found is None or found.job is None or job.function is None:
        return None
    try:
        return found if _is_same(found.job, job) else None
    except Exception:  # the program's comparison raised, or closures refer to each other in a loop
        return None


def following(before: Round, seam: Seam, work: object, captured: Context | None) -> Context | None:
    """Return the context for ``work``, the next round after ``before``.

    ``captured`` is the context that it would get if it were not a round.
    """
    if captured is NO_CONTEXT:
        return captured
    if captured is None and seam.starts_clean is not None and seam.starts_clean(work):
        return None
    return next_after(before, handoff.get_current())


def next_after(before: Round, context: Context) -> Context:
    """Return the context for the round after ``before``, which ran in ``context``. May raise."""
    before.armed_in(context)
    return origins.without_span(context, before)


def _is_same(one: Job, other: Job, depth: int = 0) -> bool:
    """Whether two jobs are the same, even if the program makes a new callable for every round.

    A helper that runs any job (``lambda: job()``, ``partial(run, job)``, or ``run`` with ``job`` as
    its argument) counts as a different job for each ``job``.
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
"""How deep closures inside closures are compared: a closure may refer to itself."""

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
    """Return the callables in a closure, and its ``self`` if it was made in a method."""
    found: list[Any] = []
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            value = cell.cell_contents
        except ValueError:  # the cell is empty, as for a name after its ``except`` clause
            continue
        if name == "self" or callable(value):
            found.append(value)
    return found
