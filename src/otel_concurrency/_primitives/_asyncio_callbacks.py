"""``asyncio``: callbacks for descriptors and signals, timers that repeat, and ``Runner``.

asyncio runs a callback in a copy of the context in which it was registered. That is right for work
that is handed off. But the reader of a descriptor and the handler of a signal are not part of the
request that happened to register them: they run in an empty context. They are called for one event
after the other, all in one contextvars context, and each event is work of its own: the item of a
queue that one of them gets is not the next one's.

A ``call_later`` callback that schedules itself again would prolong for ever the trace in which it
was first registered. So from its second round on, each round starts a new trace with a link to the
round before, as a ``threading.Timer`` does.

A ``Runner`` runs everything in one contextvars context. What one ``run()`` attaches and fails to
detach must not reach the next ``run()``. In a context that the program passes, only the item of a
queue that one ``run()`` still holds is kept from the next one.
"""

from __future__ import annotations

import contextlib
import functools
import sys
from _thread import get_ident
from contextvars import copy_context
from types import BuiltinMethodType, ModuleType
from typing import Any

from otel_concurrency._core import handoff
from otel_concurrency._core.callers import leave_out_of_traceback
from otel_concurrency._core.handoff import (
    NO_CONTEXT,
    Seam,
    adopted,
    as_flow_that_begins,
)
from otel_concurrency._core.patching import Layer, Patch, StandIn
from otel_concurrency._items import adoption
from otel_concurrency._linking import rounds
from otel_concurrency._linking.rounds import Job, Round, running


def _timer_layers(base_events: ModuleType, seam: Seam) -> list[Patch]:
    timer = base_events.events.TimerHandle
    rounds.made_of[timer] = lambda run: Round(Job(run._callback, run._args), seam.name)
    return [
        Layer(timer, "__init__", lambda raw: _init_timer(raw, seam, timer)),
        Layer(timer, "_run", lambda raw: _run_timer(raw, seam, base_events)),
    ]


def _reader_layers(selector_events: ModuleType, seam: Seam) -> list[Patch]:
    loop = selector_events.BaseSelectorEventLoop
    kind = _of_many_events(selector_events.events.Handle)
    return [
        Layer(loop, "add_reader", lambda raw: _add_reader(raw, seam)),
        Layer(loop, "add_writer", lambda raw: _add_reader(raw, seam)),
        # These are called by the two above, and by transports.
        Layer(loop, "_add_reader", lambda raw: _watch(raw, seam, kind)),
        Layer(loop, "_add_writer", lambda raw: _watch(raw, seam, kind)),
    ]


def _signal_layers(unix_events: ModuleType, seam: Seam) -> list[Patch]:
    loop = unix_events._UnixSelectorEventLoop
    kind = _of_many_events(unix_events.events.Handle)
    return [Layer(loop, "add_signal_handler", lambda raw: _add_signal_handler(raw, seam, kind))]


def _runner_layers(runners: ModuleType, seam: Seam) -> list[Patch]:
    if sys.version_info < (3, 11):  # `Runner` does not exist there
        return []
    return [Layer(runners.Runner, "run", lambda raw: _run(raw, seam))]


MODULES = {
    "asyncio.base_events": _timer_layers,
    "asyncio.runners": _runner_layers,
    "asyncio.selector_events": _reader_layers,
    "asyncio.unix_events": _signal_layers,
}


def _add_reader(original: Any, seam: Seam) -> Any:
    @functools.wraps(original)
    def add_reader(self: Any, fd: Any, callback: Any, *args: Any) -> Any:
        if not (seam.active and handoff.is_concerned(seam)):
            return original(self, fd, callback, *args)
        return as_flow_that_begins(NO_CONTEXT, original, self, fd, callback, *args)

    return add_reader


def _add_signal_handler(original: Any, seam: Seam, kind: Any) -> Any:
    @functools.wraps(original)
    def add_signal_handler(self: Any, sig: Any, callback: Any, *args: Any) -> Any:
        if not seam.active:
            return original(self, sig, callback, *args)
        if handoff.is_concerned(seam):
            as_flow_that_begins(NO_CONTEXT, original, self, sig, callback, *args)
        else:
            original(self, sig, callback, *args)
        handle = getattr(self, "_signal_handlers", {}).get(sig)
        if type(handle) is kind.stands_in_for:
            handle.__class__ = kind
        return None

    return add_signal_handler


_OWN = frozenset(("asyncio.selector_events", "asyncio.unix_events"))
"""The modules of a loop's own methods, which run nothing of the program's. One of them is called
whenever another thread wakes the loop up."""


def _watch(original: Any, seam: Seam, kind: Any) -> Any:
    @functools.wraps(original)
    def watch(self: Any, fd: Any, callback: Any, *args: Any, **context: Any) -> Any:
        handle = original(self, fd, callback, *args, **context)
        if (
            seam.active
            and type(handle) is kind.stands_in_for
            and not (getattr(callback, "__self__", None) is self and callback.__module__ in _OWN)
        ):
            handle.__class__ = kind
        return handle

    return watch


