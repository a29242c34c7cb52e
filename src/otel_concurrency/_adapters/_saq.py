"""saq: jobs, with headers in a job's ``meta``.

The setting MULTIPROCESSING covers them, since workers are processes. A job that is retried or
scheduled for later keeps its headers. A job that it enqueues gets the headers of the context that
is current then.
"""

from __future__ import annotations

import functools
from types import ModuleType
from typing import Any

from otel_concurrency._core import handoff
from otel_concurrency._core.awaiting import awaited_in
from otel_concurrency._core.handoff import NO_CONTEXT, Seam
from otel_concurrency._core.patching import Layer, Patch
from otel_concurrency._crossing import carrier

TESTED = ("0.24.0", "0.26.4")

_HEADERS = "otel_concurrency"
"""The key in ``meta``."""


def _queue_layers(base: ModuleType, seam: Seam) -> list[Patch]:
    return [Layer(base.Queue, "_before_enqueue", lambda raw: _before_enqueue(raw, seam))]


def _worker_layers(worker: ModuleType, seam: Seam) -> list[Patch]:
    return [
        Layer(worker.Worker, "process", lambda raw: _process(raw, seam)),
        Layer(worker.Worker, "_before_process", lambda raw: _before_process(raw, seam)),
    ]


MODULES = {"multiprocessing": {"saq.queue.base": _queue_layers, "saq.worker": _worker_layers}}


def _before_enqueue(original: Any, seam: Seam) -> Any:
    @functools.wraps(original)
    async def _before_enqueue(self: Any, job: Any) -> Any:
        try:
            headers = carrier.capture(seam, None) if seam.active else None
            if headers is not None and _HEADERS not in job.meta:
                job.meta = {**job.meta, _HEADERS: headers}  # a copy: the program may own the dict
        except Exception as error:
            handoff.report_fault("enqueue", error)
        return await original(self, job)

    return _before_enqueue


def _process(original: Any, seam: Seam) -> Any:
    @functools.wraps(original)
    async def process(self: Any) -> Any:
        if not seam.active:
            return await original(self)
        # Also without headers: a job must not inherit the context in which the worker was started.
        return await awaited_in(NO_CONTEXT, original(self))

    return process


def _before_process(original: Any, seam: Seam) -> Any:
    @functools.wraps(original)
    async def _before_process(self: Any, ctx: Any) -> Any:
        try:
            headers = ctx["job"].meta.get(_HEADERS) if seam.active else None
            context = carrier.unpack_safely(headers)
            if context:
                handoff.attach_safely(context)  # the wrapper of `process`, the caller, detaches
        except Exception as error:
            handoff.report_fault("extract", error)
        return await original(self, ctx)

    return _before_process
