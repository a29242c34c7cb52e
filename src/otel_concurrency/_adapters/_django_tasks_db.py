"""django-tasks-db: tasks of ``django.tasks`` in a database, with headers beside their arguments.

The setting MULTIPROCESSING covers them, since workers are processes. Tasks of a backend that runs
them at once stay in their flow, and need no adapter.
"""

from __future__ import annotations

import functools
from types import ModuleType
from typing import Any

from otel_concurrency._core import handoff
from otel_concurrency._core.handoff import Seam
from otel_concurrency._core.patching import Layer, Patch
from otel_concurrency._crossing import carrier, tasks

TESTED = ("0.12.0", "0.13.0")

_HEADERS = "otel_concurrency"
"""The key beside ``args`` and ``kwargs``, in their column."""


def _backend_layers(backend: ModuleType, seam: Seam) -> list[Patch]:
    return [Layer(backend, "normalize_json", lambda raw: _normalize_json(raw, seam))]


def _worker_layers(db_worker: ModuleType, seam: Seam) -> list[Patch]:
    return [Layer(db_worker.Worker, "run_task", lambda raw: _run_task(raw, seam))]


_DICT: Any = dict  # untyped: keys and values are whatever the library has put there
_PARTS = {"args", "kwargs"}

MODULES = {
    "multiprocessing": {
        "django_tasks_db.backend": _backend_layers,
        "django_tasks_db.management.commands.db_worker": _worker_layers,
    }
}


def _normalize_json(original: Any, seam: Seam) -> Any:
    """Wrap what the backend passes the arguments of a new task to, and nothing else."""

    @functools.wraps(original)
    def normalize_json(obj: Any) -> Any:
        normalized = original(obj)
        try:
            if seam.active and isinstance(normalized, _DICT) and normalized.keys() == _PARTS:
                headers = carrier.capture(seam, None)
                if headers is not None:
                    normalized[_HEADERS] = headers
        except Exception as error:
            handoff.report_fault("enqueue", error)
        return normalized

    return normalize_json


def _run_task(original: Any, seam: Seam) -> Any:
    @functools.wraps(original)
    def run_task(self: Any, db_task_result: Any) -> Any:
        headers = None
        try:
            headers = db_task_result.args_kwargs.get(_HEADERS) if seam.active else None
        except Exception as error:
            handoff.report_fault("extract", error)
        return tasks.run_in(headers, seam, original, self, db_task_result)

    return run_task
