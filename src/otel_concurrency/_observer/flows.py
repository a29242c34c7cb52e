"""Flows as the observer sees them: which hand-off brought the work that runs here.

This information travels beside the context and not in it, since the observer finds out whether a
context arrives, with this library or without it. When work is handed off, a :class:`Record` is
made. It travels with the callable or the item, without the library's help. When the work is picked
up, the record begins a :class:`Flow`. The current flow is in a context variable, which asyncio
hands on to tasks by itself.
"""

from __future__ import annotations

import contextvars
import functools
import os
import sys
import time
import weakref
from _thread import get_ident
from collections import OrderedDict
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from typing import Any

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace.propagation import (
    _SPAN_KEY,  # pyright: ignore[reportPrivateUsage]  # a third of trace.get_current_span's cost
)

from otel_concurrency import _settings
from otel_concurrency._clean_starts import matching
from otel_concurrency._core import frames, handoff
from otel_concurrency._core.callers import leave_out_of_traceback
from otel_concurrency._linking import origins
from otel_concurrency._observer import state
from otel_concurrency._observer.records import Origin, Record, new_id

_REMEMBERED = 4096
"""The maximum number of picked-up hand-offs that are remembered in this process."""

_MOST_ANCESTORS = 16
"""The maximum length of a record's ``ancestors`` and of its ``lineage``."""


class Flow:
    """Work that runs after a hand-off; for an item, until the consumer asks for the next."""

    __slots__ = (
        "__weakref__",
        "adopted",
        "attached",
        "base",
        "began_ns",
        "beneath",
        "captured",
        "found",
        "is_item",
        "record",
        "source",
        "watch",
    )

    def __init__(
        self,
        record: Record,
        base: Flow | None,
        beneath: Flow | None,
        *,
        source: object,
        adopted: bool,
    ) -> None:
        self.watch = _watch
        self.record = record
        self.base = base
        """The flow that was current, by its context variable, when this flow began."""
        self.beneath = beneath
        """The flow that its thread ran before."""
        self.source = source
        """The source of its item, such as a queue; None if it is a call."""
        self.is_item = source is not None
        self.adopted = adopted
        """Whether the consumer now works for the item; False if it continues in its own span."""
        self.attached: list[Any] = []
        """The contexts that it has attached and not yet detached (see ``context_hooks``)."""
        self.began_ns = now()
        self.found = origin_of(handoff.get_current())
        """The span that was current when its work began."""
        self.captured: str | None = None
        """The line at which the program asked for the current context, which had no span."""


def has_running_span(context: Context) -> bool:
    """Whether the span of ``context`` has not ended.

    For a span that is not sampled, or that is of another process, the end cannot be seen.
    """
    span: Any = context.get(_SPAN_KEY)
    return span is not None and getattr(span, "end_time", None) is None


FLOW: ContextVar[Flow | None] = ContextVar("otel_concurrency_flow", default=None)

threads: dict[int, Flow] = {}
"""For each thread, its flow; it is also known where work runs in a context the user passed."""

_picked_up: OrderedDict[str, None] = OrderedDict()


_watch = object()
"""Identifies the time for which this process is watched. What happened between two of them is
unknown, and a thread may still have a flow of the earlier one."""


def forget() -> None:
    """Reset the recorded state: in a forked child, and when watching ends."""
    global _watch  # noqa: PLW0603
    _watch = object()
    threads.clear()
    _picked_up.clear()


def innermost() -> Flow | None:
    """Return the flow that began last here, even if its item was not adopted."""
    flow = FLOW.get()
    return flow if flow is None or flow.watch is _watch else None


def current() -> Flow | None:
    """Return the flow that this thread is in; None where no hand-off led here, or it is unknown."""
    flow = innermost()
    while flow is not None and not flow.adopted:
        flow = flow.base
    here = threads.get(get_ident())
    # In `to_thread(f)`, and wherever work is submitted as `context.run`, the variable has the value
    # of the flow that submitted the work.
    if here is None or here is flow or _in_a_loop():
        return flow
    made_in = here.record.made_in
    return here if (None if made_in is None else made_in()) is flow else flow


def _in_a_loop() -> bool:
    events: Any = sys.modules.get("asyncio.events")
    return events is not None and events._get_running_loop() is not None


def origin_of(context: Context) -> Origin | None:
    """Return the identifiers and the name of the span of ``context``; None where it has none."""
    span: Any = context.get(_SPAN_KEY)
    if span is None:
        return None
    own = span.get_span_context()
    if not own.is_valid:
        return None
    return (*identify(own), getattr(span, "name", ""))


