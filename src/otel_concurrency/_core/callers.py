"""Look up the calling frame. There is none where a thread or a greenlet starts in our function."""

from __future__ import annotations

import sys
from opcode import opmap
from types import CodeType, FrameType
from typing import Final


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


_LOADS_METHOD: Final = opmap.get("LOAD_METHOD")
_LOADS: Final[frozenset[int]] = frozenset(
    opmap[name] for name in ("LOAD_ATTR", "LOAD_SUPER_ATTR") if sys.version_info >= (3, 12)
)
"""What looks an attribute up. Since 3.12 the last bit of its argument says that it is called."""


def is_called_at_once(frame: FrameType) -> bool:
    """Whether ``frame`` looks an attribute up in order to call it: ``a.b()``, not ``f(a.b)``.

    It is not known of ``a.b(*args)``. The facts are CPython's compiler's, 3.10 to 3.15.
    """
    code = frame.f_code.co_code
    operation, argument = code[frame.f_lasti : frame.f_lasti + 2]
    return operation == _LOADS_METHOD or (operation in _LOADS and bool(argument & 1))


def leave_out_of_traceback(error: BaseException) -> None:
    """Remove the calling frame from the traceback of ``error``, which it is about to raise again.

    Its ``raise`` without an exception adds no entry. Python 3.10 keeps a copy of the traceback
    beside the exception, so the frame stays in it there.
    """
    traceback = error.__traceback__
    if traceback is not None and traceback.tb_frame is caller():
        error.__traceback__ = traceback.tb_next
