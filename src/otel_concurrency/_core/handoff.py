"""The hot path: a captured context on its way to the work that it belongs to.

A hand-off is **captured** in the flow that hands work off, **attached** in the flow that picks the
work up before any of the user's code runs there, and **detached** when that piece of work is done.
This file knows OpenTelemetry's context API only: neither the primitives nor the settings.

Two rules shape every line. *One shot*: a context is dropped the moment it is attached or given up,
so that no finished thread, held future or traceback keeps a span alive. *Never in the way*: a fault
of the library or of the context implementation is reported once, and the user's call goes through.
"""

from __future__ import annotations

import functools
import logging
import os
from _thread import get_ident
from collections.abc import Callable
from contextvars import ContextVar, Token
from typing import Any
from weakref import ref

from opentelemetry import context as context_api
from opentelemetry.context import Context
from opentelemetry.context.contextvars_context import ContextVarsRuntimeContext

from otel_concurrency._core import compiled, faults
from otel_concurrency._core.function_proxies import shows_the_callables_own

_logger = logging.getLogger(__name__)

NO_CONTEXT = Context()
"""The empty context. Handing it off means: this work starts clean."""


_VARIABLE: Any = ContextVar


def _runtime() -> tuple[Any, Any, Any]:
    """Return the cheapest way to read the current context, to attach one, and to detach it.

    These are the methods of the context variable behind OpenTelemetry's default runtime context
    (its private name is the same since opentelemetry-api 1.0). They cost a third of the API's
    functions, which only call them. With any other runtime context, or if the default one was
    changed by a subclass or a patch, the API's functions are returned.
    """
    context_api.get_current()  # the runtime context is loaded by the first use before API 1.21
    runtime: Any = getattr(context_api, "_RUNTIME_CONTEXT", None)
    variable: Any = getattr(runtime, "_current_context", None)
    stock = type(runtime) is ContextVarsRuntimeContext and isinstance(variable, _VARIABLE)
    if stock and all(
        getattr(ContextVarsRuntimeContext, name).__module__ == ContextVarsRuntimeContext.__module__
        for name in ("get_current", "attach", "detach")
    ):
        return variable.get, variable.set, variable.reset
    return context_api.get_current, context_api.attach, context_api.detach


get_current: Callable[[], Context]
attach: Callable[[Context], Token[Context]]
detach: Callable[[Token[Context]], None]
get_current, attach, detach = _runtime()

Record = list[Any]
"""What a flow has adopted. It is changed only in its fourth place.

1. The adopted context (a weak reference).
2. The idle context.
3. The same pair for each earlier adoption on top of which another context was attached.
4. The stage of the work (below).
5. What several items have in common that the flow has got since it last started a span, a
   ``Together`` of ``_linking.batches``; None for a single item.

The references to contexts are weak: this record must not keep a context alive that the flow has
left in another way.
"""

FRESH, SEVERAL, TOLD, TOLD_SEVERAL, BEGUN, OVER = 0, -1, -2, -3, 1, 2
"""Stages of the work on adopted items. As long as no span was started for them, they are not
positive.

``FRESH``, ``SEVERAL``: one item was got, or several. ``TOLD``, ``TOLD_SEVERAL``: after that, the
consumer found out once that there is no other. ``BEGUN``: a span was started for one item.
``OVER``: a span was started for a batch; the next span does not belong to the batch.
"""

adopted: ContextVar[Record | None] = ContextVar("otel_concurrency_adopted", default=None)
"""What this flow has adopted with an item; it may still be current (see ``_items.adoption``)."""


def pop(record: Record) -> None:
    """Forget the adoption of ``record``, and remember the one before it, if any."""
    earlier = record[2]
    adopted.set([*earlier[0], earlier[1:], BEGUN, None] if earlier else None)


def begin_span(current: Context, *, implicit: bool) -> Context:
    """Note that a span starts in ``current``; return the context that it is to start in. May raise.

    That is another one in two cases, and then it is attached as well. If the flow has got several
    items since its last span, the span starts in the context that they have in common. If a batch
    of items had its span before, the span starts in the flow's idle context. ``implicit`` says that
    the caller of ``start_span`` has passed no context.
    """
    record = adopted.get()
    if record is None or record[0]() is not current or get_current() is not current:
        return current  # another context is on top
    stage, together = record[3], record[4]
    if stage == OVER and implicit:
        idle: Context = record[1]
        attach(idle)
        pop(record)
        return idle
    if stage > FRESH:
        return current
    if together is None:
        record[3] = OVER if stage <= TOLD else BEGUN
        return current
    if not together.is_here():
        return current  # a task or a callback that was started for the last item
    merged: Context = together.merged(current)
    # A new record, because tasks that were started for one of the items share the present one.
    adopted.set([ref(merged), record[1], record[2], OVER, None])
    attach(merged)
    return merged


