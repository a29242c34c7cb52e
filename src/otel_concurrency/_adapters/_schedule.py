"""schedule: each run of a job starts a new trace, linked to the span that added the job.

The setting SCHED covers it. Jobs run in the flow that calls ``run_pending``. A job that was added
without a context runs without a context, whatever that flow has attached. What a job leaves
attached does not reach the next one.
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

TESTED = ("1.2.0", "1.2.2")

_jobs: weakref.WeakKeyDictionary[Any, Context] = weakref.WeakKeyDictionary()
"""For each job: the context in which it was added, with a link in the place of the span."""


def _layers(schedule: ModuleType, seam: Seam) -> list[Patch]:
    job = vars(schedule)["Job"]
    return [
        Layer(job, "do", lambda raw: _do(raw, seam)),
        Layer(job, "run", lambda raw: _run(raw, seam)),
    ]


MODULES = {"sched": {"schedule": _layers}}


def _do(original: Any, seam: Seam) -> Any:
    @functools.wraps(original)
    def do(self: Any, job_func: Any, *args: Any, **kwargs: Any) -> Any:
        job = original(self, job_func, *args, **kwargs)
        try:
            context = seam.capture(job_func)
            if context:
                _jobs[self] = origins.deferred(context, seam.name)
        except Exception as error:
            handoff.report_fault("do", error)
        return job

    return do


def _run(original: Any, seam: Seam) -> Any:
    @functools.wraps(original)
    def run(self: Any) -> Any:
        if not seam.active:
            return original(self)
        context = NO_CONTEXT
        try:
            context = _jobs.get(self, NO_CONTEXT)
        except Exception as error:
            handoff.report_fault("run", error)
        return handoff.Call(context, original)(self)

    return run
