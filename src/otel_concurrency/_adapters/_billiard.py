"""billiard: a fork of ``multiprocessing`` with a different pool, which Celery uses for its workers.

The setting MULTIPROCESSING covers it; its processes use the advice for ``multiprocessing``. Calls
for a pool are pickled in several ways. So the context crosses inside an object that takes the place
of the function. A worker exits without running exit handlers, so it exports what it has recorded
before that.
"""

from __future__ import annotations

import functools
from types import ModuleType
from typing import Any

from otel_concurrency._child_exit import flush
from otel_concurrency._core import handoff
from otel_concurrency._core.handoff import Seam, adopted, attach, get_current
from otel_concurrency._core.patching import Layer, Patch
from otel_concurrency._crossing import pickled_calls
from otel_concurrency._linking import span_start
from otel_concurrency._primitives._multiprocessing import _process

TESTED = ("4.2.1", "4.3.2")

_HAND_OFFS = ("apply_async", "_map_async", "imap", "imap_unordered")


def _pool_layers(pool: ModuleType, seam: Seam) -> list[Patch]:
    kind, worker = vars(pool)["Pool"], vars(pool)["Worker"]
    return [
        *(Layer(kind, name, lambda raw: _hand_off(raw, seam)) for name in _HAND_OFFS),
        Layer(worker, "_make_protected_receive", lambda raw: _receiving(raw, seam)),
        Layer(worker, "_do_exit", lambda raw: _do_exit(raw, seam)),
    ]


MODULES = {
    "multiprocessing": {
        "billiard.process": _process.MODULES["multiprocessing.process"],
        "billiard.pool": _pool_layers,
    }
}


def _hand_off(original: Any, seam: Seam) -> Any:
    @functools.wraps(original)
    def hand_off(self: Any, func: Any, *args: Any, **kwargs: Any) -> Any:
        call = pickled_calls.portable(seam, func, empty=False)
        for name in ("callback", "error_callback"):
            if name in kwargs:
                kwargs[name] = handoff.bind(seam, kwargs[name])
        return original(self, call, *args, **kwargs)

    return hand_off


def _receiving(original: Any, seam: Seam) -> Any:
    @functools.wraps(original)
    def _make_protected_receive(self: Any, conn: Any) -> Any:
        plain = original(self, conn)
        base = handoff.current_safely()  # the context that the initializer has left attached

        @functools.wraps(plain)
        def receive(*args: Any, **kwargs: Any) -> Any:
            try:
                if adopted.get() is not None:
                    adopted.set(None)
                if seam.active and base is not None and get_current() is not base:
                    attach(base)  # the task forgot to detach
            except Exception as error:
                handoff.report_fault("receive", error)
            return plain(*args, **kwargs)

        return receive

    return _make_protected_receive


def _do_exit(original: Any, seam: Seam) -> Any:
    @functools.wraps(original)
    def _do_exit(self: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            if seam.active:
                flush.Departure(span_start.started_since).end()
        except Exception as error:
            handoff.report_fault("leave", error)
        return original(self, *args, **kwargs)

    return _do_exit
