"""aiosqlite: calls on a connection's thread, including the program's SQL functions and callbacks.

The setting QUEUE covers it, since a connection hands its calls over in a ``SimpleQueue``. aiosqlite
may have imported that name before instrumenting. So the context is carried by the calls and not by
the queue.
"""

from __future__ import annotations

import functools
from types import ModuleType
from typing import Any

from otel_concurrency._core import handoff
from otel_concurrency._core.handoff import BodyCall, Seam
from otel_concurrency._core.patching import Layer, Patch

TESTED = ("0.20.0", "0.22.1")


def _layers(core: ModuleType, seam: Seam) -> list[Patch]:
    return [Layer(core.Connection, "_execute", lambda raw: _execute(raw, seam))]


MODULES = {"queue": {"aiosqlite.core": _layers}}


def _execute(original: Any, seam: Seam) -> Any:
    @functools.wraps(original)
    async def _execute(self: Any, fn: Any, *args: Any, **kwargs: Any) -> Any:
        return await original(self, handoff.bind(seam, fn, BodyCall), *args, **kwargs)

    return _execute
