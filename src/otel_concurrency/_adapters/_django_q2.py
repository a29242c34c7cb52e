"""django-q2: tasks, with headers in the package that is sent for one.

The setting MULTIPROCESSING covers them, since workers are processes. A package that a broker
delivers again has its headers still. A task that runs at once, with ``sync``, stays in its flow.
"""

from __future__ import annotations

import functools
import sys
from types import ModuleType
from typing import Any

from otel_concurrency._core import handoff
from otel_concurrency._core.handoff import NO_CONTEXT, Seam
from otel_concurrency._core.patching import Alias, Layer, Patch
from otel_concurrency._crossing import carrier

TESTED = ("1.8.0", "1.11.1")

_HEADERS = "otel_concurrency"
"""The key in a package."""


def _signing_layers(signing: ModuleType, seam: Seam) -> list[Patch]:
    return [Layer(signing.SignedPackage, "dumps", lambda raw: staticmethod(_dumps(raw, seam)))]


def _worker_layers(worker: ModuleType, seam: Seam) -> list[Patch]:
    return [Layer(worker, "worker", lambda raw: _worker(raw, seam))]


def _cluster_layers(cluster: ModuleType, seam: Seam) -> list[Patch]:
    return [Alias(cluster, "worker", sys.modules["django_q.worker"])]


_DICT: Any = dict  # untyped: keys and values are whatever the library has put there

MODULES = {
    "multiprocessing": {
        "django_q.signing": _signing_layers,
        "django_q.worker": _worker_layers,
        "django_q.cluster": _cluster_layers,
    }
}


def _dumps(original: Any, seam: Seam) -> Any:
    plain = original.__func__

    @functools.wraps(plain)
    def dumps(obj: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            if seam.active and _is_task(obj):
                headers = carrier.capture(seam, None)
                if headers is not None:
                    obj = {**obj, _HEADERS: headers}
        except Exception as error:
            handoff.report_fault("async_task", error)
        return plain(obj, *args, **kwargs)

    return dumps


def _is_task(package: Any) -> bool:
    """Whether a package is a task that is yet to be done, by a worker."""
    if not isinstance(package, _DICT) or not {"func", "args", "kwargs"} <= package.keys():
        return False
    return "success" not in package and not package.get("sync")


class _Tasks:
    """A worker's queue: what the worker does with a task, it does in the task's context."""

    def __init__(self, queue: Any) -> None:
        self._queue = queue
        self._token: Any = None

    def get(self) -> Any:
        self.leave()
        task = self._queue.get()
        try:
            if isinstance(task, _DICT) and not task.get("sync"):
                # Also without headers: not the context in which the worker was started.
                context = carrier.unpack_safely(task.pop(_HEADERS, None)) or NO_CONTEXT
                self._token = handoff.attach_safely(context)
        except Exception as error:
            handoff.report_fault("extract", error)
        return task

    def leave(self) -> None:
        token, self._token = self._token, None
        handoff.leave(token)


def _worker(original: Any, seam: Seam) -> Any:
    @functools.wraps(original)
    def worker(task_queue: Any, *args: Any, **kwargs: Any) -> Any:
        if not seam.active:
            return original(task_queue, *args, **kwargs)
        tasks = _Tasks(task_queue)
        try:
            return original(tasks, *args, **kwargs)
        finally:
            tasks.leave()

    return worker
