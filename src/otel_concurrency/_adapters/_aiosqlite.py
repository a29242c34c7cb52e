"""aiosqlite: what a connection's thread calls, SQL functions and callbacks of the program's too.

It goes by QUEUE, since it is a ``SimpleQueue`` that a connection hands its calls to. Its name may
have been bound before this library was switched on, so it is the calls that carry.
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
        return await original(self, handoff.own(seam, fn, BodyCall), *args, **kwargs)

    return _execute
