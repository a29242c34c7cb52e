"""Django Channels: messages to a consumer, over the layer in memory.

The setting ASYNCIO covers them. A consumer waits for messages of its connection and for those of
its channel, in tasks of their own. What it does with one, it does in the context that this task has
adopted with it. Where the connection has a span that is going on, its messages belong to that.
"""

from __future__ import annotations

import functools
import sys
from types import ModuleType
from typing import Any

from opentelemetry.context import Context

from otel_concurrency._clean_starts import wrappers
from otel_concurrency._core import handoff
from otel_concurrency._core.awaiting import awaited_in
from otel_concurrency._core.handoff import Seam, adopted
from otel_concurrency._core.patching import Alias, Layer, Patch

TESTED = ("4.1.0", "4.3.2")


def _utils_layers(utils: ModuleType, seam: Seam) -> list[Patch]:
    return [Layer(utils, "await_many_dispatch", lambda raw: _await_many_dispatch(raw, seam))]


def _consumer_layers(consumer: ModuleType, seam: Seam) -> list[Patch]:
    return [Alias(consumer, "await_many_dispatch", sys.modules["channels.utils"])]


def _layers_layers(layers: ModuleType, seam: Seam) -> list[Patch]:
    # A request that asks whether a queue is empty, and puts something, is taken for one that fills
    # a pool. Here the layer asks, before it sends.
    owner = layers.InMemoryChannelLayer
    return [Layer(owner, "_clean_expired", lambda raw: wrappers.flow(raw, seam))]


MODULES = {
    "asyncio": {
        "channels.utils": _utils_layers,
        "channels.consumer": _consumer_layers,
        "channels.layers": _layers_layers,
    }
}


class _Got:
    """The contexts of messages that tasks have got, until these are dispatched."""

    def __init__(self) -> None:
        self._contexts: dict[int, Context] = {}

    def by(self, receive: Any) -> Any:
        """Return a function that gets a message by ``receive``, in a task of its own."""

        @functools.wraps(receive)
        async def get() -> Any:
            before = adopted.get()
            message = await receive()
            self.note(message, before)
            return message

        return get

    def note(self, message: Any, before: Any) -> None:
        """Remember the context that this task has adopted with a message. Never raises.

        ``before`` is what it had adopted before, as the flow that made it had.
        """
        try:
            record = adopted.get()
            context = None if record is None or record is before else record[0]()
            if context is not None and context is handoff.get_current():
                self._contexts[id(message)] = context
        except Exception as error:
            handoff.report_fault("get a message", error)

    def dispatching(self, dispatch: Any) -> Any:
        """Return a function that does what ``dispatch`` does, in the context of the message."""

        @functools.wraps(dispatch)
        async def dispatch_in_context(message: Any) -> Any:
            context = self._contexts.pop(id(message), None)
            if context is None:
                return await dispatch(message)
            return await awaited_in(context, dispatch(message))

        return dispatch_in_context


def _await_many_dispatch(original: Any, seam: Seam) -> Any:
    @functools.wraps(original)
    async def await_many_dispatch(consumer_callables: Any, dispatch: Any) -> Any:
        if not seam.active:
            return await original(consumer_callables, dispatch)
        got = _Got()
        receivers = [got.by(receive) for receive in consumer_callables]
        return await original(receivers, got.dispatching(dispatch))

    return await_many_dispatch
