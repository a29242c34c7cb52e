"""futurist: tasks that are submitted to run after a delay.

The setting SCHED covers them: a thread of the executor keeps a task until it is due, and submits it
then. Everything else in futurist uses the standard library's threads, queues and futures.
"""

from __future__ import annotations

import functools
from types import ModuleType
from typing import Any

from otel_concurrency._core import handoff
from otel_concurrency._core.handoff import BodyCall, Call, Seam
from otel_concurrency._core.patching import Layer, Patch

TESTED = ("3.5.0", "3.5.0")


def _layers(futures: ModuleType, seam: Seam) -> list[Patch]:
    mixin = getattr(futures, "DelayedExecutorMixinBase", None)
    if mixin is None:
        return []  # a version that cannot delay tasks yet
    return [Layer(mixin.Task, "__init__", lambda raw: _task(raw, seam))]


MODULES = {"sched": {"futurist._futures": _layers}}


def _task(original: Any, seam: Seam) -> Any:
    @functools.wraps(original)
    def __init__(  # noqa: N807
        self: Any, fn: Any, args: Any, kwargs: Any, future: Any, delay: Any
    ) -> None:
        call = handoff.bind(seam, fn, BodyCall)
        original(self, call, args, kwargs, future, delay)
        if isinstance(call, Call):
            # A cancelled task stays in the executor's heap until it is due.
            future.add_done_callback(functools.partial(_release, call))

    return __init__


def _release(call: Call, future: object) -> None:
    call.release()
