"""``weakref``: a finalizer runs in an empty context, wherever the last reference is dropped.

That may be any thread, at any time: the garbage collector runs in the middle of other work. A
finalizer that the program calls itself is an ordinary call, and keeps the caller's context.
"""

from __future__ import annotations

import functools
import sys
from contextvars import copy_context
from types import ModuleType
from typing import Any

from otel_concurrency._core import handoff
from otel_concurrency._core.handoff import NO_CONTEXT, Call, Seam
from otel_concurrency._core.patching import Layer, Patch


def _layers(weakref: ModuleType, seam: Seam) -> list[Patch]:
    return [Layer(weakref.finalize, "__call__", lambda raw: _call(raw, seam))]


MODULES = {"weakref": _layers}

_ANYWHERE = sys.version_info < (3, 12)
"""Whether the collector may run inside ``ContextVar.set()``, which must not be entered again.

From CPython 3.12 on it runs between two instructions of Python code. Before, it does when memory is
allocated, and a finalizer gets a copy of the context variables to set one in.
"""


def _call(original: Any, seam: Seam) -> Any:
    @functools.wraps(original)
    def __call__(self: Any, _: Any = None) -> Any:  # noqa: N807
        # The interpreter passes the dead reference; a call by the program passes no argument.
        if _ is None or not (seam.active and handoff.is_concerned(seam)):
            return original(self, _)
        call = Call(NO_CONTEXT, original)
        return copy_context().run(call, self, _) if _ANYWHERE else call(self, _)

    return __call__