def identify(span: trace.SpanContext) -> tuple[str, str]:
    """Return the identifiers of a span in hexadecimal."""
    return trace.format_trace_id(span.trace_id), trace.format_span_id(span.span_id)


now = time.time_ns


def thread_name() -> str:
    """Return the name of this thread, even if `threading` does not know it."""
    threading: Any = sys.modules.get("threading")
    thread = None if threading is None else threading._active.get(get_ident())
    return f"thread {get_ident()}" if thread is None else str(thread.name)


def policy_of(primitive: str) -> str:
    """Return the policy in force, as it is spelled in settings."""
    settings = _settings.in_force
    policy = None if settings is None else settings.policies.get(primitive)
    return "off" if policy is None else str(policy.value)


@functools.cache
def _matcher(primitive: str, excluded: tuple[str, ...]) -> Callable[[object], bool] | None:
    """Return a function that tells whether work starts clean, by the table or by ``excluded``."""
    if primitive == "threading":
        return matching.thread_matcher(excluded)
    if primitive == "multiprocessing":
        return matching.process_matcher(excluded)
    return matching.callable_matcher(excluded)


def _starts_clean(primitive: str, work: object, excluded: tuple[str, ...]) -> bool:
    match = _matcher(primitive, excluded)
    return match is not None and work is not None and match(work)


def wants_none(context: Context) -> bool:
    """Whether the program made the empty ``context`` itself, to begin a trace on purpose.

    OpenTelemetry's default context and this library's empty context do not count.
    """
    return not context and context is not _DEFAULT and context is not handoff.NO_CONTEXT


_DEFAULT = contextvars.Context().run(handoff.get_current)


def _runs_in_a_context(work: Any) -> bool:
    while isinstance(work, functools.partial):
        work = work.func  # pyright: ignore[reportUnknownMemberType,reportUnknownVariableType]
    owner = getattr(work, "__self__", None)  # pyright: ignore[reportUnknownArgumentType]
    return isinstance(owner, contextvars.Context)


def _target(work: Any) -> Any:
    target = getattr(work, "_target", None)
    return work if target is None else target


def hand_off(
    primitive: str,
    call: str | Mapping[str, str],
    work: object = None,
    *,
    always: bool = False,
    quiet: bool = False,
    native: bool = False,
) -> Record | None:
    """Record that this flow hands work off; return None where that is not observed.

    ``call`` is the name of the call. It may also map the name of the function that the program's
    line called to the name of the call, with "" for the default. With ``always``, the hand-off is
    observed even if no line of the program led to it. A hand-off that is ``quiet`` or starts clean
    is not reported, but a span that lost its parent by it is. ``native`` says that the context is
    carried without the library.
    """
    if not state.watching():
        return None
    site = frames.site(sys._getframe(1))  # pyright: ignore[reportPrivateUsage]
    if site.is_ours:
        return None
    clean = _starts_clean(primitive, work, _settings.excluded())
    if site.line is None and not (clean or always):
        return None  # internal to the standard library
    context = handoff.get_current()
    flow = current()
    origin = origin_of(context)
    cause = origin
    ancestors: tuple[str, ...] = () if origin is None else (origin[0],)
    lineage: tuple[int, ...] = (get_ident(),)
    if flow is not None:
        lineage += flow.record.lineage if flow.record.pid == os.getpid() else ()
        ancestors += tuple(a for a in flow.record.ancestors if a not in ancestors)
        if cause is None and not (flow.record.clean or wants_none(context)):
            cause = flow.record.cause
    policy = policy_of(primitive)
    native = native or _runs_in_a_context(work)
    name = matching.callable_name(_target(work)) if clean else ""
    record = Record(
        {
            "id": new_id(),
            "primitive": primitive,
            "call": call if isinstance(call, str) else call.get(site.via, call[""]),
            "site": site.line or "?",
            "at_ns": now(),
            "pid": os.getpid(),
            "thread": thread_name(),
            "policy": policy,
            "origin": origin,
            "cause": cause,
            "clean": clean,
            "carried": bool(context) and (native or (policy != "off" and not clean)),
            "native": native,
            "ancestors": ancestors[:_MOST_ANCESTORS],
            "lineage": lineage[:_MOST_ANCESTORS],
            "work": name if clean and _starts_clean(primitive, work, ()) else "",
        }
    )
    record.made_in = None if flow is None else weakref.ref(flow)
    if not (clean or quiet):
        state.tell("hand_off", hand_off=record.facts())
    return record


