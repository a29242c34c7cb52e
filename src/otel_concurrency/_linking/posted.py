"""Callbacks that are posted to a loop: captured when posted, attached when the loop calls them.

For loops that keep no context themselves, such as those of user interfaces. A callback that posts
itself again is periodic: from its second round on, each is a trace with a link to the one before.
So is one that the loop calls again by itself.
"""

from __future__ import annotations

from _thread import get_ident
from collections.abc import Iterable, Mapping
from types import CoroutineType
from typing import Any

from opentelemetry.context import Context

from otel_concurrency._core import handoff
from otel_concurrency._core.awaiting import awaited_in
from otel_concurrency._core.handoff import NO_CONTEXT, Call, Seam
from otel_concurrency._linking import rounds
from otel_concurrency._linking.rounds import Job

_COROUTINE: Any = CoroutineType  # untyped: it is known of no coroutine what it yields


class Posted(Call):
    """A callback on its way to the loop that calls it, once."""

    __slots__ = ("primitive",)

    primitive: str

    @property
    def __name__(self) -> str:
        # Callable objects have none. For these, some loops use the name of their type.
        name: str = getattr(self._function, "__name__", type(self._function).__name__)
        return name

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        thread = get_ident()
        outer = rounds.running.get(thread)
        rounds.begin(thread, Job(self._function, args, kwargs), self.primitive)
        try:
            return self._call(*args, **kwargs)
        finally:
            rounds.end(thread)
            if outer is not None:
                rounds.running[thread] = outer

    _call = Call.__call__


class PostedToAwait(Posted):
    """A callback that may be a coroutine function: the loop awaits what it returns."""

    __slots__ = ()

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        context: Any = self._context or NO_CONTEXT
        try:
            result = super().__call__(*args, **kwargs)
            return awaited_in(context, result) if isinstance(result, _COROUTINE) else result
        finally:
            context = None  # a traceback refers to this frame


class PostedAgain(Posted):
    """A callback that the loop calls again for as long as it returns what is true."""

    __slots__ = ()

    def _call(self, /, *args: Any, **kwargs: Any) -> Any:
        context: Any = self._context
        try:
            result = Call.__call__(self, *args, **kwargs)
            if result:
                self._context = _after_round_in(context, handoff.seams[self.primitive])
            return result
        finally:
            context = None  # as above


def _after_round_in(context: Context | None, seam: Seam) -> Context | None:
    """Return the context of the round after the present one, which ran in ``context``."""
    try:
        before = rounds.current()
        if context and before is not None and seam.active:
            return rounds.next_after(before, context)
    except Exception as error:
        handoff.report_fault("post", error)
    return NO_CONTEXT if context is not None and seam.active else None


def post(
    seam: Seam,
    function: Any,
    args: Iterable[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    kind: type[Posted] = Posted,
) -> Any:
    """Return ``function`` so that it runs in the present context, also if that is empty.

    ``args`` and ``kwargs`` are what the loop will call it with. Never raises: what is no callable
    is returned as it is, as the loop is about to say.
    """
    if not seam.active or issubclass(type(function), Call) or not callable(function):
        return function
    try:
        posted = kind(captured(seam, function, args, kwargs), function)
        posted.primitive = seam.name
    except Exception as error:
        handoff.report_fault("post", error)
        return function
    else:
        return posted


def captured(
    seam: Seam,
    function: Any,
    args: Iterable[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
) -> Context:
    """Return the context in which ``function``, posted now, is to run. May raise."""
    context = seam.capture(function)
    if rounds.running:
        before = rounds.repeated(Job(function, args, kwargs or {}))
        if before is not None:
            context = rounds.following(before, seam, function, context)
    return context or NO_CONTEXT
