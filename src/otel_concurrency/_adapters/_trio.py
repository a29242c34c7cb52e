"""trio: memory channels, which are queues of tasks.

They go by ASYNCIO, of which they are the counterpart. Tasks and threads of trio carry context
natively.
"""

from __future__ import annotations

from types import ModuleType

from otel_concurrency._core.handoff import Seam
from otel_concurrency._core.patching import Patch
from otel_concurrency._items.channels import Channels

TESTED = ("0.26.2", "0.35.0")


def _layers(channel: ModuleType, seam: Seam) -> list[Patch]:
    return [
        Channels(
            seam,
            channel.MemorySendChannel,
            channel.MemoryReceiveChannel,
            stored=lambda state: len(state.data) + len(state.send_tasks),
            waiting=lambda state: len(state.receive_tasks),
        )
    ]


MODULES = {"asyncio": {"trio._channel": _layers}}
