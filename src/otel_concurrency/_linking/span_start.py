"""Patches ``Tracer.start_span`` of the SDK, the only place that adds links to spans.

Links are passed when a span is created, so that samplers see them. This code runs for every span of
a program and nearly always has nothing to do, so it is written for speed and repeats itself.
"""

from __future__ import annotations

import functools
import inspect
import os
import threading
import time
from collections.abc import Callable
from types import ModuleType
from typing import Any

from opentelemetry.trace import INVALID_SPAN_CONTEXT, NonRecordingSpan
from opentelemetry.trace.propagation import (
    _SPAN_KEY,  # pyright: ignore[reportPrivateUsage]  # a third of trace.get_current_span's cost
)

from otel_concurrency._core import handoff
from otel_concurrency._core.handoff import (
    Seam,
    adopted,
    begin_span,
    capture_nothing,
    get_current,
    seams,
)
from otel_concurrency._core.imports import when_imported
from otel_concurrency._core.patching import Layer, Patch, apply_all, undo_all
from otel_concurrency._linking import flows, origins
from otel_concurrency._linking.origins import is_dead
from otel_concurrency._linking.rounds import learn, running

started = False
"""Whether a span was started in this process since the last call of :func:`started_since`."""


def started_since() -> bool:
    """Return whether a span was started in this process since the last call."""
    global started
    before, started = started, False
    return before


def _begin() -> None:
    global started, _giving_links  # noqa: PLW0603
    started = False
    _giving_links = threading.Lock()  # another thread of the parent may have held it


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin)

RootWatcher = Callable[[Any, Any, Any], None]
"""Takes a root span, and the ``kind`` and the ``links`` that were passed to ``start_span``."""

_root_watchers: tuple[RootWatcher, ...] = ()
"""Called for each root span, after it has started. Empty unless a setting asks for it."""

attentive: object = running
"""True while anything needs to know of each span: a round that runs, or a watcher of root spans.

One object for both, so that root spans cost nothing while nothing watches them.
"""


def watch_roots(*watchers: RootWatcher) -> None:
    """Call ``watchers``, and no others, for each root span from now on."""
    global _root_watchers, attentive  # noqa: PLW0603
    _root_watchers = watchers
    attentive = bool(watchers) or running


link_after = 0
"""How long (ns) after its end a span can still become a parent implicitly; 0: without limit."""


def _layers(sdk: ModuleType, seam: Seam) -> list[Patch]:
    return [
        Layer(sdk.Tracer, "start_span", lambda raw: _start_span(raw, seam)),
        Layer(NonRecordingSpan, "end", _end),
    ]


class _LinksByHand:
    """Sets the patches of :func:`give_links` aside; applied and undone as a layer is.

    With two patches, a span would be taken for two: the second one of a batch belongs to no item.
    """

    layers = ()  # it replaces no attributes

    def __init__(self) -> None:
        self._set_aside = False

    def apply(self) -> None:
        """Undo them while the library's own patches are on."""
        if _BY_HAND in seams and seams[_BY_HAND].active:
            give_none()
            self._set_aside = True

    def undo(self) -> None:
        """Have them back if they were there."""
        if self._set_aside:
            self._set_aside = False
            give_links()


def _layers_of_library(sdk: ModuleType, seam: Seam) -> list[Patch]:
    return [_LinksByHand(), *_layers(sdk, seam)]


MODULES = {"opentelemetry.sdk.trace": _layers_of_library}

adopted_by_flow = adopted.get

_BY_HAND = "links by hand"

_giving_links = threading.Lock()


def give_links() -> None:
    """Patch the SDK so that spans get links even while the library is off.

    For programs that link by hand. Only :func:`give_none` undoes it. Never raises.
    """
    try:
        of_library = seams.get("spans")
        if of_library is not None and of_library.active:
            return
        with _giving_links:
            seam = seams.get(_BY_HAND) or Seam(_BY_HAND)
            if seam.active:
                return
            seam.capture = handoff.capture
        when_imported("opentelemetry.sdk.trace", _give, owner=_BY_HAND)
    except Exception as error:
        handoff.report_fault("link", error)


_given: list[Patch] = []


def _give(sdk: ModuleType) -> None:
    with _giving_links:
        seam = seams[_BY_HAND]
        if seam.active:
            _given[:] = _given or _layers(sdk, seam)
            apply_all(_given)


def give_none() -> None:
    """Leave the SDK as it was before :func:`give_links`."""
    with _giving_links:
        if _BY_HAND in seams:
            seams[_BY_HAND].switch_off()
            undo_all(_given)


