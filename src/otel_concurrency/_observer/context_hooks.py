"""Watches for contexts that are attached and not detached, and contexts captured too late.

Only calls of the program itself are watched. OpenTelemetry always detaches what it attaches.
"""

from __future__ import annotations

import functools
from _thread import get_ident
from collections import OrderedDict
from types import FrameType, ModuleType
from typing import Any

from opentelemetry.context import Context
from opentelemetry.trace.propagation import (
    _SPAN_KEY,  # pyright: ignore[reportPrivateUsage]  # a third of trace.get_current_span's cost
)

from otel_concurrency._core import frames, handoff
from otel_concurrency._core.callers import caller
from otel_concurrency._core.patching import Layer
from otel_concurrency._observer import flows, state
from otel_concurrency._observer.flows import Flow
from otel_concurrency._observer.records import new_id

_MOST = 4096
"""The maximum number of attached contexts that are remembered until they are detached."""


class Attached:
    """A context that the program has attached, until it detaches it."""

    __slots__ = ("context", "flow", "key", "leaked", "origin", "site", "thread", "token")

    def __init__(self, token: object, context: Context, site: str, flow: Flow | None) -> None:
        self.token = token  # kept alive so that its id is not reused
        self.context = context
        self.site = site
        self.flow = flow
        self.thread = get_ident()
        self.origin = flows.origin_of(context)
        self.key = new_id()
        self.leaked = False


_attached: OrderedDict[int, Attached] = OrderedDict()


def forget() -> None:
    """Reset the recorded state, so that no context is kept alive any more."""
    for one in list(_attached.values()):
        if one.flow is not None:
            one.flow.attached.clear()
    _attached.clear()


def _layers(context: ModuleType) -> list[Layer]:
    return [
        Layer(context, "attach", _attach),
        Layer(context, "detach", _detach),
        Layer(context, "get_current", _get_current),
    ]


MODULES = {"opentelemetry.context": _layers}


def _is_the_programs(frame: FrameType | None) -> bool:
    name = "" if frame is None else str(frame.f_globals.get("__name__", ""))
    return not name.startswith(("opentelemetry.", "otel_concurrency."))


def _attach(original: Any) -> Any:
    @functools.wraps(original)
    def attach(context: Any) -> Any:
        token = original(context)
        if state.watching():
            try:
                frame = caller()
                site = frames.site(frame).line if _is_the_programs(frame) else None
                if site is not None:
                    _keep(Attached(token, context, site, flows.current()))
                    if not state.watching():  # watching has ended in between
                        forget()
            except Exception as error:
                state.fault("attach", error)
        return token

    return attach


def _keep(one: Attached) -> None:
    _attached[id(one.token)] = one
    if one.flow is not None:
        one.flow.attached.append(one)
    if len(_attached) > _MOST:
        _attached.popitem(last=False)


def _detach(original: Any) -> Any:
    @functools.wraps(original)
    def detach(token: Any) -> Any:
        try:
            one = _attached.pop(id(token), None)
            if one is not None:
                if one.flow is not None and one in one.flow.attached:
                    one.flow.attached.remove(one)
                if one.leaked:
                    state.tell("leak_over", key=one.key)
        except Exception as error:
            state.fault("detach", error)
        return original(token)

    return detach


def _get_current(original: Any) -> Any:
    @functools.wraps(original)
    def get_current() -> Any:
        context = original()
        if state.watching():
            try:
                frame = caller()
                if context.get(_SPAN_KEY) is None and _is_the_programs(frame):
                    flow = flows.current()
                    if flow is not None and flow.captured is None:
                        flow.captured = frames.site(frame).line
            except Exception as error:
                state.fault("get_current", error)
        return context

    return get_current


def at_end(flow: Flow) -> None:
    """Report a context that the work of ``flow`` has left attached to its thread."""
    if not flow.attached or flow.record.is_all_of_its_thread:
        return
    current = handoff.get_current()
    for one in flow.attached:
        if one.context is current and one.thread == get_ident():
            leaves(one)


def leaves(one: Attached, span: tuple[str, str] | None = None) -> None:
    """Report that ``one`` has outlived its work; ``span``, if given, was started in it."""
    one.leaked = True
    state.tell(
        "leak",
        key=one.key,
        reason="left_attached",
        site=one.site,
        span=span,
        thread=flows.thread_name(),
        of=one.origin,
    )


def attached_here(current: Context) -> Attached | None:
    """Return what the program attached on this thread: ``current``, or a context with its span."""
    for one in reversed(_attached.values()):
        if one.thread == get_ident() and (
            one.context is current
            or (one.origin is not None and one.origin == flows.origin_of(current))
        ):
            return one
    return None
