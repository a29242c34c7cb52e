"""anyio: memory object streams, which are queues of tasks.

They go by ASYNCIO, under trio too. Tasks, threads and portals of anyio carry context natively.
"""

from __future__ import annotations

from types import ModuleType

from otel_concurrency._channels import Channels
from otel_concurrency._handoff import Seam
from otel_concurrency._patching import Patch

TESTED = ("4.4.0", "4.16.0")


def _layers(memory: ModuleType, seam: Seam) -> list[Patch]:
    return [
        Channels(
            seam,
            memory.MemoryObjectSendStream,
            memory.MemoryObjectReceiveStream,
            stored=lambda state: len(state.buffer) + len(state.waiting_senders),
            waiting=lambda state: len(state.waiting_receivers),
        )
    ]


MODULES = {"asyncio": {"anyio.streams.memory": _layers}}
