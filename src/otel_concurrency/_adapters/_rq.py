"""rq: jobs, with headers in a job's ``meta``.

The setting MULTIPROCESSING covers them, since workers are processes. A job that is retried or
repeated keeps its headers. A job that it enqueues gets the headers of the job that is running. A
forked worker exports what it has recorded before it exits.
"""

from __future__ import annotations

import functools
import importlib
from types import ModuleType
from typing import Any

from otel_concurrency._child_exit import flush
from otel_concurrency._core import handoff
from otel_concurrency._core.handoff import Seam
from otel_concurrency._core.patching import Layer, Patch
from otel_concurrency._crossing import carrier, tasks
from otel_concurrency._linking import span_start

TESTED = ("1.16.2", "3.0.0")

_HEADERS = "otel_concurrency"
"""The key in ``meta``."""


def _job_layers(job: ModuleType, seam: Seam) -> list[Patch]:
    return [Layer(job.Job, "create", lambda raw: _create(raw, seam))]


def _worker_layers(worker: ModuleType, seam: Seam) -> list[Patch]:
    owner = getattr(worker, "BaseWorker", worker.Worker)
    if not hasattr(owner, "perform_job"):
        owner = worker.Worker
    return [Layer(owner, "perform_job", lambda raw: _perform_job(raw, seam))]


MODULES = {"multiprocessing": {"rq.job": _job_layers, "rq.worker": _worker_layers}}


def _create(original: Any, seam: Seam) -> Any:
    plain = original.__func__

    @functools.wraps(plain)
    def create(cls: Any, *args: Any, **kwargs: Any) -> Any:
        job = plain(cls, *args, **kwargs)
        try:
            headers = carrier.capture(seam, None) if seam.active else None
            if headers is not None and _HEADERS not in job.meta:
                job.meta = {**job.meta, _HEADERS: headers}  # a copy: the program may own the dict
        except Exception as error:
            handoff.report_fault("enqueue", error)
        return job

    return classmethod(create)


def _perform_job(original: Any, seam: Seam) -> Any:
    @functools.wraps(original)
    def perform_job(self: Any, job: Any, *args: Any, **kwargs: Any) -> Any:
        if not seam.active:
            return original(self, job, *args, **kwargs)
        departure = _departure() if getattr(self, "_is_horse", False) else None
        try:
            headers = job.meta.get(_HEADERS)
            return tasks.run_in(headers, seam, original, self, job, *args, **kwargs)
        finally:
            if departure is not None:
                departure.end()

    return perform_job


def _departure() -> flush.Departure:
    """Return what exports at the end of a process that runs one job, and no exit handlers."""
    importlib.import_module("multiprocessing.util")  # `Departure` looks at its finalizers
    flush.at_start_of_child()
    return flush.Departure(span_start.started_since)
