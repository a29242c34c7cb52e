"""cassandra-driver: callbacks and errbacks of a response.

The setting FUTURES covers them. The thread that reads for all connections calls them, each in the
context in which it was registered, for every page of a result.
"""

from __future__ import annotations

import functools
import weakref
from types import ModuleType
from typing import Any

from otel_concurrency._core import handoff
from otel_concurrency._core.handoff import Call, Seam
from otel_concurrency._core.patching import Layer, Patch

TESTED = ("3.29.3", "3.30.1")


def _layers(cluster: ModuleType, seam: Seam) -> list[Patch]:
    future = vars(cluster)["ResponseFuture"]
    return [
        Layer(future, name, lambda raw: _add(raw, seam)) for name in ("add_callback", "add_errback")
    ]


MODULES = {"futures": {"cassandra.cluster": _layers}}


class _PagesCall(Call):
    """A callback that is called for each page. It keeps its context as long as there are more."""

    __slots__ = ("future",)

    future: weakref.ref[Any]

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        context = self._context
        if context is not None and getattr(self.future(), "has_more_pages", False):
            once = Call(context, self._function)
            context = None
            return once(*args, **kwargs)
        context = None
        return super().__call__(*args, **kwargs)


def _add(original: Any, seam: Seam) -> Any:
    @functools.wraps(original)
    def add(self: Any, fn: Any, *args: Any, **kwargs: Any) -> Any:
        bound = handoff.bind(seam, fn, _PagesCall)
        if isinstance(bound, _PagesCall):
            bound.future = weakref.ref(self)
        return original(self, bound, *args, **kwargs)

    return add
