"""textual: messages, and callbacks that are posted to the loop of an app or a widget.

The setting ASYNCIO covers them. A message is handled in the context in which it was posted, by each
widget that it reaches. The loops themselves are in no context, so what a terminal sends belongs to
no trace, whoever has started the app or mounted the widget. Each round of a timer that repeats is a
trace of its own, with a link to the span in which the timer was started. asyncio carries the
context to workers, and to ``call_from_thread``.
"""

from __future__ import annotations

import functools
from types import ModuleType
from typing import Any

from otel_concurrency._clean_starts import wrappers
from otel_concurrency._core import handoff
from otel_concurrency._core.awaiting import awaited_in
from otel_concurrency._core.handoff import NO_CONTEXT, Seam
from otel_concurrency._core.patching import Layer, Patch
from otel_concurrency._linking.posted import PostedToAwait, post

TESTED = ("6.0.0", "8.2.8")

_CONTEXTS = "_otel_concurrency_contexts"
"""The attribute of a message with the contexts in which it was posted, by the receiver's id."""


def _pump_layers(message_pump: ModuleType, seam: Seam) -> list[Patch]:
    pump = vars(message_pump)["MessagePump"]
    return [
        Layer(pump, "post_message", lambda raw: _post_message(raw, seam)),
        Layer(pump, "_dispatch_message", lambda raw: _dispatch_message(raw, seam)),
        Layer(pump, "_process_messages_loop", lambda raw: wrappers.asynchronous_flow(raw, seam)),
        Layer(pump, "set_timer", lambda raw: _set_timer(raw, seam)),
        Layer(pump, "call_next", lambda raw: _call(raw, seam)),
        Layer(pump, "call_after_refresh", lambda raw: _call(raw, seam)),
    ]


def _timer_layers(timer: ModuleType, seam: Seam) -> list[Patch]:
    return [Layer(timer.Timer, "_start", lambda raw: _start(raw, seam))]


MODULES = {
    "asyncio": {"textual.message_pump": _pump_layers, "textual.timer": _timer_layers},
}


def _post_message(original: Any, seam: Seam) -> Any:
    @functools.wraps(original)
    def post_message(self: Any, message: Any) -> Any:
        waiting: list[Any] = []
        try:
            attributes = getattr(message, "__dict__", None)  # a bare Message has none
            if seam.active and attributes is not None:
                contexts = attributes.setdefault(_CONTEXTS, {})
                waiting = contexts.setdefault(id(self), [])
                waiting.append(seam.capture(message) or NO_CONTEXT)
        except Exception as error:
            handoff.report_fault("post_message", error)
        posted = original(self, message)
        if not posted and waiting:
            waiting.pop()
        return posted

    return post_message


def _dispatch_message(original: Any, seam: Seam) -> Any:
    @functools.wraps(original)
    async def _dispatch_message(self: Any, message: Any) -> Any:
        waiting = getattr(message, "__dict__", {}).get(_CONTEXTS, {}).get(id(self))
        if not (waiting and seam.active):
            return await original(self, message)  # a message that no queue was needed for
        return await awaited_in(waiting.pop(0), original(self, message))

    return _dispatch_message


def _set_timer(original: Any, seam: Seam) -> Any:
    @functools.wraps(original)
    def set_timer(self: Any, delay: Any, callback: Any = None, **kwargs: Any) -> Any:
        return original(self, delay, post(seam, callback, kind=PostedToAwait), **kwargs)

    return set_timer


def _call(original: Any, seam: Seam) -> Any:
    @functools.wraps(original)
    def call(self: Any, callback: Any, *args: Any, **kwargs: Any) -> Any:
        return original(self, post(seam, callback, args, kwargs, PostedToAwait), *args, **kwargs)

    return call


def _start(original: Any, seam: Seam) -> Any:
    rounds = wrappers.rounds(original, seam, seam.name)

    @functools.wraps(original)
    def _start(self: Any) -> Any:
        return original(self) if self._repeat == 0 else rounds(self)

    return _start