any_adopted = False
"""Whether any flow has ever adopted a context. Until then, :data:`adopted` need not be read."""

bodies: dict[int, Context] = {}
"""By thread: the context in which its present work was handed off, if any.

A consumer loop may be such work. It then has a current span, but that span does not count as work
that the loop itself has in progress.
"""

ages: dict[int, int] = {}
"""By thread: when (ns since the epoch) that work was first looked at. Work that was never looked at
has no entry.
"""


def _forget() -> None:
    bodies.clear()
    ages.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)

after_failed_start: set[Callable[[], None]] = set()
"""Functions to call after a thread could not be started. None of them raises.

The code that tried to start the thread in a context calls them."""

Capture = Callable[[object], "Context | None"]
"""Takes the work that is handed off (a callable or a thread); returns the context to carry or None.
"""


def capture(work: object) -> Context | None:
    """Return the current context, or None where there is nothing to carry."""
    return get_current() or None


def capture_nothing(work: object) -> Context | None:
    """Return None. Layers capture with this function while their seam is switched off."""
    return None


seams: dict[str, Seam] = {}
"""The seam of each primitive that was switched on at least once."""


class Seam:
    """What all patches of one primitive share, and the only thing that settings change.

    Replaced functions stay in place after ``uninstrument()`` wherever other code has patched on top
    of them. They ask their seam at every call, so switching the seam off makes them pass-throughs
    and switching it on again revives them.
    """

    __slots__ = ("capture", "change", "concerned", "current", "left_alone", "name", "starts_clean")

    def __init__(self, name: str) -> None:
        self.name = name
        self.capture: Capture = capture_nothing
        """Called with the work at every hand-off; may raise."""
        self.change: Callable[[Context], Context] | None = None
        """Applies the policy to the context of an item, which is captured unchanged."""
        self.starts_clean: Callable[[object], bool] | None = None
        """Tells whether a piece of work has to start with an empty context."""
        self.current: Callable[[], Context] = get_current
        """Returns the context for an item that is put now; may raise."""
        self.concerned: Callable[[], object] = get_current
        """Tells whether work that is handed off now is to be captured; may raise."""
        self.left_alone: set[str] = set()
        """The modules that are not patched, since their code is not what the patches expect."""
        seams[name] = self

    @property
    def active(self) -> bool:
        """Whether hand-offs are captured at present."""
        return self.capture is not capture_nothing

    def changed(self, context: Context | None) -> Context | None:
        """Return the context of an item with the policy applied to it. May raise."""
        if context and self.change is not None:
            context = self.change(context)
        return context

    def switch_off(self) -> None:
        """Stop carrying contexts, and reset the functions to those of a new seam."""
        self.capture = capture_nothing
        self.current = self.concerned = get_current


@shows_the_callables_own
class Call:
    """A callable together with the context that it is to run in, once.

    It is passed to an executor in place of the callable. Code that inspects it sees the callable:
    attributes, equality, hash, ``repr``, :func:`inspect.signature` and pickling (the context does
    not cross a process boundary).
    """

    __slots__ = ("_context", "_function")

    def __init_subclass__(cls) -> None:
        shows_the_callables_own(cls)

    def __init__(self, context: Context, function: Callable[..., Any]) -> None:
        self._context: Context | None = context
        self._function = function

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        context = self._context
        self._context = before = token = None
        record = adopted.get() if any_adopted else None
        if context is not None:
            try:
                before = get_current()
                if context is not before and (context or before):
                    token = attach(context)
                if record is not None and record[0]() is (before if token is None else context):
                    adopted.set(None)  # the caller adopted it, and lets go of it when this is over
            except Exception as error:
                report_fault("attach", error)
            context = None
        try:
            if kwargs:
                return self._function(*args, **kwargs)
            return self._function(*args)  # an empty dict would be copied
        finally:
            if any_adopted and adopted.get() is not record:
                adopted.set(record)  # contexts that the work has adopted end with the work
            record = None
            try:
                if token is not None:
                    detach(token)
                elif before is not None and get_current() is not before:
                    attach(before)  # the work forgot to detach
            except Exception as error:
                report_fault("detach", error)
            # These refer to the worker's previous context, and a traceback to this frame.
            before = token = None

    def release(self) -> None:
        """Drop the context: the work was cancelled, or could not be dispatched."""
        self._context = None

    @property
    def __wrapped__(self) -> Callable[..., Any]:
        return self._function

    def __getattr__(self, name: str) -> Any:
        return getattr(self._function, name)

    def __eq__(self, other: object) -> bool:
        return self._function == (other._function if isinstance(other, Call) else other)

    def __hash__(self) -> int:
        return hash(self._function)

    def __repr__(self) -> str:
        return repr(self._function)

    def __reduce__(self) -> tuple[Any, ...]:
        return functools.partial, (self._function,)


