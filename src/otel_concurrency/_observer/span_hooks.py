"""Watches spans: where each is started, in which flow, and under which parent."""

from __future__ import annotations

import functools
import sys
from collections.abc import Mapping
from types import ModuleType
from typing import Any

from opentelemetry.trace import Link, NonRecordingSpan
from opentelemetry.trace.propagation import (
    _SPAN_KEY,  # pyright: ignore[reportPrivateUsage]  # a third of trace.get_current_span's cost
)

from otel_concurrency._core import frames, handoff
from otel_concurrency._core.callers import caller
from otel_concurrency._core.patching import Layer
from otel_concurrency._linking import origins
from otel_concurrency._observer import flows, resumptions, state, suspicions
from otel_concurrency._observer.suspicions import SEEN, Seen


def _layers(sdk: ModuleType) -> list[Layer]:
    return [
        Layer(sdk.Tracer, "start_span", _start_span),
        Layer(sdk.Span, "end", _end),
    ]


MODULES = {"opentelemetry.sdk.trace": _layers}


def _start_span(original: Any) -> Any:
    @functools.wraps(original)
    def start_span(self: Any, *args: Any, **kwargs: Any) -> Any:
        span = original(self, *args, **kwargs)
        if state.watching():
            try:
                given = args[1] if len(args) > 1 else kwargs.get("context")
                _started(span, given)
            except Exception as error:
                state.fault("start_span", error)
        return span

    return start_span


def _started(span: Any, given: Any) -> None:
    if isinstance(span, NonRecordingSpan):
        return  # it will not be exported
    here = handoff.get_current()
    flow = flows.current()
    parent: Any = (here if given is None else given).get(_SPAN_KEY)
    site = frames.site(sys._getframe(1)).line  # pyright: ignore[reportPrivateUsage]
    setattr(span, SEEN, Seen(span, site, flow))
    suspicions.runs(span)
    above: Seen | None = getattr(parent, SEEN, None)
    suspect = suspicions.about(span, given, here, flow)
    own = span.get_span_context()
    state.tell(
        "span",
        id=flows.identify(own),
        parent=None if span.parent is None else flows.identify(span.parent),
        name=span.name,
        start_ns=span.start_time,
        kind=span.kind.name,
        links=[_link(link) for link in span.links],
        thread=flows.thread_name(),
        task=_task(),
        site=site,
        hand_off=_arrived_by(span, flow, above),
        suspect=suspect,
    )


def _arrived_by(span: Any, flow: flows.Flow | None, above: Seen | None) -> str | None:
    """Return the id of the hand-off between a span and its parent, if there was one.

    For a root it is the hand-off that should have brought a parent.
    """
    if above is not None:
        moved = resumptions.hand_off(above, (*flows.identify(span.parent), above.name), caller())
        if moved is not None:
            return moved
    if flow is None or flow.record.clean:
        return None
    if span.parent is None and flow.record.cause is None:
        return None
    if above is not None and above.flow is not None and above.flow.record.id == flow.record.id:
        return None
    return flow.record.id


def _task() -> str:
    tasks: Any = sys.modules.get("asyncio.tasks")
    events: Any = sys.modules.get("asyncio.events")
    if tasks is None or events is None or events._get_running_loop() is None:
        return ""
    task = tasks.current_task()
    return "" if task is None else str(task.get_name())


def _link(link: Link) -> dict[str, Any]:
    attributes = link.attributes or {}
    return {
        "to": flows.identify(link.context),
        "reason": attributes.get(origins.REASON),
        "primitive": attributes.get(origins.PRIMITIVE),
    }


def _end(original: Any) -> Any:
    @functools.wraps(original)
    def end(self: Any, *args: Any, **kwargs: Any) -> Any:
        had_ended = getattr(self, origins.END, None) is not None
        result = original(self, *args, **kwargs)
        if not had_ended and state.watching():
            try:
                suspicions.ended(self)
                state.tell(
                    "span_end",
                    id=flows.identify(self.get_span_context()),
                    name=self.name,
                    end_ns=self.end_time,
                    status=self.status.status_code.name,
                    attributes=_plain(self.attributes or {}),
                    links=[_link(link) for link in self.links],
                )
            except Exception as error:
                state.fault("end", error)
        return result

    return end


def _plain(attributes: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: value if isinstance(value, str | bool | int | float) else _sequence(value)
        for key, value in attributes.items()
    }


def _sequence(value: Any) -> Any:
    return list(value) if isinstance(value, tuple | list) else str(value)  # pyright: ignore[reportUnknownArgumentType,reportUnknownVariableType]
