"""Finds the line of the program that something happens at: the *site*.

That is the first frame, from the inside out, that is neither ours nor the standard library's nor
OpenTelemetry's; one of the program's own is preferred to one of an installed package.
"""

from __future__ import annotations

import functools
import itertools
import os
import sys
import sysconfig
from types import CodeType, FrameType
from typing import NamedTuple

_PROGRAM, _PACKAGE, _MACHINERY = range(3)

_INSTALLED = (f"{os.sep}site-packages{os.sep}", f"{os.sep}dist-packages{os.sep}")
_NOT_THE_PROGRAMS = ("opentelemetry", "wrapt", "_pytest", "pluggy", "pytest")
_OURS = os.path.dirname(os.path.dirname(__file__)) + os.sep
_STDLIB = tuple(
    {os.path.realpath(path) + os.sep for path in map(sysconfig.get_path, ("stdlib", "platstdlib"))}
    | {os.path.dirname(os.path.realpath(os.__file__)) + os.sep}
    | {os.path.dirname(os.__file__) + os.sep}
)
_OF_ITS_OWN = (
    ("opentelemetry", "sdk"),
    ("opentelemetry", "exporter"),
    ("_child_exit", "flush.py"),
)
_STARTS = ("spawn_main", "main")
"""What the text of a process calls that multiprocessing has started."""

_ASYNCIO = f"{os.sep}asyncio{os.sep}"
_PROCESS = f"{os.sep}multiprocessing{os.sep}process.py"
_LOOPS = ("_run", "run_forever", "run_until_complete", "run")
"""The functions of asyncio that call on behalf of others than their callers."""

_DEEPEST = 200
"""How many frames are looked at."""

_kinds: dict[str, int] = {}


class Site(NamedTuple):
    """A line of the program, and the way from there."""

    line: str | None
    """``file:line``, relative to the working directory where it is inside; None: there is none."""
    via: str
    """The name of the function that the line has called."""
    is_ours: bool = False
    """Whether it is OpenTelemetry that acts for itself on the way, or this library."""


def _kind(file: str) -> int:
    """Return whose code ``file`` is."""
    kind = _kinds.get(file)
    if kind is None:
        kind = _kinds[file] = _classify(file)
    return kind


def _classify(file: str) -> int:
    if file.startswith((_OURS, "<frozen ")):
        return _MACHINERY
    for installed in _INSTALLED:
        if installed in file:
            package = file.rpartition(installed)[2].split(os.sep)[0].removesuffix(".py")
            return _MACHINERY if package in _NOT_THE_PROGRAMS else _PACKAGE
    return _MACHINERY if file.startswith(_STDLIB) else _PROGRAM


@functools.cache
def _acts_for_itself(file: str) -> bool:
    """Whether it is a part of OpenTelemetry that hands work off for its own sake."""
    parts = file.split(os.sep)
    return any(pair in itertools.pairwise(parts) for pair in _OF_ITS_OWN)


def _starts_a_process(code: CodeType) -> bool:
    return code.co_filename == "<string>" and any(name in code.co_names for name in _STARTS)


def _begins_a_process(code: CodeType) -> bool:
    """Whether what has called it is, after a fork, what its parent has been about."""
    return code.co_name == "_bootstrap" and code.co_filename.endswith(_PROCESS)


def is_standard_library(code: CodeType) -> bool:
    """Whether it is code of the standard library, of OpenTelemetry, or ours."""
    return _kind(code.co_filename) == _MACHINERY


def show(file: str, line: int) -> str:
    """Return ``file:line`` as it is shown."""
    here = _working_directory()
    if here and file.startswith(here):
        file = file[len(here) :]
    return f"{file}:{line}"


_here: str | None = None


def _working_directory() -> str:
    global _here  # noqa: PLW0603
    if _here is None:
        try:
            _here = os.getcwd().rstrip(os.sep) + os.sep
        except OSError:  # it was removed
            _here = ""
    return _here


def site(frame: FrameType | None = None) -> Site:
    """Return the line of the program that has led to ``frame``: to the caller, by default."""
    frame = frame or sys._getframe(1)  # pyright: ignore[reportPrivateUsage]
    of_package: Site | None = None
    via = ""
    is_ours = False
    for _ in range(_DEEPEST):
        code = frame.f_code
        kind = _MACHINERY if _starts_a_process(code) else _kind(code.co_filename)
        if kind != _MACHINERY:
            found = Site(show(code.co_filename, frame.f_lineno), via, is_ours)
            if kind == _PROGRAM:
                return found
            of_package = of_package or found
        elif _begins_a_process(code):
            break
        elif code.co_name in _LOOPS and _ASYNCIO in code.co_filename and of_package:
            return of_package
        elif not code.co_name.startswith("<"):
            via = code.co_name
            is_ours = is_ours or _acts_for_itself(code.co_filename)
        if frame.f_back is None:
            break
        frame = frame.f_back
    return of_package or Site(None, via, is_ours)


def entry(frame: FrameType | None = None) -> str | None:
    """Return where the function is defined that this thread has begun with."""
    frame = frame or sys._getframe(1)  # pyright: ignore[reportPrivateUsage]
    found = None
    while frame is not None:
        if _kind(frame.f_code.co_filename) != _MACHINERY:
            found = show(frame.f_code.co_filename, frame.f_code.co_firstlineno)
        frame = frame.f_back
    return found
