"""pgqueuer: jobs, with headers among those that a job has.

The setting MULTIPROCESSING covers them, since a worker is another process. A job that is retried
keeps its headers. pgqueuer's own tracer has headers under another name, and its span is the closer
parent where it is on.
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

TESTED = ("1.0.0", "1.6.0")

_HEADERS = "otel_concurrency"
"""The name among the headers of a job."""


def _helpers_layers(query_helpers: ModuleType, seam: Seam) -> list[Patch]:
    return [Layer(query_helpers, "normalize_enqueue_params", lambda raw: _normalize(raw, seam))]


def _manager_layers(qm: ModuleType, seam: Seam) -> list[Patch]:
    return [Layer(qm.QueueManager, "_dispatch", lambda raw: _dispatch(raw, seam))]


MODULES = {
    "multiprocessing": {
        "pgqueuer.adapters.persistence.query_helpers": _helpers_layers,
        "pgqueuer.core.qm": _manager_layers,
    }
}


def _normalize(original: Any, seam: Seam) -> Any:
    @functools.wraps(original)
    def normalize_enqueue_params(*args: Any, **kwargs: Any) -> Any:
        params = original(*args, **kwargs)
        try:
            headers = carrier.capture(seam, None)
            if headers is not None:
                given = params.headers or [None] * len(params.entrypoint)
                params.headers = [{**(one or {}), _HEADERS: headers} for one in given]
        except Exception as error:
            handoff.report_fault("enqueue", error)
        return params

    return normalize_enqueue_params


def _dispatch(original: Any, seam: Seam) -> Any:
    @functools.wraps(original)
    async def _dispatch(self: Any, job: Any, jbuff: Any, hbuff: Any, heartbeat_timeout: Any) -> Any:
        running = original(self, job, jbuff, hbuff, heartbeat_timeout)
        if not seam.active:
            return await running
        # Also without headers: a job must not inherit the context in which the worker was started.
        headers: Any = job.headers
        sent = headers.get(_HEADERS) if headers else None
        context = carrier.unpack_safely(sent) or NO_CONTEXT
        return await awaited_in(context, running)

    return _dispatch
