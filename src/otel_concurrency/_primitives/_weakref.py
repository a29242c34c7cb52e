"""``weakref``: a finalizer runs in an empty context, wherever the last reference is dropped.

That may be any thread, at any time: the garbage collector runs in the middle of other work. A
finalizer that the program calls itself is an ordinary call, and keeps the caller's context.
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
        # The interpreter passes the dead reference; a call by the program passes no argument.
        if _ is None or not (seam.active and handoff.is_concerned(seam)):
            return original(self, _)
        return Call(NO_CONTEXT, original)(self, _)

    return __call__
