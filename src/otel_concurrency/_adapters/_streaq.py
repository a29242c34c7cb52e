"""streaq: tasks, with headers among what is sent for one.

The setting MULTIPROCESSING covers them, since a worker is another process. A task that is retried
or delayed keeps its headers. Each run of a task that is enqueued with a crontab is a trace of its
own, with a link to the span in which it was enqueued. Those that a worker itself schedules when it
is started belong to no trace.
"""

from __future__ import annotations

import functools
from contextvars import ContextVar
from types import ModuleType
from typing import Any

from otel_concurrency._core import handoff
from otel_concurrency._core.awaiting import awaited_in
from otel_concurrency._core.handoff import NO_CONTEXT, Seam
from otel_concurrency._core.patching import Layer, Patch
from otel_concurrency._crossing import carrier
from otel_concurrency._crossing.carrier import Headers
from otel_concurrency._linking import origins

TESTED = ("7.2.0", "7.2.0")

_HEADERS = "otel_concurrency"
"""The key of the headers, beside those of the function's name and of its arguments."""

_sending: ContextVar[Headers | None] = ContextVar("otel_concurrency_sending", default=None)
"""The headers of the task that this flow is about to serialize."""

_receiving: ContextVar[bool] = ContextVar("otel_concurrency_receiving", default=False)
"""Whether this flow has begun to run a task, and not read what was sent for it yet."""


def _task_layers(task: ModuleType, seam: Seam) -> list[Patch]:
    return [Layer(task.Task, "serialize", lambda raw: _serialize_task(raw, seam))]


def _worker_layers(worker: ModuleType, seam: Seam) -> list[Patch]:
    return [
        Layer(worker.Worker, "serialize", _serialize),
        Layer(worker.Worker, "deserialize", lambda raw: _deserialize(raw, seam)),
        Layer(worker.Worker, "run_task", lambda raw: _run_task(raw, seam)),
    ]


MODULES = {"multiprocessing": {"streaq.task": _task_layers, "streaq.worker": _worker_layers}}


def _serialize_task(original: Any, seam: Seam) -> Any:
    @functools.wraps(original)
    async def serialize(self: Any, enqueue_time: Any) -> Any:
        token = None
        try:
            token = _sending.set(_captured(self, seam))
        except Exception as error:
            handoff.report_fault("enqueue", error)
        try:
            return await original(self, enqueue_time)
        finally:
            if token is not None:
                _sending.reset(token)

    return serialize


def _captured(task: Any, seam: Seam) -> Headers | None:
    """Return the headers for a task. May raise."""
    if task.parent.crontab and task.schedule is not None:
        return None  # a worker has scheduled it
    context = seam.capture(task)
    if context and isinstance(task.schedule, str):
        context = origins.deferred(context, seam.name, "periodic")
    return carrier.pack(context) if context else None


def _serialize(original: Any) -> Any:
    @functools.wraps(original)
    async def serialize(self: Any, data: Any) -> Any:
        headers = _sending.get()
        if headers is not None and isinstance(data, dict):
            data[_HEADERS] = headers
        return await original(self, data)

    return serialize


def _deserialize(original: Any, seam: Seam) -> Any:
    @functools.wraps(original)
    async def deserialize(self: Any, data: Any) -> Any:
        result = await original(self, data)
        try:
            if seam.active and _receiving.get():
                _receiving.set(False)
                context = carrier.unpack_safely(result.pop(_HEADERS, None))
                if context:
                    handoff.attach_safely(context)  # the wrapper of the calling method detaches
        except Exception as error:
            handoff.report_fault("extract", error)
        return result

    return deserialize


def _run_task(original: Any, seam: Seam) -> Any:
    @functools.wraps(original)
    async def run_task(self: Any, msg: Any) -> Any:
        if not seam.active:
            return await original(self, msg)
        # Also without headers: a task must not inherit the context in which the worker was started.
        _receiving.set(True)
        return await awaited_in(NO_CONTEXT, original(self, msg))

    return run_task
