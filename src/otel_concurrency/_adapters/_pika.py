"""pika: callbacks that are posted to the loop of a connection.

The setting THREADING covers them. A blocking connection calls them while somebody waits for its
events, and one with a loop in the thread of that loop. Timers of pika's own, such as heartbeats,
are left alone.
"""

from __future__ import annotations

import functools
from types import ModuleType
from typing import Any

from otel_concurrency._core import handoff
from otel_concurrency._core.callers import caller
from otel_concurrency._core.handoff import Call, Seam
from otel_concurrency._core.patching import Layer, Patch
from otel_concurrency._linking.posted import post

TESTED = ("1.3.2", "1.4.4")


def _blocking_layers(module: ModuleType, seam: Seam) -> list[Patch]:
    return _both(vars(module)["BlockingConnection"], seam)


def _select_layers(module: ModuleType, seam: Seam) -> list[Patch]:
    return _both(vars(module)["IOLoop"], seam)


MODULES = {
    "threading": {
        "pika.adapters.blocking_connection": _blocking_layers,
        "pika.adapters.select_connection": _select_layers,
    }
}


def _both(owner: type, seam: Seam) -> list[Patch]:
    return [
        Layer(owner, "call_later", lambda raw: _call_later(raw, seam)),
        Layer(owner, "add_callback_threadsafe", lambda raw: _add_callback_threadsafe(raw, seam)),
    ]


def _call_later(original: Any, seam: Seam) -> Any:
    @functools.wraps(original)
    def call_later(self: Any, delay: Any, callback: Any) -> Any:
        posted = callback if _is_asked_by_pika() else post(seam, callback)
        try:
            return original(self, delay, posted)
        except BaseException:
            if isinstance(posted, Call):
                posted.release()
            raise

    return call_later


def _add_callback_threadsafe(original: Any, seam: Seam) -> Any:
    @functools.wraps(original)
    def add_callback_threadsafe(self: Any, callback: Any) -> Any:
        posted = callback if _is_asked_by_pika() else post(seam, callback)
        try:
            return original(self, posted)
        except BaseException:
            if isinstance(posted, Call):
                posted.release()
            raise

    return add_callback_threadsafe


def _is_asked_by_pika() -> bool:
    try:
        frame = caller(1)
        return frame is not None and str(frame.f_globals.get("__name__")).startswith("pika.")
    except Exception as error:
        handoff.report_fault("post", error)
        return False