_END = origins.END
_NOT_SAMPLED: Any = NonRecordingSpan
_PARAMETERS = (
    "self name context kind attributes links start_time record_exception set_status_on_exception"
)
"""The parameters of ``start_span`` in every SDK so far."""
_ARGUMENTS: list[str] = [*_PARAMETERS.split()[1:]]


def _start_span(original: Any, seam: Seam) -> Any:
    # A wrapper of another library, or the function of a later SDK, gets its arguments exactly as
    # the caller passed them. Passing `**kwargs` on costs 3 % of a span, so the SDK's known function
    # is called with named parameters.
    names = [parameter.name for parameter in _parameters(original)]
    wrap = _exactly if " ".join(names) == _PARAMETERS else _as_called
    start_span, retire = wrap(original, seam)
    # An earlier replacement may still be called, from below a patch that does not show what it
    # wraps. A span that both of them handle would be taken for two.
    _retire.pop(seam.name, _pass)()
    _retire[seam.name] = retire
    return start_span


_retire: dict[str, Callable[[], None]] = {}
"""By seam: makes the present replacement of ``start_span`` a pass-through for good."""


def _pass() -> None:
    pass


def _parameters(function: Any) -> list[inspect.Parameter]:
    return list(inspect.signature(function, follow_wrapped=False).parameters.values())


def _exactly(original: Any, seam: Seam) -> tuple[Any, Callable[[], None]]:
    is_retired = False

    def retire() -> None:
        nonlocal is_retired
        is_retired = True

    @functools.wraps(original)
    def start_span(
        self: Any,
        name: Any,
        context: Any = None,
        kind: Any = None,
        attributes: Any = None,
        links: Any = None,
        start_time: Any = None,
        record_exception: Any = True,
        set_status_on_exception: Any = True,
    ) -> Any:
        global started  # noqa: PLW0603
        if is_retired:
            return original(
                self,
                name,
                context,
                kind,
                attributes,
                links,
                start_time,
                record_exception,
                set_status_on_exception,
            )
        parent: Any = None
        if seam.capture is not capture_nothing:
            try:
                current = get_current() if context is None else context
                if handoff.any_adopted:
                    record = adopted_by_flow()
                    if record is not None and record[0]() is current:
                        current = begin_span(current, implicit=context is None)
                        context = context and current
                if current:
                    parent = current.get(_SPAN_KEY)
                    # A parent that still runs needs no link, so this skips the common case.
                    if parent is None or getattr(parent, _END, 0) is not None:
                        context, links = _linked(current, parent, context, links, start_time)
            except Exception as error:
                parent = None
                handoff.report_fault("start_span", error)
        span = original(
            self,
            name,
            context,
            kind,
            attributes,
            links,
            start_time,
            record_exception,
            set_status_on_exception,
        )
        started = True
        if span.__class__ is _NOT_SAMPLED and span is not parent:
            try:  # the same as `_runs`, without its calls
                own = span._context
                if own is not INVALID_SPAN_CONTEXT and (
                    parent is None or own is not parent._context
                ):
                    span._end_time = None
            except Exception:
                _runs(span, parent)
        if attentive:
            _has_started(span, parent, kind, links)
        return span

    defaults = [parameter.default for parameter in _parameters(original)]
    setattr(start_span, "__defaults__", tuple(defaults[2:]))  # noqa: B010 - unknown to type checkers
    return start_span, retire


def _as_called(original: Any, seam: Seam) -> tuple[Any, Callable[[], None]]:
    is_retired = False

    def retire() -> None:
        nonlocal is_retired
        is_retired = True

    @functools.wraps(original)
    def start_span(self: Any, *args: Any, **kwargs: Any) -> Any:
        global started  # noqa: PLW0603
        if is_retired:
            return original(self, *args, **kwargs)
        parent: Any = None
        kind = links = None
        if seam.capture is not capture_nothing:
            try:
                given = dict(zip(_ARGUMENTS, args, strict=False)) | kwargs
                context, links, kind = map(given.get, ("context", "links", "kind"))
                current = get_current() if context is None else context
                record = adopted_by_flow()
                if record is not None and record[0]() is current:
                    current = begin_span(current, implicit=context is None)
                    if context is not None and current is not context:
                        args, kwargs = _with("context", current, args, kwargs)
                        context = current
                parent = current.get(_SPAN_KEY)
                linked = _linked(current, parent, context, links, given.get("start_time"))
                for name, before, value in zip(_LINKED, (context, links), linked, strict=True):
                    if value is not before:
                        args, kwargs = _with(name, value, args, kwargs)
                links = linked[1]
            except Exception as error:
                parent = None
                handoff.report_fault("start_span", error)
        span = original(self, *args, **kwargs)
        started = True
        if span.__class__ is _NOT_SAMPLED and span is not parent:
            _runs(span, parent)
        if attentive:
            _has_started(span, parent, kind, links)
        return span

    return start_span, retire


