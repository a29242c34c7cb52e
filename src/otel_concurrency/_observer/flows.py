"""What the observer knows of a flow: the hand-off by which the work that runs here got here.

It travels beside the context, not in it: the observer finds out whether a context arrives, with
this library or without it. Where work is handed off a :class:`Record` is made of it. It goes along
with the callable or the item, as the observer's own affair, and where the work is picked up it
begins a :class:`Flow`. A flow is a context variable, which asyncio hands on to tasks by itself.
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
from otel_concurrency._core import handoff
from otel_concurrency._linking import origins
from otel_concurrency._observer import frames, state
from otel_concurrency._observer.records import Origin, Record, new_id

_REMEMBERED = 4096
"""How many hand-offs are known to have been picked up in this process."""

_MOST_ANCESTORS = 16
"""How many of them are kept, of each kind."""


class Flow:
    """Work that runs after a hand-off, or, where that was an item, what is done until the next."""

    __slots__ = (
        "__weakref__",
        "adopted",
        "attached",
        "base",
        "began_ns",
        "beneath",
        "captured",
        "is_item",
        "record",
        "source",
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
        self.record = record
        self.base = base
        """The flow in whose context variables it runs."""
        self.beneath = beneath
        """What its thread ran before."""
        self.source = source
        """What it has got its item from; None: it is a call."""
        self.is_item = source is not None
        self.adopted = adopted
        """Whether what is done now is done for it: not where who got an item has its own to do."""
        self.attached: list[Any] = []
        """What it has attached and not yet detached (see ``context_hooks``)."""
        self.began_ns = now()
        self.captured: str | None = None
        """Where the program has asked for the current context, and there was no span in it."""


def has_running_span(context: Context) -> bool:
    """Whether the span of ``context`` has not ended, as far as that can be seen.

    Of one that is not sampled, or of another process, it cannot.
    """
    span: Any = context.get(_SPAN_KEY)
    return span is not None and getattr(span, "end_time", None) is None


FLOW: ContextVar[Flow | None] = ContextVar("otel_concurrency_flow", default=None)

threads: dict[int, Flow] = {}
"""By thread: the flow that it runs, also where work is run in a context of the user's."""

_picked_up: OrderedDict[str, None] = OrderedDict()


def forget() -> None:
    """Start anew: in a forked child, and when watching ends."""
    threads.clear()
    _picked_up.clear()


def current() -> Flow | None:
    """Return the flow that this thread is in; None: it is its own beginning, or not known."""
    flow = FLOW.get()
    while flow is not None and not flow.adopted:
        flow = flow.base
    here = threads.get(get_ident())
    # In `to_thread(f)`, and wherever work is submitted as `context.run`, the variable is as it was
    # where the work comes from.
    if here is None or here is flow or _in_a_loop():
        return flow
    made_in = here.record.made_in
    return here if (None if made_in is None else made_in()) is flow else flow


def _in_a_loop() -> bool:
    events: Any = sys.modules.get("asyncio.events")
    return events is not None and events._get_running_loop() is not None


def origin_of(context: Context) -> Origin | None:
    """Return the span of ``context``."""
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
    """Return the name of this thread, also of one that `threading` knows nothing of."""
    threading: Any = sys.modules.get("threading")
    thread = None if threading is None else threading._active.get(get_ident())
    return f"thread {get_ident()}" if thread is None else str(thread.name)


def policy_of(primitive: str) -> str:
    """Return the policy in force, as the user writes it."""
    settings = _settings.in_force
    policy = None if settings is None else settings.policies.get(primitive)
    return "off" if policy is None else str(policy.value)


@functools.cache
def _matcher(primitive: str, excluded: tuple[str, ...]) -> Callable[[object], bool] | None:
    """Return what tells the work that starts clean: by the table, and by what is ``excluded``."""
    if primitive == "threading":
        return matching.thread_matcher(excluded)
    if primitive == "multiprocessing":
        return matching.process_matcher(excluded)
    return matching.callable_matcher(excluded)


def _starts_clean(primitive: str, work: object, excluded: tuple[str, ...]) -> bool:
    match = _matcher(primitive, excluded)
    return match is not None and work is not None and match(work)


def wants_none(context: Context) -> bool:
    """Whether ``context`` is empty since the program wants that: it has made one to begin a trace.

    There are two that it is given without making one, by OpenTelemetry and by this library.
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
    """Note that this flow hands work off; None where it is not to be observed.

    ``call`` is what was called, or that by the name of the function which the program's line has
    called, "" being the default. With ``always`` it is also observed where no line of the program
    has led to it. It is not reported where it is ``quiet`` or starts clean: a span that has lost
    its parent by it is. It is ``native`` where the context goes along by itself.
    """
    if not state.watching():
        return None
    site = frames.site(sys._getframe(1))  # pyright: ignore[reportPrivateUsage]
    if site.is_ours:
        return None
    clean = _starts_clean(primitive, work, _settings.excluded())
    if site.line is None and not (clean or always):
        return None  # the standard library's own affair
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
    """Note that the work of ``record`` is picked up here; return its flow. Never raises.

    ``source`` is the queue of an item; it is ``adopted`` by a consumer without a span.
    """
    if not state.watching():
        return None
    try:
        beneath = threads.get(get_ident())
        flow = Flow(record, FLOW.get(), beneath, source=source, adopted=adopted)
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
    """Whether a context may have come without being the current one at once."""
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
    """Do not look at what the work has left behind."""


at_end: Callable[[Flow], None] = look_at_nothing
"""Looks at what the work has left behind where it ends."""


def end(flow: Flow) -> None:
    """Note that the work of ``flow`` is done. Never raises."""
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
    """Note that this flow asks for an item, and is done with its last. Never raises.

    Return whether it has its own span, in which it will work on the next.
    """
    try:
        has_its_own = _has_its_own()
    except Exception as error:
        state.fault("ask", error)
        has_its_own = False
    let_go()
    return has_its_own


def let_go() -> None:
    """Note that this flow is done with its last item. Never raises."""
    flow = FLOW.get()
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
    """Whether this flow has a span that runs, and that has not come with its work."""
    context = handoff.get_current()
    origin = origin_of(context)
    if origin is None or not has_running_span(context):
        return False
    flow = current()
    return flow is None or flow.record.origin is None or flow.record.origin[:2] != origin[:2]


class Observed(functools.partial[Any]):
    """A callable on its way to where it is called, with the record of its hand-off.

    It is a partial: it pickles as one, and code that unwraps partials finds the function.
    """

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        record: Any = self.__dict__.get("record")
        return run(record, super().__call__, *args, **kwargs)


def run(record: Record | None, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
    """Call ``function`` as the work of ``record``."""
    flow = begin(record) if record is not None else None
    if flow is None:
        return function(*args, **kwargs)
    try:
        return function(*args, **kwargs)
    finally:
        end(flow)


def observed(function: Any, record: Record | None) -> Any:
    """Return ``function`` so that it is seen where it is called."""
    if record is None or not callable(function):
        return function
    if isinstance(function, handoff.Call):  # the layer that was asked last is called last
        function._function = observed(function._function, record)  # pyright: ignore[reportPrivateUsage]
        return function
    call = Observed(function)
    call.__dict__["record"] = record
    return call
