"""celery: the ends of its forked workers; tasks are what OpenTelemetry's own instrumentor carries.

They go by MULTIPROCESSING. A worker process of the pool ``prefork`` leaves without exit handlers:
what it has recorded is exported before. Its base context is clean, whoever has started the pool.
"""

from __future__ import annotations

import functools
import importlib
from types import ModuleType
from typing import Any

from otel_concurrency import _flush, _handoff, _spans
from otel_concurrency._handoff import NO_CONTEXT, Seam
from otel_concurrency._patching import Layer, Patch

TESTED = ("5.4.0", "5.7.0")


def _prefork_layers(prefork: ModuleType, seam: Seam) -> list[Patch]:
    worker = _Worker()
    return [
        Layer(prefork, "process_initializer", lambda raw: _initializer(raw, seam, worker)),
        Layer(prefork, "process_destructor", lambda raw: _destructor(raw, worker)),
    ]


MODULES = {"multiprocessing": {"celery.concurrency.prefork": _prefork_layers}}


class _Worker:
    """What is known of this process, if it is a worker."""

    departure: _flush.Departure | None = None


def _initializer(original: Any, seam: Seam, worker: _Worker) -> Any:
    @functools.wraps(original)
    def process_initializer(*args: Any, **kwargs: Any) -> Any:
        if seam.active:
            _handoff.attach_safely(NO_CONTEXT)
            try:
                importlib.import_module("multiprocessing.util")  # whose finalizers are asked about
                _flush.at_start_of_child()
                worker.departure = _flush.Departure(_spans.started_since)
            except Exception as error:
                _handoff.report("start a worker", error)
        return original(*args, **kwargs)

    return process_initializer


def _destructor(original: Any, worker: _Worker) -> Any:
    @functools.wraps(original)
    def process_destructor(*args: Any, **kwargs: Any) -> Any:
        try:
            return original(*args, **kwargs)
        finally:
            if worker.departure is not None:
                worker.departure.end()

    return process_destructor
