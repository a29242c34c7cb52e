"""Finds out that a hand-off by hand captured its context too early, before there was a span.

``client.on_message = otel_concurrency.wrap(on_message)``, written where the program starts, has
every message handled in the empty context that was current there.
"""

from __future__ import annotations

import sys
from types import FrameType
from typing import Any

from opentelemetry.context import Context

from otel_concurrency._core import frames

_WRAPPERS = ("otel_concurrency._by_hand.callables", "otel_concurrency._by_hand.handoffs")
"""The modules of the functions that attach a context around a call of the program."""

_STRONGER = ("captured_late", "explicit_context")
"""Reasons for which it does not matter what is attached around the work."""


def explained(suspect: dict[str, Any] | None, here: Context) -> dict[str, Any] | None:
    """Return ``suspect``, with another reason if ``here`` was attached by hand around the work."""
    if suspect is None or suspect["reason"] in _STRONGER:
        return suspect
    work = _wrapped_in(here, sys._getframe(1))  # pyright: ignore[reportPrivateUsage]
    if work is None:
        return suspect
    return {**suspect, "reason": "captured_early", "at": work.line, "work": work.name}


def _wrapped_in(here: Context, frame: FrameType | None) -> frames.Entry | None:
    """Return the function of the program that runs in ``here`` because it was wrapped or run in it.

    None if the innermost wrapper or :meth:`HandOff.run` around it has attached another context.
    """
    inside = None
    while frame is not None:
        if frame.f_globals.get("__name__") in _WRAPPERS:
            return inside if frame.f_locals.get("context") is here else None
        inside = frames.entry_at(frame) or inside
        frame = frame.f_back
    return None
