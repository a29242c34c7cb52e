"""uvloop: ``run_in_executor`` of its loops, which do not derive from asyncio's.

It goes by ASYNCIO, as that of asyncio's own loops; what else a loop calls back carries natively.
"""

from __future__ import annotations

import functools
import importlib
import inspect
from types import ModuleType
from typing import Any

from otel_concurrency._core.handoff import Seam
from otel_concurrency._core.patching import Layer, Patch
from otel_concurrency._primitives import _asyncio

TESTED = ("0.21.0", "0.23.0")


def _layers(uvloop: ModuleType, seam: Seam) -> list[Patch]:
    futures = importlib.import_module("concurrent.futures")  # asyncio has imported it
    covered = functools.partial(_is_covered, futures)
    return [
        Layer(
            vars(uvloop)["Loop"],
            "run_in_executor",
            lambda raw: _asyncio.run_in_executor(raw, seam, covered),
        )
    ]


MODULES = {"asyncio": {"uvloop": _layers}}


def _is_covered(futures: ModuleType, loop: Any, executor: Any, func: Any) -> bool:
    # The loop refuses a coroutine function, and must be able to tell.
    return inspect.iscoroutinefunction(func) or _asyncio.is_covered(futures, loop, executor, func)
