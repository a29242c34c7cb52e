"""Who has called a function of ours: nobody, where a thread or a greenlet begins with it."""

from __future__ import annotations

import sys
from types import CodeType, FrameType


def caller(skip: int = 0) -> FrameType | None:
    """Return the frame of who has called the function that asks; None where there is none.

    With ``skip`` it is that many callers further away.
    """
    try:
        return sys._getframe(skip + 2)  # pyright: ignore[reportPrivateUsage]  # documented
    except ValueError:
        return None


def is_called_by(code: CodeType) -> bool:
    """Whether the function that asks was called by the one that has ``code``."""
    try:
        return sys._getframe(2).f_code is code  # pyright: ignore[reportPrivateUsage]  # documented
    except ValueError:
        return False
