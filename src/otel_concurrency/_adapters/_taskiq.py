"""taskiq: tasks, with headers among the labels of their message.

The setting MULTIPROCESSING covers them, since a worker is another process. A task that is retried
or scheduled keeps its label. Each run of a task with a schedule that repeats is a trace of its own,
with a link to the span in which it was scheduled. taskiq's own middleware runs inside the context.
What `InMemoryBroker` does stays in its task of asyncio.
"""

from __future__ import annotations

import functools
import json
import sys
from contextvars import ContextVar
from types import ModuleType
from typing import Any

from otel_concurrency._core import handoff
from otel_concurrency._core.handoff import NO_CONTEXT, Seam
from otel_concurrency._core.patching import Layer, Patch
from otel_concurrency._crossing import carrier
from otel_concurrency._crossing.carrier import Headers
from otel_concurrency._linking import origins

TESTED = ("0.12.0", "0.13.0")

_LABEL = "otel_concurrency"
"""The label; its value is text, as brokers may send labels as headers."""

_PERIODIC = ("schedule_by_cron", "schedule_by_interval")
"""Methods that schedule a task to run again and again; only some versions have the second."""

_repeats: ContextVar[bool] = ContextVar("otel_concurrency_repeats", default=False)
"""Whether the message that is being made is one of a schedule that repeats."""

_receiving: ContextVar[bool] = ContextVar("otel_concurrency_receiving", default=False)
"""Whether this flow has begun to handle a message, and not read its labels yet."""


def _kicker_layers(kicker: ModuleType, seam: Seam) -> list[Patch]:
    owner = kicker.AsyncKicker
    periodic = [
        name for name in ("schedule_by_cron", "schedule_by_interval") if name in vars(owner)
    ]
    return [
        Layer(owner, "_prepare_message", lambda raw: _prepare_message(raw, seam)),
        *(Layer(owner, name, _schedule) for name in periodic),
    ]


def _message_layers(message: ModuleType, seam: Seam) -> list[Patch]:
    return [Layer(message.TaskiqMessage, "parse_labels", lambda raw: _parse_labels(raw, seam))]


def _receiver_layers(receiver: ModuleType, seam: Seam) -> list[Patch]:
    return [Layer(receiver.Receiver, "callback", lambda raw: _callback(raw, seam))]


MODULES = {
    "multiprocessing": {
        "taskiq.kicker": _kicker_layers,
        "taskiq.message": _message_layers,
        "taskiq.receiver.receiver": _receiver_layers,
    }
}


def _crosses(seam: Seam, broker: Any) -> bool:
    """Whether tasks are carried, and the broker does not run them itself, where they are sent."""
    try:
        module = sys.modules.get("taskiq.brokers.inmemory_broker")
        in_memory = module is not None and isinstance(broker, module.InMemoryBroker)
    except Exception as error:
        handoff.report_fault("look at a broker", error)
        return False
    else:
        return seam.active and not in_memory


def _prepare_message(original: Any, seam: Seam) -> Any:
    @functools.wraps(original)
    def _prepare_message(self: Any, *args: Any, **kwargs: Any) -> Any:
        message = original(self, *args, **kwargs)
        try:
            if _LABEL not in message.labels and _crosses(seam, self.broker):
                headers = _captured(seam)
                if headers is not None:
                    message.labels[_LABEL] = json.dumps(headers)
        except Exception as error:
            handoff.report_fault("kiq", error)
        return message

    return _prepare_message


def _captured(seam: Seam) -> Headers | None:
    context = seam.capture(None)
    if context and _repeats.get():
        context = origins.deferred(context, seam.name, "periodic")
    return carrier.pack(context) if context else None


def _schedule(original: Any) -> Any:
    @functools.wraps(original)
    async def schedule(self: Any, source: Any, *args: Any, **kwargs: Any) -> Any:
        token = _repeats.set(True)
        try:
            return await original(self, source, *args, **kwargs)
        finally:
            _repeats.reset(token)

    return schedule


def _parse_labels(original: Any, seam: Seam) -> Any:
    @functools.wraps(original)
    def parse_labels(self: Any) -> None:
        original(self)
        try:
            if seam.active and _receiving.get():
                _receiving.set(False)
                context = carrier.unpack_safely(json.loads(self.labels.get(_LABEL, "{}")))
                if context:
                    handoff.attach_safely(
                        context
                    )  # the wrapper of `callback`, the caller, detaches
        except Exception as error:
            handoff.report_fault("extract", error)

    return parse_labels


def _callback(original: Any, seam: Seam) -> Any:
    @functools.wraps(original)
    async def callback(self: Any, message: Any, raise_err: Any = False) -> Any:
        if not _crosses(seam, self.broker):
            return await original(self, message, raise_err)
        # Also without headers: a task must not inherit the context in which the worker was started.
        token = handoff.attach_safely(NO_CONTEXT)
        _receiving.set(True)
        try:
            return await original(self, message, raise_err)
        finally:
            handoff.leave(token)
            token = None

    return callback
