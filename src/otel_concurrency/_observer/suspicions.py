"""Decides whether a span that is being started has lost its parent, and why.

The decision is made in the span's process when it starts, since only then all evidence is there.
``_trace_report.explanations`` has the texts. If it is not certain, nothing is reported: a false
alarm is worse than a missing line.
"""

from __future__ import annotations

import sys
from _thread import get_ident
from collections import OrderedDict
from typing import Any

from opentelemetry.context import Context
from opentelemetry.trace.propagation import (
    _SPAN_KEY,  # pyright: ignore[reportPrivateUsage]  # a third of trace.get_current_span's cost
)

from otel_concurrency._core import frames
from otel_concurrency._core.callers import caller
from otel_concurrency._linking import origins
from otel_concurrency._observer import (
    by_hand,
    connection_hooks,
    context_hooks,
    flows,
    generator_spans,
    item_hooks,
    state,
    wake_hooks,
    worker_hooks,
)
from otel_concurrency._observer.connection_hooks import Left
from otel_concurrency._observer.flows import Flow
from otel_concurrency._observer.records import Origin

SEEN = "_otel_concurrency_seen"
"""The attribute of a span that holds its :class:`Seen`."""

_ENTRIES = ("SERVER", "CONSUMER")
"""The kinds of spans that normally start a trace."""

_MOST = 10_000
"""The maximum number of running spans that are remembered."""

_BEGIN_NOTHING = ("asyncio.", "concurrent.", "multiprocessing.", "opentelemetry.", "socketserver.")
"""Work that starts clean and makes no spans itself: it only does work handed off to it, or none."""


_LONG = 60_000_000_000
"""Nanoseconds after its end from which on a span should have no new children."""


class Seen:
    """What was seen of the start of a span."""

    __slots__ = (
        "began_ns",
        "flow",
        "generator",
        "name",
        "resumed_in",
        "site",
        "thread",
        "thread_name",
        "traces",
    )

    def __init__(self, span: Any, site: str | None, flow: Flow | None) -> None:
        self.name: str = span.name
        self.site = site
        self.flow = flow
        self.thread = get_ident()
        self.thread_name = flows.thread_name()
        self.generator = generator_spans.generator_of(caller())
        """The generator in which it was made current."""
        self.resumed_in: dict[generator_spans.Place, str] = {}
        """Where else the generator has run, with the ids of these hand-offs."""
        self.began_ns = flows.now()
        self.traces: set[str] = set()
        """The traces of the items that were got while it was current."""


_running: OrderedDict[str, tuple[Origin, int]] = OrderedDict()


def forget() -> None:
    """Reset the recorded state."""
    _running.clear()


def runs(span: Any) -> None:
    """Note that ``span`` has started."""
    own = flows.identify(span.get_span_context())
    _running[own[1]] = (*own, span.name), get_ident()
    if len(_running) > _MOST:
        _running.popitem(last=False)


def ended(span: Any) -> None:
    """Note that ``span`` has ended."""
    _running.pop(flows.identify(span.get_span_context())[1], None)


def about(
    span: Any, given: Context | None, here: Context, flow: Flow | None
) -> dict[str, Any] | None:
    """Return why ``span`` may have lost its parent, as plain data; None if nothing suggests it.

    ``given`` is the context that was passed to it, if any, and ``here`` is the current context.
    """
    explicit = given is not None
    context = here if given is None else given
    woken = wake_hooks.take() if span.parent is None else None
    if span.links or flows.wants_none(context):
        return None
    parent: Any = context.get(_SPAN_KEY)
    if span.parent is not None:
        above: Seen | None = getattr(parent, SEEN, None)
        left = None if explicit else _left(span, parent, above, here, flow)
        if left is not None:
            _tell_of(left, span)
        if above is None or left is not None:
            return None
        return _of_another(span, parent, above, here, flow, explicit=explicit)
    if span.kind.name in _ENTRIES:
        return None
    running = here.get(_SPAN_KEY)
    if explicit and running is not None and _runs(running):
        return {"reason": "explicit_context", "origin": flows.origin_of(here)}
    suspect = _woken(woken, flow) or (
        _unknown() if flow is None else _lost(flow, explicit=explicit)
    )
    return by_hand.explained(suspect, here)


def _left(
    span: Any, parent: Any, above: Seen | None, here: Context, flow: Flow | None
) -> Left | None:
    """Return where the context of ``parent`` was left, if ``span`` belongs to other work."""
    left = connection_hooks.about(span, parent)
    if left is not None or above is None:
        return left
    return worker_hooks.about(span, parent, above.flow, flow) or _suspended(above, here, flow)


def _suspended(above: Seen, here: Context, flow: Flow | None) -> Left | None:
    """Return the line that started the span of ``here``, if a suspended generator holds that."""
    generator = above.generator
    if generator is None or above.flow is not flow or context_hooks.attached_here(here) is not None:
        return None
    origin = flows.origin_of(here)
    if origin is None or not generator_spans.is_suspended(generator, caller()):
        return None
    return Left("left_by_generator", generator[1].co_name, above.site, origin, if_over=False)


