"""trio-parallel: functions that a task of trio runs in worker processes.

The setting MULTIPROCESSING covers them. A job is a pickle of a function and its arguments, so the
context crosses inside an object that takes the place of the function. The workers are processes of
``multiprocessing``. So they already start clean, are instrumented, and export before they exit.
"""

from __future__ import annotations

import functools
from types import ModuleType
from typing import Any

from otel_concurrency._core.handoff import Seam
from otel_concurrency._core.patching import Layer, Patch
from otel_concurrency._crossing import pickled_calls

TESTED = ("1.2.4", "1.3.0")


def _layers(proc: ModuleType, seam: Seam) -> list[Patch]:
    return [Layer(vars(proc)["SpawnProcWorker"], "run_sync", lambda raw: _run_sync(raw, seam))]


MODULES = {"multiprocessing": {"trio_parallel._proc": _layers}}


def _run_sync(original: Any, seam: Seam) -> Any:
    @functools.wraps(original)
    async def run_sync(self: Any, sync_fn: Any, *args: Any) -> Any:
        return await original(self, pickled_calls.portable(seam, sync_fn), *args)

    return run_sync
