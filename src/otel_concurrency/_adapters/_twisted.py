"""Twisted: what is handed to the reactor, and the callbacks of a Deferred.

Calls of the reactor, from a thread and later, go by THREADING; a callback goes by FUTURES, and runs
in the context of its registration. Threads of the reactor's pool, coroutines, ``inlineCallbacks``
and the asyncio reactor's ``callFromThread`` carry context by themselves.
"""

from __future__ import annotations

import functools
from types import ModuleType
from typing import Any

from otel_concurrency._core import handoff
from otel_concurrency._core.handoff import Seam
from otel_concurrency._core.patching import Layer, Patch

TESTED = ("22.10.0", "26.10.0")


def _reactor_layers(base: ModuleType, seam: Seam) -> list[Patch]:
    return [
        Layer(base.ReactorBase, "callFromThread", lambda raw: _call_from_thread(raw, seam)),
        Layer(base.ReactorBase, "callLater", lambda raw: _call_later(raw, seam)),
    ]


def _deferred_layers(defer: ModuleType, seam: Seam) -> list[Patch]:
    return [
        Layer(defer.Deferred, "addCallbacks", lambda raw: _add_callbacks(raw, seam)),
        *(
            Layer(defer.Deferred, name, lambda raw: _add_one(raw, seam))
            for name in ("addCallback", "addErrback", "addBoth")
        ),
    ]


MODULES = {
    "threading": {"twisted.internet.base": _reactor_layers},
    "futures": {"twisted.internet.defer": _deferred_layers},
}


def _call(seam: Seam, function: Any) -> Any:
    try:
        return (handoff.call(seam, function) if callable(function) else None) or function
    except Exception as error:
        handoff.report("hand over", error)
        return function


def _call_from_thread(original: Any, seam: Seam) -> Any:
    @functools.wraps(original)
    def callFromThread(self: Any, f: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N802
        return original(self, _call(seam, f), *args, **kwargs)

    return callFromThread


def _call_later(original: Any, seam: Seam) -> Any:
    @functools.wraps(original)
    def callLater(self: Any, delay: Any, callable: Any, *args: Any, **kw: Any) -> Any:  # noqa: N802
        return original(self, delay, _call(seam, callable), *args, **kw)

    return callLater


def _add_callbacks(original: Any, seam: Seam) -> Any:
    @functools.wraps(original)
    def addCallbacks(  # noqa: N802
        self: Any, callback: Any, errback: Any = None, *args: Any, **kwargs: Any
    ) -> Any:
        return original(self, _call(seam, callback), _call(seam, errback), *args, **kwargs)

    return addCallbacks


def _add_one(original: Any, seam: Seam) -> Any:
    @functools.wraps(original)
    def add(self: Any, callback: Any, *args: Any, **kwargs: Any) -> Any:
        return original(self, _call(seam, callback), *args, **kwargs)

    return add