def begin(record: Record, source: object = None, *, adopted: bool = True) -> Flow | None:
    """Record that the work of ``record`` is picked up here; return its flow. Never raises.

    ``source`` is the queue that an item came from. ``adopted`` is False if the consumer has its own
    span, in which it continues.
    """
    if not state.watching():
        return None
    try:
        beneath = threads.get(get_ident())
        flow = Flow(record, innermost(), beneath, source=source, adopted=adopted)
        at_begin(flow)
        FLOW.set(flow)
        if flow.adopted and not (flow.is_item and _in_a_loop()):
            threads[get_ident()] = flow
        if not record.clean and record.id not in _picked_up:
            _picked_up[record.id] = None
            if len(_picked_up) > _REMEMBERED:
                _picked_up.popitem(last=False)
            state.tell(
                "attach",
                id=record.id,
                at_ns=flow.began_ns,
                thread=thread_name(),
                carried=_has_arrived(record) or (record.carried and _cannot_tell(flow)),
                of=record.facts(),
            )
    except Exception as error:
        state.fault("begin", error)
        return None
    else:
        return flow


def _cannot_tell(flow: Flow) -> bool:
    """Whether the context may arrive although it is not current yet at this moment."""
    return flow.is_item or flow.record.native or flow.record.primitive == "subprocess"


def _has_arrived(record: Record) -> bool:
    """Whether the span of the record's flow is current here, or is the origin of later spans."""
    context = handoff.get_current()
    if record.origin is None:
        return bool(context)
    here = origin_of(context)
    if here is not None:
        return here[:2] == record.origin[:2]
    links = origins.pending(context)
    return any(identify(link.context) == record.origin[:2] for link in links)


def look_at_nothing(flow: Flow) -> None:
    """Check nothing: neither whom this thread works for, nor what it has left attached."""


at_begin: Callable[[Flow], None] = look_at_nothing
"""Is called when a flow begins, to note whom its thread or task works for."""

at_end: Callable[[Flow], None] = look_at_nothing
"""Is called at the end of a flow's work to check what it has left attached."""


def end(flow: Flow) -> None:
    """Record that the work of ``flow`` is done. Never raises."""
    try:
        at_end(flow)
        FLOW.set(flow.base)
        if flow.beneath is None:
            threads.pop(get_ident(), None)
        else:
            threads[get_ident()] = flow.beneath
    except Exception as error:
        state.fault("end", error)


def next_item() -> bool:
    """Record that this flow asks for an item, and is done with its last item. Never raises.

    Return whether it has its own span, in which it will work on the next item.
    """
    try:
        has_its_own = _has_its_own()
    except Exception as error:
        state.fault("ask", error)
        has_its_own = False
    let_go()
    return has_its_own


def let_go() -> None:
    """Record that this flow is done with its last item. Never raises."""
    flow = innermost()
    if flow is None or not flow.is_item:
        return
    if threads.get(get_ident()) is flow:
        end(flow)
        return
    try:
        at_end(flow)
        FLOW.set(flow.base)
    except Exception as error:
        state.fault("let go", error)


def _has_its_own() -> bool:
    """Whether this flow is in a running span that did not come with its work."""
    context = handoff.get_current()
    origin = origin_of(context)
    if origin is None or not has_running_span(context):
        return False
    flow = current()
    return flow is None or flow.record.origin is None or flow.record.origin[:2] != origin[:2]


class Observed(functools.partial[Any]):
    """A callable that was handed off, with the record of its hand-off.

    It is a partial: it pickles as one, and code that unwraps partials finds the function.
    """

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        record: Any = self.__dict__.get("record")
        try:
            return run(record, super().__call__, *args, **kwargs)
        except BaseException as error:
            leave_out_of_traceback(error)
            raise


class ObservedHere(Observed):
    """The same where no other process is watched: it pickles as a partial of the function alone."""

    def __reduce__(self) -> tuple[Any, ...]:
        return functools.partial, (self.func,)


def run(record: Record | None, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
    """Call ``function`` as the work of ``record``."""
    flow = begin(record) if record is not None else None
    if flow is None:
        return function(*args, **kwargs)
    try:
        return function(*args, **kwargs)
    except BaseException as error:
        leave_out_of_traceback(error)
        raise
    finally:
        end(flow)


def observed(function: Any, record: Record | None) -> Any:
    """Return a callable that calls ``function`` as the work of ``record``."""
    if record is None or not callable(function):
        return function
    if isinstance(function, handoff.Call):  # observe inside the library's call, once it attached
        function._function = observed(function._function, record)  # pyright: ignore[reportPrivateUsage]
        return function
    call = (ObservedHere if state.alone else Observed)(function)
    call.__dict__["record"] = record
    return call
