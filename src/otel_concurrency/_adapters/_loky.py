"""loky, and joblib, whose default backend it is.

The setting MULTIPROCESSING covers them. loky's executor is a modified copy of
``ProcessPoolExecutor``: it makes a work item on the thread that submits, and a call item of it on
the executor's manager thread. loky's processes are processes of ``multiprocessing``. So they
already start clean, are instrumented, and export before they exit. joblib's ``multiprocessing``
backend pickles by itself, so there the headers go with the object that it calls.
"""

from __future__ import annotations

import functools
from types import ModuleType
from typing import Any

from otel_concurrency._core.handoff import Seam
from otel_concurrency._core.patching import Layer, Patch
from otel_concurrency._crossing import carrier, tasks

TESTED = ("3.4.1", "3.7.0")


def _executor_layers(process_executor: ModuleType, seam: Seam) -> list[Patch]:
    return [
        Layer(process_executor._WorkItem, "__init__", lambda raw: _work_item(raw, seam)),
        Layer(process_executor._CallItem, "__init__", _call_item),
        tasks.layer(process_executor._CallItem, seam),
    ]


def _joblib_layers(utils: ModuleType, seam: Seam) -> list[Patch]:
    wrapper = utils._TracebackCapturingWrapper
    return [
        Layer(wrapper, "__init__", lambda raw: _wrapper(raw, seam)),
        tasks.layer(wrapper, seam),
    ]


MODULES = {
    "multiprocessing": {
        "joblib._utils": _joblib_layers,
        "joblib.externals.loky.process_executor": _executor_layers,
        "loky.process_executor": _executor_layers,
    }
}


def _work_item(original: Any, seam: Seam) -> Any:
    @functools.wraps(original)
    def __init__(self: Any, future: Any, fn: Any, args: Any, kwargs: Any) -> None:  # noqa: N807
        original(self, future, tasks.with_headers(seam, fn), args, kwargs)

    return __init__


def _call_item(original: Any) -> Any:
    @functools.wraps(original)
    def __init__(self: Any, work_id: Any, fn: Any, args: Any, kwargs: Any) -> None:  # noqa: N807
        headers = None
        if isinstance(fn, tasks.FunctionWithHeaders):
            fn, headers = fn.function, fn.headers
        original(self, work_id, fn, args, kwargs)
        tasks.attach_to(self, headers)

    return __init__


def _wrapper(original: Any, seam: Seam) -> Any:
    @functools.wraps(original)
    def __init__(self: Any, func: Any) -> None:  # noqa: N807
        original(self, func)
        if seam.active:
            tasks.attach_to(self, carrier.capture(seam, func))

    return __init__
