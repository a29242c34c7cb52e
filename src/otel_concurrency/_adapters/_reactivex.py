"""reactivex: actions that a scheduler keeps for later, above all those of an event loop's thread.

The setting SCHED covers them. Schedulers that start a thread, a timer or a task for each action, or
hand it to a pool, are covered by those primitives. The others make an item of the action, and
invoke the item later.
"""

from __future__ import annotations

import functools
from types import ModuleType
from typing import Any

from otel_concurrency._core import handoff
from otel_concurrency._core.handoff import Call, Seam
from otel_concurrency._core.patching import Layer, Patch

TESTED = ("4.0.4", "6.1.0")


def _layers(scheduleditem: ModuleType, seam: Seam) -> list[Patch]:
    item = scheduleditem.ScheduledItem
    return [
        Layer(item, "__init__", lambda raw: _init(raw, seam)),
        Layer(item, "cancel", _cancel),
    ]


MODULES = {"sched": {"reactivex.scheduler.scheduleditem": _layers}}


def _init(original: Any, seam: Seam) -> Any:
    @functools.wraps(original)
    def __init__(self: Any, scheduler: Any, state: Any, action: Any, duetime: Any) -> None:  # noqa: N807
        # Also without a context: the flow that invokes it may have one.
        original(self, scheduler, state, handoff.bind(seam, action), duetime)

    return __init__


def _cancel(original: Any) -> Any:
    @functools.wraps(original)
    def cancel(self: Any) -> None:
        original(self)
        if isinstance(self.action, Call):
            self.action.release()  # the cancelled item stays in the scheduler until it is due

    return cancel
