"""dramatiq: messages to actors, with headers in an option of the message.

The setting MULTIPROCESSING covers them, since workers are processes. A message keeps its headers
when it is retried or delayed. Messages that an actor sends, and those of a pipeline, get headers
from the message that is being processed.
"""

from __future__ import annotations

import functools
from types import ModuleType
from typing import Any

from otel_concurrency._core import handoff
from otel_concurrency._core.handoff import Seam
from otel_concurrency._core.patching import Layer, Patch
from otel_concurrency._crossing import carrier, tasks

TESTED = ("1.17.1", "2.2.1")

_HEADERS = "otel_concurrency"
"""The option with the headers."""


def _broker_layers(broker: ModuleType, seam: Seam) -> list[Patch]:
    return [Layer(broker.Broker, "emit_before", lambda raw: _emit_before(raw, seam))]


def _worker_layers(worker: ModuleType, seam: Seam) -> list[Patch]:
    thread = getattr(worker, "WorkerThread", None) or worker._WorkerThread  # to 1.18
    return [Layer(thread, "process_message", lambda raw: _process_message(raw, seam))]


MODULES = {
    "multiprocessing": {"dramatiq.broker": _broker_layers, "dramatiq.worker": _worker_layers}
}


def _emit_before(original: Any, seam: Seam) -> Any:
    @functools.wraps(original)
    def emit_before(self: Any, signal: Any, *args: Any, **kwargs: Any) -> Any:
        if signal == "enqueue" and seam.active:
            try:
                _add_headers(args[0], seam)
            except Exception as error:
                handoff.report_fault("send", error)
        return original(self, signal, *args, **kwargs)

    return emit_before


def _add_headers(message: Any, seam: Seam) -> None:
    if _HEADERS not in message.options:
        headers = carrier.capture(seam, None)
        if headers is not None:
            message.options[_HEADERS] = headers


def _process_message(original: Any, seam: Seam) -> Any:
    @functools.wraps(original)
    def process_message(self: Any, message: Any) -> Any:
        headers = message.options.get(_HEADERS) if seam.active else None
        return tasks.run_in(headers, seam, original, self, message)

    return process_message
