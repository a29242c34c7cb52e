"""pebble: its pool of processes. Its threads and single-task processes are covered already.

The setting MULTIPROCESSING covers the pool. A scheduled call becomes a payload on the calling
thread. The payload crosses to a worker, which fetches one after the other.
"""

from __future__ import annotations

import functools
import sys
from types import ModuleType
from typing import Any

from otel_concurrency._core import handoff
from otel_concurrency._core.handoff import NO_CONTEXT, BodyCall, Seam
from otel_concurrency._core.patching import Layer, Patch
from otel_concurrency._crossing import carrier, tasks

TESTED = ("5.2.3", "5.2.3")


def _layers(process: ModuleType, seam: Seam) -> list[Patch]:
    return [
        Layer(process.TaskPayload, "__init__", lambda raw: _payload(raw, seam, process)),
        Layer(process, "fetch_task", lambda raw: _fetch_task(raw, seam)),
    ]


MODULES = {"multiprocessing": {"pebble.pool.process": _layers}}


def _payload(original: Any, seam: Seam, process: ModuleType) -> Any:
    @functools.wraps(original)
    def __init__(self: Any, function: Any, *args: Any, **kwargs: Any) -> None:  # noqa: N807
        original(self, function, *args, **kwargs)
        maker: Any = sys._getframe(1)  # pyright: ignore[reportPrivateUsage]
        if seam.active and maker.f_globals is vars(process):  # the thread pool has payloads too
            tasks.attach_to(self, carrier.capture(seam, function))

    return __init__


def _fetch_task(original: Any, seam: Seam) -> Any:
    @functools.wraps(original)
    def fetch_task(channel: Any) -> Any:
        task = original(channel)
        try:
            headers = tasks.detach_from(task.payload)
            if headers or seam.active:
                # Also without headers: what it forgets to detach must not reach the next task.
                context = carrier.unpack_safely(headers) or NO_CONTEXT
                task.payload.function = BodyCall(context, task.payload.function)
        except Exception as error:
            handoff.report_fault("fetch a task", error)
        return task

    return fetch_task
