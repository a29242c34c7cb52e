"""Look up the calling frame. There is none where a thread or a greenlet starts in our function."""

from __future__ import annotations

import sys
from types import CodeType, FrameType


def caller(skip: int = 0) -> FrameType | None:
    """Return the frame that called the function which calls this one; None where there is none.

    ``skip`` is the number of frames to go further up the stack.
    """
    try:
        return sys._getframe(skip + 2)  # pyright: ignore[reportPrivateUsage]  # documented
    except ValueError:
        return None


def is_called_by(code: CodeType) -> bool:
    """Whether the function which calls this one was itself called from ``code``."""
    try:
        return sys._getframe(2).f_code is code  # pyright: ignore[reportPrivateUsage]  # documented
    except ValueError:
        return False


def leave_out_of_traceback(error: BaseException) -> None:
    """Remove the calling frame from the traceback of ``error``, which it is about to raise again.

    Its ``raise`` without an exception adds no entry. Python 3.10 keeps a copy of the traceback
    beside the exception, so the frame stays in it there.
    """
    traceback = error.__traceback__
    if traceback is not None and traceback.tb_frame is caller():
        error.__traceback__ = traceback.tb_next
