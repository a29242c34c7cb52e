"""Which generator a context was attached by: the one that will hold it over its ``yield``.

It is asked for at every attach, nearly always in vain. Nearly always a ``with`` statement of a
function or of a coroutine has attached, which detaches before it returns: that is seen at the first
frame that counts. Only what is attached by hand, and not detached by the function that has attached
it, is followed up the stack.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import CodeType, FrameType
from typing import Any, Final

from otel_concurrency._generators import bytecode
from otel_concurrency._generators.bytecode import (
    BY_DECORATOR,
    COROUTINE,
    ENTERING,
    ENTERING_AT,
    GENERATOR,
)

_DEEPEST: Final = 32
"""How many callers are looked at: what is attached by hand below more of them is not followed."""


class Holder:
    """The frame of a generator, and how it holds what was attached."""

    __slots__ = ("by_hand", "frame")

    def __init__(self, frame: FrameType, *, by_hand: bool) -> None:
        self.frame = frame
        self.by_hand = by_hand
        """Not by a ``with`` statement, which would detach it in any case."""


def find(frame: FrameType | None, left_alone: Callable[[str], bool]) -> Holder | None:
    """Return the generator that holds what is attached below ``frame``, if any does.

    ``left_alone`` tells of the dotted name of a generator, or of what resumes one, that what it
    attaches is meant for its caller.
    """
    for _ in range(_DEEPEST):
        if frame is None:
            return None
        code = frame.f_code
        flags = code.co_flags
        if flags & GENERATOR and not flags & BY_DECORATOR:  # that `yield` is an `await`
            driver = frame.f_back
            if driver is None or not _is_left_alone(frame, driver, left_alone):
                return _as_holder(frame)
            frame = driver
            continue
        if code.co_code[frame.f_lasti + ENTERING_AT] == ENTERING:
            return None
        caller = frame.f_back
        if flags & COROUTINE and (
            caller is None
            or bytecode.enters_with(frame)
            or bytecode.is_first_of_a_task(code, caller.f_code)
        ):
            return None
        frame = caller
    return None


def _as_holder(frame: FrameType) -> Holder | None:
    if not bytecode.enters_with(frame):
        return Holder(frame, by_hand=True)
    return Holder(frame, by_hand=False) if _over_a_yield(frame.f_code, frame.f_lasti) else None


def name(frame: FrameType) -> str:
    """Return the dotted name of the function that ``frame`` runs; before 3.11 a part of it."""
    code: Any = frame.f_code
    return f"{frame.f_globals.get('__name__')}.{getattr(code, 'co_qualname', code.co_name)}"


class _ByCode(dict[Any, tuple[Any, bool]]):
    """Answers about code objects, by their identity: to hash a code is to read all of it.

    A key has the identities of the codes that its answer is about; they are kept beside it, so that
    no other one gets them.
    """

    def keep(self, key: object, codes: object, answer: bool) -> bool:
        if len(self) >= _MOST_ANSWERS:
            self.clear()
        self[key] = codes, answer
        return answer


_MOST_ANSWERS: Final = 4096

_driven = _ByCode()
_blocks = _ByCode()
_balanced = _ByCode()


def _is_left_alone(frame: FrameType, driver: FrameType, left_alone: Callable[[str], bool]) -> bool:
    code, driving = frame.f_code, driver.f_code
    key = id(code), id(driving), id(left_alone)
    known = _driven.get(key)
    if known is not None:
        return known[1]
    answer = left_alone(name(driver)) or left_alone(name(frame))
    return _driven.keep(key, (code, driving, left_alone), answer)


_CAN_TELL = sys.version_info >= (3, 12) and sys.implementation.name == "cpython"


def _over_a_yield(code: CodeType, entered: int) -> bool:
    """Whether the ``with`` block that begins at the offset ``entered`` has a ``yield`` in it."""
    if not _CAN_TELL:
        return True
    key = id(code), entered
    known = _blocks.get(key)
    if known is not None:
        return known[1]
    return _blocks.keep(key, code, bytecode.yields_inside(code, entered))


def is_balanced(code: CodeType) -> bool:
    """Whether a function attaches by hand and detaches by hand, both by these names.

    It is no generator, so what it has attached is not current any more when somebody yields.
    """
    known = _balanced.get(id(code))
    if known is not None:
        return known[1]
    answer = "detach" in code.co_names and not code.co_flags & GENERATOR
    return _balanced.keep(id(code), code, answer)