class BodyCall(Call):
    """A call that is the whole work of its thread, or of an executor's worker, while it runs."""

    __slots__ = ()

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        thread = get_ident()
        body = bodies.get(thread)
        bodies[thread] = self._context or NO_CONTEXT
        if ages:
            ages.pop(thread, None)
        try:
            return super().__call__(*args, **kwargs)
        finally:
            if ages:
                ages.pop(thread, None)
            if body is None:
                bodies.pop(thread, None)
            else:
                bodies[thread] = body  # this call ran nested inside other work
                body = None


def call(seam: Seam, function: Callable[..., Any], kind: type[Call] = Call) -> Call | None:
    """Return ``function`` as a call that is to run in the current context, or None without one.

    Returns None as well if ``function`` is such a call already. Never raises. Only the call refers
    to the context: a frame that held it would keep it alive as long as a traceback of that frame.
    """
    try:
        if isinstance(function, Call):
            return None
        context = seam.capture(function)
        return None if context is None else kind(context, function)
    except Exception as error:
        report_fault("capture", error)
        return None


def bind(seam: Seam, function: Any, kind: type[Call] = Call) -> Any:
    """Return ``function`` as a call that runs in the current context, even if that is empty.

    For work on a thread that may be in the context of other work. Never raises.
    """
    if not seam.active or issubclass(type(function), Call) or not callable(function):
        return function
    return call(seam, function, kind) or kind(NO_CONTEXT, function)


def attach_safely(context: Context) -> Token[Context] | None:
    """Attach ``context``; return the token for :func:`leave`, or None after a reported fault."""
    try:
        return attach(context)
    except Exception as error:
        report_fault("attach", error)
        return None


def leave(token: Token[Context] | None) -> None:
    """Detach the context that :func:`attach_safely` attached.

    That also removes contexts that were attached since then and never detached.
    """
    if token is None:
        return
    try:
        detach(token)
    except Exception as error:
        report_fault("detach", error)


def begin_in(context: Context) -> None:
    """Make ``context`` current in a flow that begins, for as long as the flow runs. Never raises.

    A task of an event loop starts with a copy of its creator's context variables. Its creator may
    have adopted an item; the task must not count that as its adoption. No token is returned, since
    a token would keep the previous context alive.
    """
    try:
        if any_adopted:
            adopted.set(None)
        if get_current() is not context:
            attach(context)
    except Exception as error:
        report_fault("attach", error)


def as_flow_that_begins(context: Context, function: Any, /, *args: Any, **kwargs: Any) -> Any:
    """Call ``function`` in ``context``, as if a new flow began there.

    Tasks and callbacks of an event loop that it creates begin in ``context``, too. They do not see
    what this flow has adopted.
    """
    return Call(context, _with_nothing_adopted)(function, *args, **kwargs)


def _with_nothing_adopted(function: Any, /, *args: Any, **kwargs: Any) -> Any:
    if any_adopted:
        adopted.set(None)  # the end of the surrounding Call restores the value
    return function(*args, **kwargs)


def current_safely() -> Context | None:
    """Return the current context, or None after a reported fault."""
    try:
        return get_current()
    except Exception as error:
        report_fault("get_current", error)
        return None


def is_concerned(seam: Seam) -> object:
    """Return whether there is a context, or work on an item, here; None after a reported fault."""
    try:
        return seam.concerned() or (any_adopted and adopted.get())
    except Exception as error:
        report_fault("get_current", error)
        return None


def report_raised(step: str, error: Exception) -> None:
    """Report a fault in ``step`` that the compiled part has caught. Never raises."""
    try:
        raise error
    except Exception as raised:
        report_fault(step, raised)


def report_fault(step: str, error: Exception) -> None:
    """Report a fault of the library in ``step``. Call it from the ``except`` block.

    Faults that come from the same line count as one cause, in whatever step they occur.
    """
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    origin = None if trace is None else (trace.tb_frame.f_code, trace.tb_lineno)
    faults.once(
        _logger,
        (type(error), origin),
        "OpenTelemetry context was not propagated: %s failed with %s: %s. The program's own call "
        "goes on. Reported once.",
        step,
        type(error).__name__,
        error,
    )


compiled.bind(globals())

DirectCall: Any = getattr(compiled.functions, "DirectCall", Call)
"""The class of calls that the interpreter makes itself: it is compiled where that is possible.

It is a subclass of :class:`Call`, or that class. Of a compiled one there is no frame. ``running``
is how many calls of it have not returned yet. Code behind a Python function, which has a frame of
its own, gains nothing by it.
"""
