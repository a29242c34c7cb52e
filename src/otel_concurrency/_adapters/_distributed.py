"""dask.distributed: tasks, with headers in an annotation.

The setting MULTIPROCESSING covers them, since workers are processes, on this host or another. An
annotation is metadata of a task, which dask's scheduler sends to the worker with the task.
"""

from __future__ import annotations

import functools
import importlib
from types import ModuleType
from typing import Any

from otel_concurrency._core import handoff
from otel_concurrency._core.handoff import NO_CONTEXT, Seam
from otel_concurrency._core.patching import Layer, Patch
from otel_concurrency._crossing import carrier

TESTED = ("2026.8.0", "2026.8.0")

_HEADERS = "otel_concurrency"
"""The annotation with the headers."""


def _client_layers(client: ModuleType, seam: Seam) -> list[Patch]:
    return [Layer(client.Client, "_graph_to_futures", lambda raw: _graph_to_futures(raw, seam))]


def _worker_layers(worker: ModuleType, seam: Seam) -> list[Patch]:
    return [Layer(worker.Worker, "execute", lambda raw: _execute(raw, seam))]


MODULES = {
    "multiprocessing": {
        "distributed.client": _client_layers,
        "distributed.worker": _worker_layers,
    }
}


def _graph_to_futures(original: Any, seam: Seam) -> Any:
    @functools.wraps(original)
    def _graph_to_futures(self: Any, *args: Any, **kwargs: Any) -> Any:
        headers = carrier.capture(seam, None) if seam.active else None
        if headers is None:
            return original(self, *args, **kwargs)
        dask: Any = importlib.import_module("dask")
        with dask.annotate(**{_HEADERS: headers}):
            return original(self, *args, **kwargs)

    return _graph_to_futures


def _execute(original: Any, seam: Seam) -> Any:
    @functools.wraps(original)
    async def execute(self: Any, key: Any, **kwargs: Any) -> Any:
        token = _attach(self, key) if seam.active else None
        try:
            return await original(self, key, **kwargs)
        finally:
            handoff.leave(token)
            token = None

    return execute


def _attach(worker: Any, key: Any) -> Any:
    """Attach the context that came with a task.

    Without headers it is an empty one, since the worker may have been started inside a context.
    """
    try:
        annotations: Any = getattr(worker.state.tasks.get(key), "annotations", None) or {}
        context = carrier.unpack_safely(annotations.get(_HEADERS))
        return handoff.attach_safely(context or NO_CONTEXT)
    except Exception as error:
        handoff.report_fault("attach", error)
        return None
