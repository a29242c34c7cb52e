"""Finds the *site*: the line of the program at which something happens.

It is the innermost frame that does not belong to this library, the standard library or
OpenTelemetry. A frame of the program is preferred to a frame of an installed package.
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
_SCRIPTS = tuple(
    {
        path + os.sep
        for each in (sysconfig.get_path("scripts"),)
        for path in (each, os.path.realpath(each))
    }
)
"""Where commands of installed packages are, as `uvicorn` is; their lines say nothing."""
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
"""The functions that multiprocessing calls in the command line of a process that it starts."""

_ASYNCIO = f"{os.sep}asyncio{os.sep}"
_PROCESS = f"{os.sep}multiprocessing{os.sep}process.py"
_LOOPS = ("_run", "run_forever", "run_until_complete", "run")
"""The functions of asyncio that run callbacks which their own callers did not cause."""

_DEEPEST = 200
"""The maximum number of frames that are searched."""

_kinds: dict[str, int] = {}


class Site(NamedTuple):
    """A line of the program, and how it led to the frame that was asked for."""

    line: str | None
    """``file:line``, relative to the working directory for a file inside it; None if not found."""
    via: str
    """The name of the function that the line called."""
    is_ours: bool = False
    """Whether OpenTelemetry or this library acts on its own behalf, and not for the program."""


def _kind(file: str) -> int:
    """Return whether ``file`` is code of the program, a package or the machinery."""
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
    if file.startswith(_SCRIPTS):
        return _PACKAGE
    return _MACHINERY if file.startswith(_STDLIB) else _PROGRAM


@functools.cache
def _acts_for_itself(file: str) -> bool:
    """Whether ``file`` is OpenTelemetry or library code that hands work off on its own behalf."""
    parts = file.split(os.sep)
    return any(pair in itertools.pairwise(parts) for pair in _OF_ITS_OWN)


def _starts_a_process(code: CodeType) -> bool:
    return code.co_filename == "<string>" and any(name in code.co_names for name in _STARTS)


def _begins_a_process(code: CodeType) -> bool:
    """Whether ``code`` is where a process starts: after a fork, its callers are the parent's."""
    return code.co_name == "_bootstrap" and code.co_filename.endswith(_PROCESS)


def is_standard_library(code: CodeType) -> bool:
    """Whether ``code`` belongs to the standard library, OpenTelemetry or this library."""
    return _kind(code.co_filename) == _MACHINERY


def show(file: str, line: int) -> str:
    """Return ``file:line`` for messages, relative to the working directory if it is inside."""
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
        except OSError:  # the directory was removed
            _here = ""
    return _here


def site(frame: FrameType | None = None) -> Site:
    """Return the line of the program that led to ``frame`` (by default the caller's frame)."""
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


class Entry(NamedTuple):
    """A function of the program: where it is defined, and its name."""

    line: str
    name: str


def entry_at(frame: FrameType) -> Entry | None:
    """Return the function of ``frame``; None if it is not the program's or a package's."""
    code = frame.f_code
    if _kind(code.co_filename) == _MACHINERY:
        return None
    return Entry(show(code.co_filename, code.co_firstlineno), code.co_name)


def entry(frame: FrameType | None = None) -> Entry | None:
    """Return the outermost function of the program on this thread."""
    frame = frame or sys._getframe(1)  # pyright: ignore[reportPrivateUsage]
    found = None
    while frame is not None:
        found = entry_at(frame) or found
        frame = frame.f_back
    return found
