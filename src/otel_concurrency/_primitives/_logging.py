"""Log records that go through a queue: each is handled in the context in which it was logged.

A ``QueueListener`` does not adopt contexts as other consumers do, and its thread has an empty
context. Handling one record is treated as a call: the context is captured when a ``QueueHandler``
hands the record on, and attached only while the listener's handlers handle it. A handler behind the
queue then finds the trace in which the record was logged, as a handler in front of the queue would.

The context is kept beside the record and not in it, since handlers may write out all attributes of
a record.
"""

from __future__ import annotations

import functools
import weakref
from types import ModuleType
from typing import Any

from opentelemetry.context import Context

from otel_concurrency._core import handoff
from otel_concurrency._core.handoff import NO_CONTEXT, Call, Seam, adopted
from otel_concurrency._core.patching import Layer, Patch
from otel_concurrency._items import adoption


class _Record(weakref.ref[Any]):
    """A reference to a record that is waiting in a queue, with the context it was logged in."""

    __slots__ = ("context", "key")

    context: Context
    key: int


_on_their_way: dict[int, _Record] = {}
"""The waiting records by their id; an entry is removed when its record is garbage-collected."""


def _layers(handlers: ModuleType, seam: Seam) -> list[Patch]:
    sender: Any = handlers.QueueHandler
    listener: Any = handlers.QueueListener
    return [
        # Programs override either of these two.
        Layer(sender, "prepare", lambda raw: _prepare(raw, seam)),
        Layer(sender, "enqueue", lambda raw: _enqueue(raw, seam)),
        # This loop gets records for as long as its thread lives, and must adopt none of them.
        Layer(listener, "_monitor", adoption.abstaining),
        Layer(listener, "handle", lambda raw: _handle(raw, seam)),
    ]


MODULES = {"logging.handlers": _layers}


def _prepare(original: Any, seam: Seam) -> Any:
    @functools.wraps(original)
    def prepare(self: Any, record: Any) -> Any:
        prepared = original(self, record)
        _keep(prepared, seam)
        return prepared

    return prepare


def _enqueue(original: Any, seam: Seam) -> Any:
    @functools.wraps(original)
    def enqueue(self: Any, record: Any) -> Any:
        _keep(record, seam)
        return original(self, record)

    return enqueue


def _keep(record: Any, seam: Seam) -> None:
    """Keep the current context until ``record`` is handled or garbage-collected."""
    key = id(record)
    if not seam.active or key in _on_their_way:
        return
    try:
        context = seam.changed(seam.current())
        if context and hasattr(record, "__weakref__"):  # `prepare` may return a dict or text
            kept = _Record(record, _forget)
            kept.context, kept.key = context, key
            _on_their_way[key] = kept
    except Exception as error:
        handoff.report_fault("log", error)


def _forget(kept: Any) -> None:
    _on_their_way.pop(kept.key, None)


def _take(record: object, seam: Seam) -> Context | None:
    """Return the context in which to handle ``record``; None to leave the current one attached."""
    try:
        kept = _on_their_way.pop(id(record), None)
        if kept is not None:
            return kept.context
        if seam.active and adopted.get() is adoption.ABSTAINS:
            return NO_CONTEXT  # what a handler forgets to detach must not reach the next record
    except Exception as error:
        handoff.report_fault("handle a record", error)
    return None


def _handle(original: Any, seam: Seam) -> Any:
    @functools.wraps(original)
    def handle(self: Any, record: Any) -> Any:
        context = _take(record, seam)
        if context is None:
            return original(self, record)
        call = Call(context, original)
        context = None
        return call(self, record)

    return handle
