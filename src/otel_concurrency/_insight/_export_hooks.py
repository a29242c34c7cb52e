"""Watches spans that wait to be exported, so that it is known of which processes they were not.

Only the SDK's batch processor keeps spans. What an exporter makes of them is not looked at.
"""

from __future__ import annotations

import functools
from _thread import get_ident
from types import ModuleType
from typing import Any

from otel_concurrency._insight import _state
from otel_concurrency._patching import Layer

_queued: set[int] = set()
"""The threads on which a span is about to end that was put into a queue."""

_exporters: dict[type, Layer] = {}


def _layers(export: ModuleType) -> list[Layer]:
    return [Layer(export.BatchSpanProcessor, "on_end", _on_end)]


MODULES = {"opentelemetry.sdk.trace.export": _layers}


def undo() -> None:
    """Watch exporters no longer."""
    for layer in _exporters.values():
        layer.undo()
    _exporters.clear()


def was_queued() -> bool:
    """Whether the span that has just ended on this thread was put into a queue."""
    if get_ident() in _queued:
        _queued.discard(get_ident())
        return True
    return False


def _on_end(original: Any) -> Any:
    @functools.wraps(original)
    def on_end(self: Any, span: Any) -> Any:
        try:
            exporter: Any = getattr(self, "span_exporter", None)
            if _state.watching() and exporter is not None:
                kind: type = exporter.__class__
                if kind not in _exporters:
                    _exporters[kind] = Layer(kind, "export", _export)
                    _exporters[kind].apply()
                if span.context.trace_flags.sampled:
                    _queued.add(get_ident())
        except Exception as error:
            _state.fault("on_end", error)
        return original(self, span)

    return on_end


def _export(original: Any) -> Any:
    @functools.wraps(original)
    def export(self: Any, spans: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            return original(self, spans, *args, **kwargs)
        finally:
            try:
                _state.tell("exported", count=len(spans))
            except Exception as error:
                _state.fault("export", error)

    return export
