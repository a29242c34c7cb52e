"""llama-index-workflows: events that are sent to a run.

The setting ASYNCIO covers them. The loop of a run, and so each of its steps, is in the context in
which the run was started. A step that was sent its event runs in the context of ``send_event``
instead, in each of its attempts. An event that was sent without a context, or that a step has
returned, is the run's own, and so is what a step collects of several events.
"""

from __future__ import annotations

import functools
import weakref
from types import CoroutineType, ModuleType
from typing import Any

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import NonRecordingSpan

from otel_concurrency._core import handoff
from otel_concurrency._core.awaiting import awaited_in
from otel_concurrency._core.handoff import Call, Seam
from otel_concurrency._core.patching import Layer, Patch
from otel_concurrency._core.signatures import NOT_GIVEN

TESTED = ("2.19.0", "2.26.1")

_sent: dict[int, tuple[weakref.ref[Any], Context]] = {}
"""By its id, since it has no hash: each event that was sent, and in which context."""


def _context_layers(context: ModuleType, seam: Seam) -> list[Patch]:
    return [Layer(context.Context, "send_event", lambda raw: _send_event(raw, seam))]


def _step_layers(step_function: ModuleType, seam: Seam) -> list[Patch]:
    return [Layer(step_function, "partial", lambda raw: _partial(raw, seam))]


_COROUTINE: Any = CoroutineType  # untyped: it is known of no coroutine what it yields

MODULES = {
    "asyncio": {
        "workflows.context.context": _context_layers,
        "workflows.runtime.types.step_function": _step_layers,
    },
}


def _remember(event: Any, context: Context) -> None:
    key = id(event)
    _sent[key] = weakref.ref(event, lambda _: _sent.pop(key, None)), context


def _send_event(original: Any, seam: Seam) -> Any:
    @functools.wraps(original)
    def send_event(self: Any, message: Any, step: Any = None) -> Any:
        try:
            context = seam.capture(message)
            if context:
                _remember(message, context)
            else:
                _sent.pop(id(message), None)  # it may have been sent before
        except Exception as error:
            handoff.report_fault("send_event", error)
        return original(self, message, step)

    return send_event


def _partial(original: Any, seam: Seam) -> Any:
    @functools.wraps(original)
    async def partial(
        func: Any,
        step_config: Any,
        event: Any,
        context: Any,
        workflow: Any,
        collected_events: Any = NOT_GIVEN,
        collection_events: Any = NOT_GIVEN,
    ) -> Any:
        several = {"collected_events": collected_events, "collection_events": collection_events}
        given = {name: value for name, value in several.items() if value is not NOT_GIVEN}
        step = await original(func, step_config, event, context, workflow, **given)
        sent = seam.active and id(event) in _sent and not any(given.values())
        return functools.partial(in_context_of, step, event) if sent else step

    return partial


def in_context_of(step: Any, event: Any) -> Any:
    """Call one attempt of a step, in the context of its event."""
    _, context = _sent.get(id(event), (None, None))
    if context is None:
        return step()
    try:
        result = Call(context, step)()
        return awaited_in(context, result) if isinstance(result, _COROUTINE) else result
    finally:
        _keep_for_other_attempts(event, context)
        context = None  # a traceback refers to this frame


def _keep_for_other_attempts(event: Any, context: Context) -> None:
    """Keep which span it is, and not the span itself: a run keeps its events as long as it lasts.

    An event may be for several steps, and a step may be tried again.
    """
    try:
        span = trace.get_current_span(context)
        if span.get_span_context().is_valid:
            named = NonRecordingSpan(span.get_span_context())
            context = trace.set_span_in_context(named, context)
        _remember(event, context)
    except Exception as error:
        handoff.report_fault("send_event", error)
