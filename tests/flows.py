"""What tests of flows share: how to be in none, and how long to wait for one."""

from __future__ import annotations

import contextvars
from collections.abc import Callable
from typing import Any

WAIT = 10
"""Seconds after which something that is waited for will not happen any more."""


def without_context(function: Callable[..., Any], *args: Any) -> Any:
    """Call ``function`` where nothing is attached, whatever is attached here."""
    return contextvars.Context().run(function, *args)
