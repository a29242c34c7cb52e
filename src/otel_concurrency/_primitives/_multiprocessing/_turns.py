"""The turns of a pool's worker process: the context that it is in from a task to its result.

A worker takes a task from one queue and puts the result to another, and in between calls nothing
but the user's function. So those two moments are where a task's turn begins and ends. No frame of
ours stands around the user's function.
"""

from __future__ import annotations

from _thread import get_ident
from typing import Any

from opentelemetry.context import Context

from otel_concurrency._core import handoff
from otel_concurrency._core.handoff import adopted, ages, attach, bodies, detach, get_current


class Turn:
    """What a worker is in, from the moment it has a task to the moment it has its result."""

    __slots__ = ("base", "thread", "token")

    def __init__(self) -> None:
        self.base: Context | None = None
        """What the initializer has left the worker in."""
        self.thread = get_ident()
        self.token: Any = None

    def begin(self, context: Context) -> None:
        """Be in ``context``, which is all that there is to do meanwhile. Never raises."""
        try:
            self.token, bodies[self.thread] = attach(context), context
        except Exception as error:
            handoff.report("attach", error)

    def end(self) -> None:
        """Be where the worker was before, whatever the task has left behind. Never raises."""
        token, self.token = self.token, None
        try:
            if ages:
                ages.pop(self.thread, None)
            if token is not None:
                bodies.pop(self.thread, None)
                detach(token)
            if handoff.any_adopted and adopted.get() is not None:
                adopted.set(None)  # what the task has adopted ends with it
            current = get_current()
            if current is not self.base:
                if self.base is None:
                    self.base = current
                else:
                    attach(self.base)  # somebody has forgotten to detach
        except Exception as error:
            handoff.report("detach", error)
