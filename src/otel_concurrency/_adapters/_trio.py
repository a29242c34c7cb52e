"""trio: memory channels, which are queues of tasks, and calls that are handed to the event loop.

The setting ASYNCIO covers them, since they are trio's counterpart of asyncio. Tasks and threads of
trio carry context natively. ``TrioToken.run_sync_soon``, by which any thread can call into the
loop, does not.
"""

from __future__ import annotations

import functools
from itertools import islice
from types import ModuleType
from typing import Any

from otel_concurrency._core import handoff
from otel_concurrency._core.handoff import Seam
from otel_concurrency._core.patching import Layer, Patch
from otel_concurrency._items.channels import Channels, Kind

TESTED = ("0.26.2", "0.35.0")


def _layers(channel: ModuleType, seam: Seam) -> list[Patch]:
    return [
        Channels(
            seam,
            Kind(
                channel.MemorySendChannel,
                channel.MemoryReceiveChannel,
                items=lambda state: [*state.data, *state.send_tasks.values()],
                size=lambda state: len(state.data) + len(state.send_tasks),
                senders=lambda state: list(state.send_tasks),
                waiting=lambda state: tuple(islice(state.receive_tasks, 1)),
                given=_given,
                task=lambda: id(channel.trio.lowlevel.current_task()),
            ),
        )
    ]


def _given(state: Any, receivers: tuple[Any, ...]) -> int | None:
    (first,) = receivers
    return None if first in state.receive_tasks else id(first)


def _token_layers(entry_queue: ModuleType, seam: Seam) -> list[Patch]:
    return [Layer(entry_queue.TrioToken, "run_sync_soon", lambda raw: _run_sync_soon(raw, seam))]


MODULES = {
    "asyncio": {"trio._channel": _layers, "trio._core._entry_queue": _token_layers},
}


def _run_sync_soon(original: Any, seam: Seam) -> Any:
    @functools.wraps(original)
    def run_sync_soon(self: Any, sync_fn: Any, *args: Any, idempotent: bool = False) -> None:
        # Also without a context: the loop has the context in which `trio.run` was called.
        original(self, handoff.bind(seam, sync_fn), *args, idempotent=idempotent)

    return run_sync_soon
