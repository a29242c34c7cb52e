"""pyspark: each batch of a ``foreachBatch`` starts a new trace, linked to the start of its query.

The setting SCHED covers it. A batch is called in a thread that Java calls back, for as long as the
query runs. What a batch leaves attached does not reach the next one.
"""

from __future__ import annotations

import functools
import weakref
from types import ModuleType
from typing import Any

from opentelemetry.context import Context

from otel_concurrency._core import handoff
from otel_concurrency._core.handoff import NO_CONTEXT, Seam
from otel_concurrency._core.patching import Layer, Patch
from otel_concurrency._linking import origins

TESTED = ("4.3.0", "4.3.0")

_queries: weakref.WeakKeyDictionary[Any, Context] = weakref.WeakKeyDictionary()
"""For each function of batches: the context in which it was given, with a link for its span."""


def _layers(utils: ModuleType, seam: Seam) -> list[Patch]:
    kind = utils.ForeachBatchFunction
    return [
        Layer(kind, "__init__", lambda raw: _init(raw, seam)),
        Layer(kind, "call", lambda raw: _call(raw, seam)),
    ]


MODULES = {"sched": {"pyspark.sql.utils": _layers}}


def _init(original: Any, seam: Seam) -> Any:
    @functools.wraps(original)
    def __init__(self: Any, session: Any, func: Any) -> None:  # noqa: N807
        original(self, session, func)
        try:
            context = seam.capture(func)
            if context:
                _queries[self] = origins.deferred(context, seam.name)
        except Exception as error:
            handoff.report_fault("foreachBatch", error)

    return __init__


def _call(original: Any, seam: Seam) -> Any:
    @functools.wraps(original)
    def call(self: Any, jdf: Any, batch_id: Any) -> Any:
        if not seam.active:
            return original(self, jdf, batch_id)
        context = NO_CONTEXT
        try:
            context = _queries.get(self, NO_CONTEXT)
        except Exception as error:
            handoff.report_fault("call a batch", error)
        return handoff.Call(context, original)(self, jdf, batch_id)

    return call
