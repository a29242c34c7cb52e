"""Watches spans that wait to be exported, to find processes that ended without exporting them.

Only the SDK's batch processors keep spans. Each processor is counted separately, since another one
may have exported the same spans. Whether an exporter then delivers them is not watched.
"""

from __future__ import annotations

import functools
import itertools
import weakref
from _thread import get_ident
from types import FrameType, ModuleType
from typing import Any

from otel_concurrency._core.callers import caller
from otel_concurrency._core.patching import Layer
from otel_concurrency._observer import state

_FRAMES_OF_A_CALL = 8
"""The number of frames searched between an exporter and its processor, for wrappers of others."""

_numbers = itertools.count(1)

_processors: weakref.WeakKeyDictionary[Any, str] = weakref.WeakKeyDictionary()
"""For each processor that keeps spans: the name under which they are counted."""

_exporting: set[int] = set()
"""The threads that are inside an exporter, which may call other exporters."""

_exporters: dict[type, Layer] = {}


def _layers(export: ModuleType) -> list[Layer]:
    return [Layer(export.BatchSpanProcessor, "on_end", _on_end)]


MODULES = {"opentelemetry.sdk.trace.export": _layers}


def undo() -> None:
    """Stop watching exporters."""
    for layer in _exporters.values():
        layer.undo()
    _exporters.clear()


def _on_end(original: Any) -> Any:
    @functools.wraps(original)
    def on_end(self: Any, span: Any) -> Any:
        try:
            if state.watching() and span.context.trace_flags.sampled and _can_be_seen(self):
                # In later versions of the SDK, a separate object keeps the spans.
                keeper = getattr(self, "_batch_processor", self)
                name = _processors.setdefault(keeper, str(next(_numbers)))
                state.tell("queued", processor=name)
        except Exception as error:
            state.fault("on_end", error)
        return original(self, span)

    return on_end


def _can_be_seen(processor: Any) -> bool:
    """Whether the exports of ``processor`` can be watched.

    The ``export`` of the exporter's class is patched. That misses an exporter whose instance has
    its own ``export``.
    """
    exporter: Any = getattr(processor, "span_exporter", None)
    kind: type = exporter.__class__
    if not callable(getattr(kind, "export", None)) or "export" in getattr(exporter, "__dict__", ()):
        return False
    if kind not in _exporters:
        _exporters[kind] = Layer(kind, "export", _export)
        _exporters[kind].apply()
    return True


def _export(original: Any) -> Any:
    @functools.wraps(original)
    def export(self: Any, spans: Any, *args: Any, **kwargs: Any) -> Any:
        thread = get_ident()
        if thread in _exporting:
            return original(self, spans, *args, **kwargs)
        _exporting.add(thread)
        try:
            return original(self, spans, *args, **kwargs)
        finally:
            _exporting.discard(thread)
            try:
                name = _asked_by(caller())
                if name is not None:
                    state.tell("exported", count=len(spans), processor=name)
            except Exception as error:
                state.fault("export", error)

    return export


def _asked_by(frame: FrameType | None) -> str | None:
    """Return the name of the processor whose spans are being exported."""
    for _ in range(_FRAMES_OF_A_CALL):
        if frame is None:
            return None
        asks = frame.f_locals.get("self")
        for keeper, name in list(_processors.items()):
            if keeper is asks:
                return name
        frame = frame.f_back
    return None
