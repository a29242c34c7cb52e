"""executorlib: tasks of its interactive executors, whose workers are processes, here or elsewhere.

The setting MULTIPROCESSING covers them. A task waits in queues of executorlib's as a dictionary,
with an object in place of the function that has the headers, too. executorlib finds the result of
an earlier task by the pickle of its function. So the function is back in its place while a task
is looked for, and the object is sent in place of it.

Executors that write each task into a file, under a name that is made of its pickle, are left alone.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from types import ModuleType
from typing import Any

from opentelemetry.context import Context

from otel_concurrency import _settings
from otel_concurrency._core import handoff
from otel_concurrency._core.handoff import NO_CONTEXT, BodyCall, Seam
from otel_concurrency._core.patching import Layer, Patch
from otel_concurrency._crossing import carrier
from otel_concurrency._crossing.carrier import Headers
from otel_concurrency._crossing.pickled_calls import PortableCall

TESTED = ("1.8.2", "1.11.0")

_SENT = "otel_concurrency"
"""The key in a task, while it is executed, of what is sent in place of its function."""


def _base_layers(base: ModuleType, seam: Seam) -> list[Patch]:
    return [Layer(base.TaskSchedulerBase, "submit", lambda raw: _submit(raw, seam))]


def _block_layers(blocks: ModuleType, seam: Seam) -> list[Patch]:
    kind = blocks.BlockAllocationTaskScheduler
    return [
        Layer(kind, "submit", lambda raw: _submit(raw, seam)),
        Layer(blocks, "execute_task_dict", _execute),
    ]


def _single_layers(single: ModuleType, seam: Seam) -> list[Patch]:
    return [Layer(single, "execute_task_dict", _execute)]


def _socket_layers(communication: ModuleType, seam: Seam) -> list[Patch]:
    return [Layer(communication.SocketInterface, "send_dict", _send)]


_INTERACTIVE = "executorlib.task_scheduler.interactive"

MODULES = {
    "multiprocessing": {
        "executorlib.task_scheduler.base": _base_layers,
        f"{_INTERACTIVE}.blockallocation": _block_layers,
        f"{_INTERACTIVE}.onetoone": _single_layers,
        "executorlib.standalone.interactive.communication": _socket_layers,
    }
}


class _Handed(PortableCall):
    """A function with headers, in place of the function. executorlib looks at its parameters."""

    def __init__(self, function: Any, headers: Headers | None, settings: Any) -> None:
        super().__init__(function, headers, settings, __name__)
        self.__wrapped__ = function


def _submit(original: Any, seam: Seam) -> Any:
    @functools.wraps(original)
    def submit(self: Any, /, *args: Any, **kwargs: Any) -> Any:
        if args:
            args = (_handed(seam, self, args[0]), *args[1:])
        elif "fn" in kwargs:
            kwargs = {**kwargs, "fn": _handed(seam, self, kwargs["fn"])}
        return original(self, *args, **kwargs)

    return submit


def _handed(seam: Seam, scheduler: Any, function: Any) -> Any:
    try:
        settings = _settings.in_force
        if not seam.active or settings is None or not callable(function):
            return function
        inner = scheduler._process_kwargs.get("executor", scheduler)
        if "spawner" not in inner._process_kwargs:  # it writes the task into a file
            return function
        return _Handed(function, carrier.capture(seam, function), settings.as_keywords())
    except Exception as error:
        handoff.report_fault("capture", error)
        return function


def _execute(original: Any) -> Any:
    @functools.wraps(original)
    def execute_task_dict(task_dict: Any, *args: Any, **kwargs: Any) -> Any:
        handed = task_dict.get("fn")
        if type(handed) is not _Handed:
            return original(task_dict, *args, **kwargs)
        task_dict["fn"], task_dict[_SENT] = handed.__wrapped__, handed
        try:
            return original(task_dict, *args, **kwargs)
        finally:
            task_dict.pop(_SENT, None)
            task_dict["fn"] = handed  # executorlib may send it again, if the worker is lost

    return execute_task_dict


def _send(original: Any) -> Any:
    @functools.wraps(original)
    def send_dict(self: Any, input_dict: Any) -> Any:
        if _SENT in input_dict:
            input_dict = dict(input_dict)
            input_dict["fn"] = input_dict.pop(_SENT)
        return original(self, input_dict)

    return send_dict


# In the worker.


class _Received:
    """A function that is called in its context. executorlib looks at its parameters.

    A worker of several processes of MPI's sends it on to the others, with the headers.
    """

    def __init__(self, function: Callable[..., Any], headers: Headers | None) -> None:
        functools.update_wrapper(self, function)
        self._function = function
        self._headers = headers
        self._context: Context = carrier.unpack_safely(headers) or NO_CONTEXT
        self.__signature__ = inspect.signature(function, follow_wrapped=False)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return BodyCall(self._context, self._function)(*args, **kwargs)

    def __reduce__(self) -> tuple[Any, ...]:
        settings = _settings.in_force
        if settings is None:
            return functools.partial, (self._function,)
        call = PortableCall(self._function, self._headers, settings.as_keywords(), __name__)
        return call.__reduce__()


received = _Received
