"""The policies, and how each one changes a captured context."""

from __future__ import annotations

import enum
from collections.abc import Callable

from opentelemetry.context import Context

from otel_concurrency._core import handoff
from otel_concurrency._linking import origins


class Policy(enum.Enum):
    """How the work on the far side of a hand-off is related to the span that handed it off."""

    PARENT = "parent"
    """Its spans are children of that span."""

    LINK = "link"
    """Its spans start a new trace that is linked to that span."""

    OFF = "off"
    """There is no relation: the primitive is not patched."""


def change_for(policy: Policy, primitive: str) -> Callable[[Context], Context] | None:
    """Return the function by which ``policy`` changes a context of ``primitive``.

    None if the policy changes no context.
    """
    if policy is not Policy.LINK:
        return None
    return lambda context: origins.deferred(context, primitive)


def capture_for(
    policy: Policy, starts_clean: Callable[[object], bool] | None, primitive: str
) -> handoff.Capture:
    """Return the capture function for the seam of ``primitive`` under ``policy``.

    ``starts_clean`` tells whether a piece of work (a thread or a callable) must run in the empty
    context. It is called only if the current context is not empty.
    """
    if policy is Policy.OFF:
        return handoff.capture_nothing
    change = change_for(policy, primitive)
    if change is None:
        return handoff.capture if starts_clean is None else _capture_unless(starts_clean)

    def capture(work: object) -> Context | None:
        context = handoff.get_current()
        if not context:
            return None
        if starts_clean is not None and starts_clean(work):
            return handoff.NO_CONTEXT
        return change(context)

    return capture


def _capture_unless(starts_clean: Callable[[object], bool]) -> handoff.Capture:
    """Return the capture function for a context that no policy changes."""

    def capture(work: object) -> Context | None:
        context = handoff.get_current()
        if not context:
            return None
        return handoff.NO_CONTEXT if starts_clean(work) else context

    return capture
