"""gradio: events that wait in a queue until a task of the queue's own handles them.

The setting ASYNCIO covers them. An event is handled in the context of the request that brought it;
several that a function gets at once are a batch.
"""

from __future__ import annotations

import functools
from types import ModuleType
from typing import Any

from otel_concurrency._core import handoff
from otel_concurrency._core.awaiting import awaited_in
from otel_concurrency._core.handoff import NO_CONTEXT, Seam
from otel_concurrency._core.patching import Layer, Patch
from otel_concurrency._linking import batches

TESTED = ("6.31.0", "6.31.0")

_CONTEXT = "_otel_concurrency_context"
"""The attribute of an event with the context of its request, until it is handled."""


def _layers(queueing: ModuleType, seam: Seam) -> list[Patch]:
    return [
        Layer(queueing.Event, "__init__", lambda raw: _init(raw, seam)),
        Layer(queueing.Queue, "process_events", lambda raw: _process_events(raw, seam)),
    ]


MODULES = {"asyncio": {"gradio.queueing": _layers}}


def _init(original: Any, seam: Seam) -> Any:
    @functools.wraps(original)
    def __init__(  # noqa: N807
        self: Any, session_hash: Any, fn: Any, request: Any, username: Any
    ) -> None:
        original(self, session_hash, fn, request, username)
        try:
            context = seam.capture(fn)
            if context:
                setattr(self, _CONTEXT, context)
        except Exception as error:
            handoff.report_fault("push", error)

    return __init__


def _process_events(original: Any, seam: Seam) -> Any:
    @functools.wraps(original)
    async def process_events(self: Any, events: Any, batch: Any, begin_time: Any, fn: Any) -> None:
        processing = original(self, events, batch, begin_time, fn)
        if not seam.active:
            await processing
            return
        context = NO_CONTEXT
        try:
            given: list[dict[str, Any]] = [vars(event) for event in events]
            context = batches.merged([attributes.pop(_CONTEXT, None) for attributes in given])
        except Exception as error:
            handoff.report_fault("process_events", error)
        await awaited_in(context, processing)

    return process_events
