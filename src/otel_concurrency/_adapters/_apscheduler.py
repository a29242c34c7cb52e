"""APScheduler 3: each run of a job starts a new trace, linked to the span that added the job.

The setting SCHED covers it. The context in which a job was added is kept beside the scheduler, with
a link in the place of the span. Each run is submitted in that context, or in an empty one if there
is none, whatever context the scheduler's thread has. The executor then carries it as usual.
"""

from __future__ import annotations

import functools
import weakref
from types import ModuleType
from typing import Any

from opentelemetry.context import Context

from otel_concurrency._core import handoff
from otel_concurrency._core.handoff import NO_CONTEXT, Seam
from otel_concurrency._core.patching import Layer, Patch
from otel_concurrency._linking import origins

TESTED = ("3.10.4", "3.11.3")

_jobs: weakref.WeakKeyDictionary[Any, dict[str, Context]] = weakref.WeakKeyDictionary()
"""For each scheduler: the contexts of its jobs by job id."""


def _job_layers(job: ModuleType, seam: Seam) -> list[Patch]:
    return [Layer(job.Job, "__init__", lambda raw: _init(raw, seam))]


def _executor_layers(base: ModuleType, seam: Seam) -> list[Patch]:
    return [Layer(base.BaseExecutor, "submit_job", lambda raw: _submit_job(raw, seam))]


def _scheduler_layers(base: ModuleType, seam: Seam) -> list[Patch]:
    return [
        Layer(base.BaseScheduler, "remove_job", _remove_job),
        Layer(base.BaseScheduler, "remove_all_jobs", _remove_all_jobs),
    ]


MODULES = {
    "sched": {
        "apscheduler.job": _job_layers,
        "apscheduler.executors.base": _executor_layers,
        "apscheduler.schedulers.base": _scheduler_layers,
    }
}


def _init(original: Any, seam: Seam) -> Any:
    @functools.wraps(original)
    def __init__(self: Any, scheduler: Any, *args: Any, **kwargs: Any) -> None:  # noqa: N807
        original(self, scheduler, *args, **kwargs)
        try:
            context = seam.capture(self.func)
            if context:
                remembered = origins.deferred(context, seam.name)
                _jobs.setdefault(scheduler, {})[self.id] = remembered
        except Exception as error:
            handoff.report_fault("add_job", error)

    return __init__


def _submit_job(original: Any, seam: Seam) -> Any:
    @functools.wraps(original)
    def submit_job(self: Any, job: Any, run_times: Any) -> Any:
        if not seam.active:
            return original(self, job, run_times)
        context = NO_CONTEXT
        try:
            context = _jobs.get(self._scheduler, {}).get(job.id, NO_CONTEXT)
        except Exception as error:
            handoff.report_fault("submit_job", error)
        return handoff.Call(context, original)(self, job, run_times)

    return submit_job


def _remove_job(original: Any) -> Any:
    @functools.wraps(original)
    def remove_job(self: Any, job_id: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            return original(self, job_id, *args, **kwargs)
        finally:
            _jobs.get(self, {}).pop(job_id, None)

    return remove_job


def _remove_all_jobs(original: Any) -> Any:
    @functools.wraps(original)
    def remove_all_jobs(self: Any, jobstore: Any = None) -> Any:
        original(self, jobstore)
        if jobstore is None:
            _jobs.pop(self, None)

    return remove_all_jobs
