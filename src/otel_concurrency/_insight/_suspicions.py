"""Whether a span that is being started has lost its parent, and all that tells why.

This is asked in the process and at the moment in which it starts, where all of it can be seen. What
is said of it in words is the business of ``reasons``.
"""

from __future__ import annotations

from typing import Any

from opentelemetry.context import Context

from otel_concurrency._insight._flow import Flow

SEEN = "_otel_concurrency_seen"
"""The attribute of a span that holds what was seen of its start."""

_ENTRIES = ("SERVER", "CONSUMER")
"""The kinds of spans that traces are meant to begin with."""


class Seen:
    """What was seen of the start of a span."""

    __slots__ = ("flow", "site")

    def __init__(self, site: str | None, flow: Flow | None) -> None:
        self.site = site
        self.flow = flow


def about(
    span: Any, parent: Any, here: Context, flow: Flow | None, seen: Seen, *, explicit: bool
) -> dict[str, Any] | None:
    """Return why ``span`` is suspected to have lost its parent, as plain data; None: it is not."""
    if span.parent is not None or span.links or span.kind.name in _ENTRIES:
        return None
    if flow is not None and flow.record.cause is not None:
        return _lost(flow)
    return None


def _lost(flow: Flow) -> dict[str, Any] | None:
    record = flow.record
    return {"reason": "lost", "origin": record.cause, "by": record.facts()}
