"""What a place in a code object is: the start of a ``with`` block, a ``yield``, an ``await``.

The facts are CPython's compiler's, 3.10 to 3.15 (``Python/compile.c``, ``codegen.c``): how a
``with`` statement begins, what follows a ``YIELD_VALUE``, how exception tables are written
(``Objects/exception_handling_notes.txt``). What is not recognised counts as the general case, which
costs time and nothing else. Offsets are in bytes, as in ``frame.f_lasti``.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from opcode import opmap
from types import CodeType, FrameType
from typing import Final

from otel_concurrency._core import handoff

GENERATOR: Final = 0x20 | 0x200
"""The flags of generators and asynchronous generators among ``co_flags`` (``inspect``)."""

BY_DECORATOR: Final = 0x100
"""The flag of what `types.coroutine` decorates (``inspect.CO_ITERABLE_COROUTINE``)."""

ASYNCHRONOUS: Final = 0x200
"""The flag of asynchronous generators among ``co_flags`` (``inspect.CO_ASYNC_GENERATOR``)."""


def is_first_of_a_task(code: CodeType, caller: CodeType) -> bool:
    """Whether ``code`` is of a coroutine that no other one awaits: what it runs in ends with it."""
    return bool(code.co_flags & COROUTINE) and not caller.co_flags & _AWAITING


COROUTINE: Final = 0x80
_AWAITING: Final = COROUTINE | BY_DECORATOR | ASYNCHRONOUS

_NONE: Final = -1


def _opcode(name: str) -> int:
    return opmap.get(name, _NONE)


_ENTERS: Final = frozenset(
    _opcode(name) for name in ("BEFORE_WITH", "SETUP_WITH", "BEFORE_ASYNC_WITH") if name in opmap
)
ENTERING: Final = _opcode(
    next(name for name in ("LOAD_SPECIAL", "BEFORE_WITH", "SETUP_WITH") if name in opmap)
)
ENTERING_AT: Final = -2 if "LOAD_SPECIAL" in opmap else 0
"""The instruction that tells that a ``with`` block is just being entered, and where it is seen
from ``f_lasti``: all that :func:`enters_with` knows of other blocks than asynchronous ones."""
_CALL = _opcode("CALL")
_LOAD_SPECIAL = _opcode("LOAD_SPECIAL")
_ENTER_METHODS: Final = (0, 2)
"""The arguments of LOAD_SPECIAL for ``__enter__`` and ``__aenter__`` (3.14+)."""
_AWAITS: Final = frozenset(_opcode(name) for name in ("SEND", "YIELD_FROM") if name in opmap)
_GET_AWAITABLE = _opcode("GET_AWAITABLE")
_BEFORE_ASYNC_WITH = _opcode("BEFORE_ASYNC_WITH")


def enters_with(frame: FrameType) -> bool:
    """Whether ``frame`` is just entering a ``with`` or ``async with`` block.

    What is attached by then is the block's: it is detached when the block is left.
    """
    at = frame.f_lasti
    code = frame.f_code.co_code
    opcode = code[at]
    if opcode in _ENTERS:
        return True
    if opcode == _CALL:  # 3.14+: `__enter__` is looked up and called by two instructions
        return code[at - 2] == _LOAD_SPECIAL and code[at - 1] in _ENTER_METHODS
    if opcode in _AWAITS:  # the awaitable that `__aenter__` has returned
        for before in (at - 4, at - 6):
            if before >= 0 and code[before] == _GET_AWAITABLE:
                return code[before + 1] == 1 or code[before - 2] == _BEFORE_ASYNC_WITH
    return False


# --- the rest is asked of CPython 3.12 and later alone ---

_YIELD_VALUE = _opcode("YIELD_VALUE")
_RESUME = _opcode("RESUME")
_PUSH_EXC_INFO = _opcode("PUSH_EXC_INFO")
_WITH_EXCEPT_START = _opcode("WITH_EXCEPT_START")

_LOCATION: Final = 3
"""The bits of RESUME's argument that tell where it is."""
_AFTER_AWAIT: Final = 3
_UNCOVERED: Final = {(3, 13): 4, (3, 14): 4}.get(sys.version_info[:2], 8)
"""The bit that tells that no handler of the generator's own is around (from 3.13 on)."""
_HAS_DEPTH: Final = sys.version_info < (3, 13)
_OUTERMOST: Final = 1
"""The argument of YIELD_VALUE where there is only the handler that each generator has (3.12)."""


def is_await(code: CodeType, resume: int) -> bool:
    """Whether the RESUME at the offset ``resume`` goes on after an ``await``. Never raises."""
    try:
        return code.co_code[resume + 1] & _LOCATION == _AFTER_AWAIT
    except Exception as error:
        handoff.report_fault("resume a generator", error)
        return False


def is_bare(code: CodeType, resume: int) -> bool:
    """Whether no handler is around the ``yield`` before the RESUME at ``resume``.

    CPython 3.12 to 3.14 may close a generator that is suspended there without resuming it
    (``gen_close``).
    """
    instructions = code.co_code
    if _HAS_DEPTH:
        return instructions[resume - 1] == _OUTERMOST
    return bool(instructions[resume + 1] & _UNCOVERED)


class Handler:
    """An entry of an exception table: what is raised in ``[start, end)`` goes on at ``target``."""

    __slots__ = ("end", "start", "target")

    def __init__(self, start: int, end: int, target: int) -> None:
        self.start = start
        self.end = end
        self.target = target


def handlers(code: CodeType) -> Iterator[Handler]:
    """Yield the entries of the exception table of ``code``, which do not overlap, in order."""
    table: bytes = getattr(code, "co_exceptiontable")  # noqa: B009 - not in 3.10
    values = _numbers(table)
    for start, length, target, _ in zip(values, values, values, values, strict=True):
        yield Handler(start * 2, (start + length) * 2, target * 2)


def _numbers(table: bytes) -> Iterator[int]:
    number = 0
    for byte in table:
        number = number << 6 | byte & 63
        if not byte & 64:
            yield number
            number = 0


def yields_inside(code: CodeType, entered: int) -> bool:
    """Whether there is a ``yield`` in the ``with`` block that is entered at the offset ``entered``.

    Yes, if the block is not found.
    """
    table = list(handlers(code))
    instructions = code.co_code
    leave = next(
        (
            one.target
            for one in table
            if one.start > entered
            and instructions[one.target] == _PUSH_EXC_INFO
            and instructions[one.target + 2] == _WITH_EXCEPT_START
        ),
        None,
    )
    if leave is None:
        return True
    return any(leave in _handled_at(table, offset) for offset in _yields(instructions))


def _yields(instructions: bytes) -> Iterator[int]:
    for offset in range(0, len(instructions) - 2, 2):
        if (
            instructions[offset] == _YIELD_VALUE
            and instructions[offset + 2] == _RESUME
            and instructions[offset + 3] & _LOCATION != _AFTER_AWAIT
        ):
            yield offset


def _handled_at(table: list[Handler], offset: int) -> set[int]:
    """Return the handlers of what is raised at ``offset``: the innermost, its own, and so on."""
    found: set[int] = set()
    while True:
        target = next((one.target for one in table if one.start <= offset < one.end), None)
        if target is None or target in found:
            return found
        found.add(target)
        offset = target
