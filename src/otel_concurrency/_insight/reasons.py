"""Says in plain words why a span is an orphan, which line is at fault, and what to do about it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple


class Reason(NamedTuple):
    """What is said of an orphan."""

    name: str
    words: str
    advice: str
    site: str | None


def of(suspect: Mapping[str, Any]) -> Reason:
    """Return the reason that the facts of a suspicion amount to."""
    by: Mapping[str, Any] = suspect["by"]
    if by["policy"] == "off":
        return Reason("primitive_off", _went(suspect), _switch_on(by["primitive"]), by["site"])
    return Reason("not_carried", _went(suspect), "", by["site"])


def _went(suspect: Mapping[str, Any]) -> str:
    by: Mapping[str, Any] = suspect["by"]
    return f"It was handed off at {by['site']} by {by['call']}."


def _switch_on(primitive: str) -> str:
    return f"Switch {primitive.upper()} on."
