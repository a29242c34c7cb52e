"""more-executors: work that one of its threads submits later, for the first time or as a retry.

The setting FUTURES covers it. The context is kept with the future that ``submit`` returned. It is
attached whenever that thread submits the work to the next executor, which carries it from there.
"""

from __future__ import annotations

import functools
from types import ModuleType
from typing import Any

from otel_concurrency._core import handoff
from otel_concurrency._core.handoff import NO_CONTEXT, Seam
from otel_concurrency._core.patching import Layer, Patch

TESTED = ("2.11.0", "2.11.4")

_CONTEXT = "_otel_concurrency_context"


def _future_layers(common: ModuleType, seam: Seam) -> list[Patch]:
    return [Layer(common._Future, "add_done_callback", lambda raw: _add_done_callback(raw, seam))]


def _retry_layers(retry: ModuleType, seam: Seam) -> list[Patch]:
    return _layers(retry.RetryFuture, retry.RetryExecutor, "_submit_now", seam)


def _throttle_layers(throttle: ModuleType, seam: Seam) -> list[Patch]:
    return _layers(throttle.ThrottleFuture, throttle.ThrottleExecutor, "_do_submit", seam)


MODULES = {
    "futures": {
        "more_executors._impl.common": _future_layers,
        "more_executors._impl.retry": _retry_layers,
        "more_executors._impl.throttle": _throttle_layers,
    }
}


def _layers(future: Any, executor: Any, submits: str, seam: Seam) -> list[Patch]:
    return [
        Layer(future, "__init__", lambda raw: _init(raw, seam)),
        Layer(future, "_clear_executor", _done),
        Layer(executor, submits, lambda raw: _submit(raw, seam)),
    ]


def _init(original: Any, seam: Seam) -> Any:
    @functools.wraps(original)
    def __init__(self: Any, executor: Any) -> None:  # noqa: N807
        original(self, executor)
        if seam.active:
            self.__dict__[_CONTEXT] = handoff.current_safely() or NO_CONTEXT

    return __init__


def _done(original: Any) -> Any:
    clear_executor = original.__func__

    @functools.wraps(clear_executor)
    def _clear_executor(cls: Any, future: Any) -> None:
        future.__dict__.pop(_CONTEXT, None)
        clear_executor(cls, future)

    return classmethod(_clear_executor)


def _submit(original: Any, seam: Seam) -> Any:
    @functools.wraps(original)
    def submit(self: Any, job: Any) -> Any:
        context = job.future.__dict__.get(_CONTEXT) if seam.active else None
        token = None if context is None else handoff.attach_safely(context)
        context = None
        try:
            return original(self, job)
        finally:
            handoff.leave(token)
            token = None

    return submit


def _add_done_callback(original: Any, seam: Seam) -> Any:
    @functools.wraps(original)
    def add_done_callback(self: Any, fn: Any) -> Any:
        return original(self, handoff.bind(seam, fn))

    return add_done_callback
