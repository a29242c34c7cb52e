"""``weakref``: a finalizer runs in no context, whoever happens to drop the last reference.

That may be any thread, at any time: the collector runs in the middle of whatever needs memory. A
finalizer that the program calls itself is an ordinary call.
"""

from __future__ import annotations

import functools
from types import ModuleType
from typing import Any

from otel_concurrency._core import handoff
from otel_concurrency._core.handoff import NO_CONTEXT, Call, Seam
from otel_concurrency._core.patching import Layer, Patch


def _layers(weakref: ModuleType, seam: Seam) -> list[Patch]:
    return [Layer(weakref.finalize, "__call__", lambda raw: _call(raw, seam))]


MODULES = {"weakref": _layers}


def _call(original: Any, seam: Seam) -> Any:
    @functools.wraps(original)
    def __call__(self: Any, _: Any = None) -> Any:  # noqa: N807
        # Of an object that has died it is called with the reference to it.
        if _ is None or not (seam.active and handoff.is_concerned(seam)):
            return original(self, _)
        return Call(NO_CONTEXT, original)(self, _)

    return __call__