def _tell_of(left: Left, span: Any) -> None:
    """Report a context that was left behind, and has now become the parent of ``span``."""
    own = flows.identify(span.get_span_context())
    state.tell(
        "leak",
        key=own[1],
        reason=left.reason,
        site=left.site,
        span=own,
        thread=flows.thread_name(),
        call=left.call,
        of=left.origin,
    )


def _runs(span: Any) -> bool:
    return bool(span.is_recording())


def _lost(flow: Flow, *, explicit: bool) -> dict[str, Any] | None:
    record = flow.record
    if record.clean:
        is_suspect = record.work and not record.work.startswith(_BEGIN_NOTHING)
        if record.origin is None or not is_suspect:
            return None
        return {"reason": "starts_clean", "origin": record.origin, "by": record.facts()}
    if record.cause is None or (flow.is_item and get_ident() in record.lineage[1:]):
        return None  # nothing was lost, or it is a result that comes back
    suspect = {"reason": "lost", "origin": record.cause, "by": record.facts()}
    if flow.captured is not None:
        suspect |= {"reason": "captured_late", "at": flow.captured}
    elif explicit:
        suspect |= {"reason": "explicit_context"}
    return suspect


def _woken(woken: wake_hooks.Woken | None, flow: Flow | None) -> dict[str, Any] | None:
    """Return a suspicion that names the call that woke this thread up.

    None if the thread has picked up other work since, or if it waited for work that the thread
    itself or its own trace had handed off.
    """
    if woken is None:
        return None
    record = woken.record
    if record.origin is None or get_ident() in record.lineage[1:]:
        return None
    if flow is not None:
        own = flow.record
        if flow.began_ns > woken.since or (
            own.cause is not None and own.cause[0] == record.origin[0]
        ):
            return None
    return {"reason": "woken", "origin": record.origin, "by": record.facts()}


def _unknown() -> dict[str, Any] | None:
    """Return a suspicion for a thread that no hook saw start.

    C code started it, or a name that was bound before the hooks were in place.
    """
    threading: Any = sys.modules["threading"]
    thread = threading._active.get(get_ident())
    if not (thread is None or isinstance(thread, threading._DummyThread)):
        return None
    elsewhere = [span for span, thread in list(_running.values()) if thread != get_ident()]
    if not elsewhere:
        return None  # no other span is running that could have been its parent
    one_trace = len({trace for trace, *_ in elsewhere}) == 1
    entry = frames.entry()
    return {
        "reason": "unknown_thread",
        "origin": elsewhere[-1] if one_trace else None,
        "at": entry and entry.line,
        "work": entry and entry.name,
    }


def _of_another(
    span: Any, parent: Any, above: Seen, here: Context, flow: Flow | None, *, explicit: bool
) -> dict[str, Any] | None:
    """Return why ``span`` may be a child of a span that it does not belong to."""
    has_ended = getattr(parent, origins.END, None) is not None
    trace, _ = flows.identify(span.parent)
    if explicit:
        running = here.get(_SPAN_KEY)
        origin = flows.origin_of(here) if running is not None and _runs(running) else None
        if origin is None and flow is not None:
            origin = flow.record.cause
        if not has_ended or origin is None or origin[0] == trace:
            return None
        return {"reason": "context_of_another", "origin": origin, "other": above.name}
    if has_ended:
        _left_behind(span, parent, above, here, flow)
        return None
    item = flows.innermost()
    if item is None or item.adopted or not isinstance(item.source, item_hooks.Records):
        return None
    return _not_adopted(trace, above, item, item.source)


def _not_adopted(
    trace: str, above: Seen, flow: Flow, queue: item_hooks.Records
) -> dict[str, Any] | None:
    """Return a suspicion that a consumer works on an item in its own span, not the item's context.

    None for results of work that the request itself handed off, for objects out of a pool, and
    until the span has got items of at least two traces.
    """
    record = flow.record
    if record.cause is None or trace in record.ancestors or queue.recirculates:
        return None
    if above.flow is flow or above.began_ns > flow.began_ns:
        return None
    above.traces.add(record.cause[0])
    if len(above.traces) < 2 or (above.flow is not None and above.flow.record.cause is not None):
        return None
    return {
        "reason": "consumer_span",
        "origin": record.cause,
        "by": record.facts(),
        "at": above.site,
        "other": above.name,
    }


def _left_behind(span: Any, parent: Any, above: Seen, here: Context, flow: Flow | None) -> None:
    """Report a context that has outlived its work, if that made ``span`` a child of its span."""
    trace, _ = flows.identify(span.parent)
    was_handed_off = flow is not None and above.flow is not flow and trace in flow.record.ancestors
    own = flows.identify(span.get_span_context())
    one = None if was_handed_off else context_hooks.attached_here(here)
    if one is not None:
        context_hooks.leaves(one, own)
        return
    of_another = flow is not None and flow.record.cause is not None and not was_handed_off
    if (of_another and above.flow is not flow) or span.start_time - parent.end_time > _LONG:
        state.tell(
            "leak",
            key=own[1],
            reason="ended_parent",
            site=above.site,
            span=own,
            thread=flows.thread_name(),
            of=(*flows.identify(span.parent), above.name),
        )
