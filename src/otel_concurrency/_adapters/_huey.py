"""huey: tasks, with headers behind the pickled message.

The setting MULTIPROCESSING covers them, since a consumer is another process. A message is a named
tuple of huey, which has no field for headers. But a pickle marks its own end, and a consumer
without this library ignores what follows. A task that is retried or scheduled keeps its headers.
A task that it enqueues gets the headers of the task that is running.
"""

from __future__ import annotations

import functools
from types import ModuleType
from typing import Any

from otel_concurrency._core import handoff
from otel_concurrency._core.handoff import Seam
from otel_concurrency._core.patching import Layer, Patch
from otel_concurrency._crossing import carrier, tasks

TESTED = ("2.5.2", "3.5.4")

_HEADERS = "_otel_concurrency_headers"
"""The attribute of a task, and of a message, that holds the headers."""


def _registry_layers(registry: ModuleType, seam: Seam) -> list[Patch]:
    return [
        Layer(registry.Registry, "create_message", lambda raw: _create_message(raw, seam)),
        Layer(registry.Registry, "create_task", _create_task),
    ]


def _serializer_layers(serializer: ModuleType, seam: Seam) -> list[Patch]:
    return [
        Layer(serializer.Serializer, "_serialize", _serialize),
        Layer(serializer.Serializer, "_deserialize", _deserialize),
    ]


def _api_layers(api: ModuleType, seam: Seam) -> list[Patch]:
    return [Layer(api.Huey, "execute", lambda raw: _execute(raw, seam))]


MODULES = {
    "multiprocessing": {
        "huey.registry": _registry_layers,
        "huey.serializer": _serializer_layers,
        "huey.api": _api_layers,
    }
}


def _carrying(message: Any, headers: Any) -> Any:
    """Return ``message`` as an object with headers, which still pickles as huey's message."""
    plain: Any = message.__class__

    class Message(plain):  # type: ignore[misc]  # a base known at run time
        def __reduce__(self) -> Any:
            return plain, tuple(self)

    found = Message(*message)
    setattr(found, _HEADERS, headers)
    return found


def _create_message(original: Any, seam: Seam) -> Any:
    @functools.wraps(original)
    def create_message(self: Any, task: Any) -> Any:
        message = original(self, task)
        try:
            headers = getattr(task, _HEADERS, None)
            if headers is None and seam.active:
                headers = carrier.capture(seam, None)
            return message if headers is None else _carrying(message, headers)
        except Exception as error:
            handoff.report_fault("enqueue", error)
            return message

    return create_message


def _create_task(original: Any) -> Any:
    @functools.wraps(original)
    def create_task(self: Any, message: Any) -> Any:
        task = original(self, message)
        headers = getattr(message, _HEADERS, None)
        if headers is not None:
            setattr(task, _HEADERS, headers)
        return task

    return create_task


def _serialize(original: Any) -> Any:
    @functools.wraps(original)
    def _serialize(self: Any, data: Any) -> Any:
        pickled = original(self, data)
        try:
            headers = getattr(data, _HEADERS, None)
            return pickled if headers is None else tasks.append(pickled, headers)
        except Exception as error:
            handoff.report_fault("enqueue", error)
            return pickled

    return _serialize


def _deserialize(original: Any) -> Any:
    @functools.wraps(original)
    def _deserialize(self: Any, data: Any) -> Any:
        result = original(self, data)
        try:
            headers = tasks.appended(data)
            return result if headers is None else _carrying(result, headers)
        except Exception as error:
            handoff.report_fault("extract", error)
            return result

    return _deserialize


def _execute(original: Any, seam: Seam) -> Any:
    @functools.wraps(original)
    def execute(self: Any, task: Any, *args: Any, **kwargs: Any) -> Any:
        headers = getattr(task, _HEADERS, None) if seam.active else None
        if headers is None and self.immediate:  # it runs at once, in the calling flow
            return original(self, task, *args, **kwargs)
        return tasks.run_in(headers, seam, original, self, task, *args, **kwargs)

    return execute
