"""arq: jobs, with headers behind the pickled message.

The setting MULTIPROCESSING covers them, since a worker is another process. A worker without this
library ignores bytes that follow a pickle. A job that is retried or deferred keeps its headers. A
job that it enqueues gets the headers of the context that is current then.
"""

from __future__ import annotations

import functools
import pickle
from types import ModuleType
from typing import Any

from otel_concurrency._core import handoff
from otel_concurrency._core.handoff import NO_CONTEXT, Seam
from otel_concurrency._core.patching import Layer, Patch
from otel_concurrency._crossing import carrier, tasks

TESTED = ("0.26.0", "0.28.0")


def _connections_layers(connections: ModuleType, seam: Seam) -> list[Patch]:
    return [Layer(connections, "serialize_job", lambda raw: _serialize_job(raw, seam))]


def _worker_layers(worker: ModuleType, seam: Seam) -> list[Patch]:
    return [
        Layer(worker, "deserialize_job_raw", lambda raw: _deserialize_job_raw(raw, seam)),
        Layer(worker.Worker, "run_job", lambda raw: _run_job(raw, seam)),
    ]


MODULES = {
    "multiprocessing": {"arq.connections": _connections_layers, "arq.worker": _worker_layers}
}


def _serialize_job(original: Any, seam: Seam) -> Any:
    @functools.wraps(original)
    def serialize_job(*args: Any, **kwargs: Any) -> Any:
        message = original(*args, **kwargs)
        try:
            if seam.active and kwargs.get("serializer") in (None, pickle.dumps):
                headers = carrier.capture(seam, None)
                if headers is not None:
                    return tasks.append(message, headers)
        except Exception as error:
            handoff.report_fault("enqueue", error)
        return message

    return serialize_job


def _deserialize_job_raw(original: Any, seam: Seam) -> Any:
    @functools.wraps(original)
    def deserialize_job_raw(r: Any, **kwargs: Any) -> Any:
        job = original(r, **kwargs)
        try:
            context = carrier.unpack_safely(tasks.appended(r)) if seam.active else None
            if context:
                handoff.attach_safely(context)  # the wrapper of `run_job`, the caller, detaches
        except Exception as error:
            handoff.report_fault("extract", error)
        return job

    return deserialize_job_raw


def _run_job(original: Any, seam: Seam) -> Any:
    @functools.wraps(original)
    async def run_job(self: Any, *args: Any, **kwargs: Any) -> Any:
        # Also without headers: a job must not inherit the context in which the worker was started.
        token = handoff.attach_safely(NO_CONTEXT) if seam.active else None
        try:
            return await original(self, *args, **kwargs)
        finally:
            handoff.leave(token)
            token = None

    return run_job
