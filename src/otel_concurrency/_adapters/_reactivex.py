"""reactivex: actions that a scheduler keeps for later, above all those of an event loop's thread.

The setting SCHED covers them. Schedulers that start a thread, a timer or a task for each action, or
hand it to a pool, are covered by those primitives. The others make an item of the action, and
invoke the item later.

``observe_on`` and a ``ReplaySubject`` keep the values that come while one is observed in a list: a
scheduled action takes one, and schedules itself again for the next. So each value in that list has
a context of its own.
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


def _layers_of_observers(scheduledobserver: ModuleType, seam: Seam) -> list[Patch]:
    observer = scheduledobserver.ScheduledObserver
    return [Layer(observer, "__init__", lambda raw: _observer_init(raw, seam))]


MODULES = {
    "sched": {
        "reactivex.scheduler.scheduleditem": _layers,
        "reactivex.observer.scheduledobserver": _layers_of_observers,
    }
}


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


class _Observations(list[Any]):
    """Calls that pass a value each to an observer, in the context that the value came in."""

    def __init__(self, seam: Seam) -> None:
        super().__init__()
        self._seam = seam

    def append(self, action: Any) -> None:
        super().append(handoff.bind(self._seam, action))


def _observer_init(original: Any, seam: Seam) -> Any:
    @functools.wraps(original)
    def __init__(self: Any, scheduler: Any, observer: Any) -> None:  # noqa: N807
        original(self, scheduler, observer)
        if seam.active and getattr(self, "queue", None) == []:
            self.queue = _Observations(seam)

    return __init__