@functools.cache
def _of_many_events(plain: Any) -> Any:
    """Return what the class of a handle becomes whose callback is called for several events."""

    class Handle(plain, metaclass=StandIn):  # type: ignore[misc]  # a base known at run time
        stands_in_for = plain
        __module__ = plain.__module__
        __slots__ = ()

        @functools.wraps(plain._run)
        def _run(self) -> Any:
            context = self._context
            try:
                return plain._run(self)
            finally:
                if handoff.any_adopted and context.get(adopted) is not None:
                    _let_go(context)
                context = None  # this frame lives as long as a traceback of an interrupt
                del self

    return Handle


# Timers that schedule themselves again.


_NAMES_IN_INIT = ("super", "__init__", "_source_traceback", "_when", "_scheduled")
"""What ``TimerHandle.__init__`` uses in CPython 3.11 to 3.15. That of 3.10 also asserts."""


def _init_timer(original: Any, seam: Seam, timer: Any) -> Any:
    context_of_next_round, runs = functools.partial(_context_of_next_round, seam), running

    @functools.wraps(original)
    def __init__(  # noqa: N807
        self: Any, when: Any, callback: Any, args: Any, loop: Any, context: Any = None
    ) -> None:
        # A context that the user passes explicitly always wins.
        if runs and context is None:
            context = context_of_next_round(callback, args)
        # The body of the original: to call that would cost more than all of the rest.
        super(timer, self).__init__(callback, args, loop, context)  # pyright: ignore[reportUnknownMemberType]
        if self._source_traceback:
            del self._source_traceback[-1]
        self._when = when
        self._scheduled = False

    @functools.wraps(original)
    def init_unknown(
        self: Any, when: Any, callback: Any, args: Any, loop: Any, context: Any = None
    ) -> None:
        if runs and context is None:
            context = context_of_next_round(callback, args)
        original(self, when, callback, args, loop, context)
        if getattr(self, "_source_traceback", None):
            del self._source_traceback[-1]

    return __init__ if _is_known(original, timer) else init_unknown


def _is_known(init: Any, timer: Any) -> bool:
    """Whether ``init`` is the stock ``__init__`` of ``timer`` itself, and not an inherited one."""
    code = getattr(init, "__code__", None)
    if sys.version_info < (3, 11) or code is None or code.co_names != _NAMES_IN_INIT:
        return False
    return [cell.cell_contents for cell in init.__closure__ or ()] == [timer]


def _run_timer(original: Any, seam: Seam, base_events: Any) -> Any:
    wakes_a_sleeper = getattr(base_events.futures, "_set_result_unless_cancelled", None)
    future = base_events.futures.Future
    futures = frozenset((future, base_events.tasks.Task))
    methods = frozenset((BuiltinMethodType, future.__new__(future).set_result.__class__))
    runs, finish = running, rounds.finish

    @functools.wraps(original)
    def _run(self: Any) -> Any:
        # Most timers wake `asyncio.sleep`, or call a method of a future: they do not arm another.
        callback = self._callback
        if callback is wakes_a_sleeper or (
            type(callback) in methods and type(callback.__self__) in futures
        ):
            return original(self)
        if not seam.active:
            return original(self)
        thread = get_ident()
        outer = runs.get(thread) if runs else None
        runs[thread] = self  # its round is made only when it is asked for, since few are
        try:
            return original(self)
        finally:
            last = runs.pop(thread, None)
            if last is not self:
                finish(last)
            if outer is not None:
                runs[thread] = outer

    return _run


def _context_of_next_round(seam: Seam, callback: Any, args: Any) -> Any:
    """Return the context variables for a callback that repeats the one that runs now.

    None means that it is not a repetition.
    """
    try:
        before = rounds.repeated(Job(callback, args)) if seam.active else None
        if before is None:
            return None
        following = rounds.following(before, seam, callback, handoff.get_current() or None)
        return None if following is None else as_flow_that_begins(following, copy_context)
    except Exception as error:
        handoff.report_fault("call_at", error)
        return None


# Runners.


def _run(original: Any, seam: Seam) -> Any:
    @functools.wraps(original)
    def run(self: Any, coro: Any, *, context: Any = None) -> Any:
        if not seam.active:
            return original(self, coro, context=context)
        before = _begins_in(self) if context is None else None
        try:
            return original(self, coro, context=context)
        except BaseException as error:
            leave_out_of_traceback(error)
            raise
        finally:
            if context is None:
                _leave(self, before)
            elif handoff.any_adopted:
                _let_go(context)
            before = None  # this frame lives as long as a traceback that the user keeps

    return run


def _begins_in(runner: Any) -> Any:
    """Return the context in which the next run begins; None where that is unknown."""
    try:
        if runner._context is None:  # the runner is about to copy the current context
            return handoff.get_current()
        return runner._context.run(handoff.get_current)
    except Exception:  # a nested run, for which the original is about to raise
        return None


def _leave(runner: Any, before: Any) -> None:
    """Reset the runner to the context ``before``, whatever the last run has left attached."""
    try:
        if runner._context is not None and before is not None:
            runner._context.run(handoff.begin_in, before)
    except Exception as error:
        handoff.report_fault("run", error)


def _let_go(context: Any) -> None:
    """Let go of an item in a contextvars context of the program's, which may use it again."""
    with contextlib.suppress(Exception):  # it is none, or this flow is in it: the original raises
        context.run(adoption.let_go)
