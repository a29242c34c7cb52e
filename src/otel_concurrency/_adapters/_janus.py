"""janus: queues with a synchronous and an asynchronous side.

The setting QUEUE covers them. Both sides put and get by the same two methods of the shared queue,
as ``queue.Queue`` does.
"""

from __future__ import annotations

from types import ModuleType

from otel_concurrency._core.handoff import Seam
from otel_concurrency._core.patching import Layer, Patch
from otel_concurrency._items import queue_hooks
from otel_concurrency._items.pairing import Pairing
from otel_concurrency._items.queue_hooks import QueueHooks

TESTED = ("2.0.0", "2.0.0")


def _layers(janus: ModuleType, seam: Seam) -> list[Patch]:
    pairing = Pairing(
        janus,
        seam,
        container=("_heap_queue", "_queue"),
        size="_qsize",
        waits=("_qsize", False),
    )
    sides = (vars(janus)[name] for name in ("_SyncQueueProxy", "_AsyncQueueProxy"))
    return [
        QueueHooks(pairing, {}),
        *(Layer(side, "task_done", queue_hooks.task_done) for side in sides),
        *queue_hooks.shutdown_layers(pairing.stock),
    ]


MODULES = {"queue": {"janus": _layers}}
