"""The turns of a pool's worker: a turn lasts from getting a task to putting its result.

A worker takes a task from one queue, calls nothing but the user's function, and puts the result to
another queue. So attaching at the first queue and detaching at the second is enough, and this
library needs no frame around the user's function.
"""

from __future__ import annotations

from _thread import get_ident
from typing import Any

from opentelemetry.context import Context

from otel_concurrency._core import handoff
from otel_concurrency._core.handoff import adopted, ages, attach, bodies, detach, get_current


class Turn:
    """Attaches the context of a worker's task, and restores the worker's context afterwards."""

    __slots__ = ("base", "thread", "token")

    def __init__(self) -> None:
        self.base: Context | None = None
        """The context that was current after the pool's initializer; None until the first end."""
        self.thread = get_ident()
        self.token: Any = None

    def begin(self, context: Context) -> None:
        """Attach ``context``, and note that the thread's current work is in it. Never raises."""
        try:
            self.token, bodies[self.thread] = attach(context), context
        except Exception as error:
            handoff.report_fault("attach", error)

    def end(self) -> None:
        """Restore the worker's context, whatever the task has left attached. Never raises."""
        token, self.token = self.token, None
        try:
            if ages:
                ages.pop(self.thread, None)
            if token is not None:
                bodies.pop(self.thread, None)
                detach(token)
            if handoff.any_adopted and adopted.get() is not None:
                adopted.set(None)  # let go of the item that the task adopted
            current = get_current()
            if current is not self.base:
                if self.base is None:
                    self.base = current
                else:
                    attach(self.base)  # the task forgot to detach
        except Exception as error:
            handoff.report_fault("detach", error)