_LINKED = ("context", "links")


def _with(name: str, value: Any, args: Any, kwargs: Any) -> tuple[Any, Any]:
    """Return the arguments of ``start_span`` with one of them replaced, by position or by name."""
    place = _ARGUMENTS.index(name)
    if place < len(args):
        return (*args[:place], value, *args[place + 1 :]), kwargs
    return args, {**kwargs, name: value}


def _linked(
    current: Any, parent: Any, context: Any, links: Any, start_time: Any
) -> tuple[Any, Any]:
    """Return the context and the links for a span that is to be started in ``current``.

    ``context`` is the one that the caller passed, if any. It is kept, however old its span is.
    """
    if parent is not None and parent.get_span_context().is_valid:
        if context is not None or not link_after:
            return context, links
        if not is_dead(current, parent, link_after, start_time):
            if getattr(parent, _END, None) is not None:
                flows.note(current, parent)
            return context, links
        current = context = _without(current, parent)
    pending = origins.pending(current)
    if not pending:
        return context, links
    given = tuple(links or ())
    # Another layer of this library may have added them: other code's patch lies between the two.
    if any(one is pending[0] for one in given):
        return context, given
    return context, (*pending, *given)  # beyond its limit, the SDK keeps the last links


def _without(current: Any, parent: Any) -> Any:
    """Return the context for the next span in ``current``, whose span ``parent`` ended long ago.

    If this flow outlives ``parent``, it also leaves ``current`` for good.
    """
    late = origins.deferred(current, None, "ended")
    rest = None if getattr(parent, _END, None) is None else flows.left(current, parent)
    if rest is None:
        return late
    handoff.attach(rest)
    return origins.without_span(rest, origins.origin_of(late))


def _has_started(span: Any, parent: Any, kind: Any, links: Any) -> None:
    """Tell a round that runs, and the watchers of root spans, of ``span``. Never raises."""
    try:
        if running:
            learn(span, parent)
        # A parent that still runs is the parent of the span, so this skips the common case.
        if _root_watchers and (parent is None or getattr(parent, _END, 0) is not None):
            _watch(span, parent, kind, links)
    except Exception as error:
        handoff.report_fault("start_span", error)


def _watch(span: Any, parent: Any, kind: Any, links: Any) -> None:
    """Show ``span`` to the watchers if it is the root of a trace. Never raises.

    ``parent`` is the span of the context in which it was started. It is not its parent if it is
    invalid, or if it ended long ago.
    """
    try:
        own = span.get_span_context()
        if getattr(span, "parent", None) is not None or not own.is_valid:
            return
        if parent is not None and parent.get_span_context().trace_id == own.trace_id:
            return  # the span is not sampled, and so it does not know its parent
        for watcher in _root_watchers:
            watcher(span, kind, links)
    except Exception as error:
        handoff.report_fault("start_span", error)


def _runs(span: Any, parent: Any) -> None:
    """Mark ``span``, which is not sampled, as running. The SDK's sampled spans mark themselves.

    A disabled tracer returns its parent span, or one in its place, or an invalid one. Those are not
    marked.
    """
    try:
        own = span.get_span_context()
        if own is not INVALID_SPAN_CONTEXT and (
            parent is None or own is not parent.get_span_context()
        ):
            span._end_time = None
    except Exception as error:
        handoff.report_fault("start_span", error)


def _end(original: Any) -> Any:
    code = getattr(original, "__code__", None)
    does_nothing = code is not None and (
        (code.co_code, code.co_consts) == (_pass.__code__.co_code, _pass.__code__.co_consts)
    )

    @functools.wraps(original)
    def end(self: Any, end_time: Any = None) -> Any:
        # The SDK has not sampled this span, and it runs. The SDK does not record its end.
        if getattr(self, _END, 0) is None:
            self._end_time = time.time_ns() if end_time is None else end_time
        if does_nothing:
            return None
        return original(self) if end_time is None else original(self, end_time)

    return end
