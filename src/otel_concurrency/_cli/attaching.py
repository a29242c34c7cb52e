"""Has a running process look at itself, by ``sys.remote_exec`` (PEP 768, Python 3.14 and later).

Whatever can keep that from happening has a message that says what to do.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import re
import sys
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from otel_concurrency._cli import CommandError, scratch
from otel_concurrency._observer import live
from otel_concurrency._trace_report import processes

WAIT = 10.0
"""Seconds in which a process has to come to a point at which it can be looked into, by default."""

_FAILED = 2
"""The exit status where a process could not be looked into."""

_SINCE = (3, 14)

_PERIOD = 0.05
"""Seconds between two looks for what the process has written."""

_STARTING = "Can't find "
"""The beginning of the error where a process has no running interpreter yet, or no main thread."""

_NOTHING = Path(__file__).with_name("nothing.py")
"""A script that does nothing, and stays."""


class NotAttachedError(CommandError):
    """The process cannot be looked into."""

    def __init__(self, message: str) -> None:
        super().__init__(message, _FAILED)


@dataclass
class Attached:
    """A process that has begun to look at itself."""

    pid: int
    directory: Path

    def answer(self) -> dict[str, Any] | None:
        """Return what it has answered; None as long as it has not.

        Raises NotAttachedError where it could not look.
        """
        file = self.directory / live.ANSWER
        if not file.exists():
            return None
        found: dict[str, Any] = json.loads(file.read_text("utf-8"))
        if "not_importable" in found:
            raise NotAttachedError(
                f"process {self.pid} cannot import otel-concurrency ({found['not_importable']}): "
                f"install it in the environment of {found['executable']}, in the version of this "
                "command"
            )
        if "fault" in found:
            raise NotAttachedError(f"process {self.pid} cannot look at itself: {found['fault']}")
        return found

    def stop(self) -> None:
        """Have it end what it does, and answer."""
        (self.directory / live.STOP).touch()

    def runs(self) -> bool:
        """Whether it still runs."""
        return _runs(self.pid)


def add_to(parser: argparse.ArgumentParser) -> None:
    """Add the options that name a process."""
    parser.add_argument(
        "--pid",
        type=_number,
        help="look into this running process, which like this command runs Python 3.14 or later",
    )
    parser.add_argument(
        "--wait",
        metavar="SECONDS",
        type=seconds,
        help="how long that process may take to come to a point at which it can be looked into "
        f"(default: {WAIT:g})",
    )


def check(arguments: argparse.Namespace, *others: str) -> None:
    """End with an error of usage where ``--wait``, or an option of ``others``, has no ``--pid``."""
    for name in ("wait", *others):
        if arguments.pid is None and getattr(arguments, name) is not None:
            arguments.parser.error(f"--{name} goes with --pid")


def _number(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"expected the number of a process, got {text!r}")
    return int(text)


def seconds(text: str) -> float:
    """Parse a positive number of seconds."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"expected a positive number of seconds, got {text!r}")
    return value


@contextlib.contextmanager
def attached(
    pid: int, request: dict[str, Any], wait: float | None
) -> Generator[Attached, None, None]:
    """Have process ``pid`` begin what ``request`` asks for.

    Raises NotAttachedError where that cannot be, and where the process does not begin within
    ``wait`` seconds (default: :data:`WAIT`). Nothing is left of it when the block ends.
    """
    wait = wait or WAIT
    _check_versions()
    _check_process(pid)
    with _acting_as_owner(pid) as as_before, _directory(pid) as directory:
        _check_files(pid, directory)
        modules = live.needed_for(request["what"])
        (directory / live.REQUEST).write_text(json.dumps({**request, "modules": modules}), "utf-8")
        script = directory / "script.py"
        script.write_text(live.script(directory), "utf-8")
        with as_before():
            _execute(pid, script, wait)
        if not wait_for((directory / live.BEGUN).exists, pid, wait):
            with as_before(), contextlib.suppress(Exception):
                _remote_exec(pid, _NOTHING)  # or it would say that the script is gone
            raise NotAttachedError(_ended(pid) if not _runs(pid) else _never_safe(pid, wait))
        yield Attached(pid, directory)


def answer_of(pid: int, request: dict[str, Any], wait: float | None) -> dict[str, Any]:
    """Return what process ``pid`` answers to ``request``, which takes it a moment."""
    with attached(pid, request, wait) as process:
        wait_for(lambda: process.answer() is not None, pid, WAIT + (wait or WAIT))
        found = process.answer()
    if found is None:
        raise NotAttachedError(f"process {pid} has not answered")
    return found


def wait_for(has_come: Callable[[], bool], pid: int, seconds: float) -> bool:
    """Wait for something that process ``pid`` does; return whether it has done it in time."""
    deadline = time.monotonic() + seconds
    while True:
        runs = _runs(pid)
        if has_come():
            return True
        if not runs or time.monotonic() > deadline:
            return False
        time.sleep(_PERIOD)


# What can keep a process from being looked into.


def _check_versions() -> None:
    if sys.version_info < _SINCE or not hasattr(sys, "remote_exec"):
        raise NotAttachedError(
            f"looking into a running process needs Python 3.14 or later, in that process and here; "
            f"this command runs on {sys.version.split()[0]}"
        )


def _check_process(pid: int) -> None:
    if not _runs(pid):
        raise NotAttachedError(f"there is no process {pid}")
    if sys.platform == "win32":  # there, to ask would end it
        return
    try:
        os.kill(pid, 0)
    except PermissionError:
        owner = _owner(pid)
        whose = "another user" if owner is None else f"the user {_name_of(owner[0])}"
        raise NotAttachedError(
            f"process {pid} belongs to {whose}: run this command as that user, or as root"
        ) from None


@contextlib.contextmanager
def _directory(pid: int) -> Generator[Path, None, None]:
    with contextlib.ExitStack() as stack:
        try:
            directory = stack.enter_context(scratch.directory())
        except OSError as error:
            raise NotAttachedError(
                f"the user of process {pid} can make no temporary directory ({error}): set TMPDIR"
            ) from None
        yield directory


def _check_files(pid: int, directory: Path) -> None:
    """Raise NotAttachedError where the process would look for ``directory`` in another place."""
    root = os.path.join("/proc", str(pid), "root")
    try:
        there = os.stat(f"{root}{directory}")
        here = os.stat(directory)
    except PermissionError:
        return
    except OSError:
        if not os.path.exists(root):  # not Linux, or it has ended
            return
    else:
        if (there.st_dev, there.st_ino) == (here.st_dev, here.st_ino):
            return
    raise NotAttachedError(
        f"process {pid} has another directory {directory.parent} than this command, as in a "
        "container or with PrivateTmp=yes: run this command where that process runs, or set TMPDIR "
        "to a directory that both can see"
    )


def _execute(pid: int, script: Path, wait: float) -> None:
    deadline = time.monotonic() + wait
    try:
        while not _has_executed(pid, script, may_fail=time.monotonic() < deadline):
            time.sleep(_PERIOD)
    except PermissionError:
        raise NotAttachedError(
            f"this command may not look into process {pid}, since ptrace is not allowed: run it as "
            "root, or with the capability CAP_SYS_PTRACE (docker run --cap-add=SYS_PTRACE), or "
            "allow it with sysctl kernel.yama.ptrace_scope=0"
        ) from None
    except (RuntimeError, OSError) as error:
        raise NotAttachedError(_why_not(pid, str(error))) from None


def _has_executed(pid: int, script: Path, *, may_fail: bool) -> bool:
    """Whether the process takes the script; it takes none as long as its interpreter starts."""
    try:
        _remote_exec(pid, script)
    except RuntimeError as error:
        if may_fail and _STARTING in str(error) and _runs(pid):
            return False
        raise
    return True


def _remote_exec(pid: int, script: Path) -> None:
    execute: Callable[[int, str], None] = getattr(sys, "remote_exec")  # noqa: B009 - since 3.14
    execute(pid, str(script))


def _why_not(pid: int, error: str) -> str:
    if not _runs(pid):
        return f"there is no process {pid}"
    here = ".".join(map(str, sys.version_info[:2]))
    if "not enabled in the remote process" in error:
        return (
            f"remote debugging is disabled in process {pid}: it was started with "
            "PYTHON_DISABLE_REMOTE_DEBUG or -X disable-remote-debug"
        )
    if "debugging is not enabled" in error:
        return (
            "remote debugging is disabled in this command: unset PYTHON_DISABLE_REMOTE_DEBUG for it"
        )
    there = re.search(r"to a Python (\d+\.\d+) process", error)
    version = there[1] if there else _version_of(pid)
    if version is not None and tuple(map(int, version.split("."))) < _SINCE:
        return (
            f"process {pid} runs on Python {version}: looking into a running process needs Python "
            "3.14 or later"
        )
    if version is not None and version != here:
        return (
            f"process {pid} runs on Python {version}, and this command on {here}: run the command "
            "of that process's own environment"
        )
    if version is None:
        return f"process {pid} is not a CPython process"
    return f"process {pid} cannot be looked into: {error}"


def _version_of(pid: int) -> str | None:
    """Return the version of the CPython that a process runs, if its files say so."""
    with contextlib.suppress(OSError):
        mapped = Path(f"/proc/{pid}/maps").read_text(errors="replace")
        found = re.search(
            r"/(?:lib)?python(3\.\d+)(?:[\w.-]*\.so[\w.]*|t?d?)$", mapped, re.MULTILINE
        )
        return found[1] if found else None
    return None


def _runs(pid: int) -> bool:
    return sys.platform == "win32" or processes.is_there(pid)


def _ended(pid: int) -> str:
    return f"process {pid} has ended before it could be looked into"


def _never_safe(pid: int, wait: float) -> str:
    return (
        f"process {pid} has not come to a point at which it can be looked into in {wait:g} "
        "seconds: its main thread waits in a call that does not return. Try again while it works, "
        "or with a longer --wait. Nothing was changed there"
    )


# Root looks into the processes of others as these others.


@contextlib.contextmanager
def _acting_as_owner(pid: int) -> Generator[Callable[[], Any], None, None]:
    """Be the user of the process inside the ``with`` block, for the files that it has to read.

    Yields a context manager inside which this process is who it was. Nothing changes unless this
    command is run by root.
    """
    owner = _owner(pid)
    if sys.platform == "win32" or os.geteuid() != 0 or owner is None or owner[0] == 0:
        yield contextlib.nullcontext
        return
    own = os.geteuid(), os.getegid()

    def become(user: int, group: int) -> None:
        os.seteuid(0)
        os.setegid(group)
        os.seteuid(user)

    @contextlib.contextmanager
    def as_before() -> Generator[None, None, None]:
        become(*own)
        try:
            yield
        finally:
            become(*owner)

    become(*owner)
    try:
        yield as_before
    finally:
        become(*own)


def _owner(pid: int) -> tuple[int, int] | None:
    """Return the effective user and group of a process, where the system says so."""
    try:
        status = Path(f"/proc/{pid}/status").read_text(errors="replace")
    except OSError:
        return None
    found = {
        name: int(fields.split()[1])
        for name, fields in re.findall(r"^(Uid|Gid):(.*)$", status, re.MULTILINE)
    }
    return (found["Uid"], found["Gid"]) if len(found) == 2 else None


def _name_of(user: int) -> str:
    try:
        import pwd

        return pwd.getpwuid(user).pw_name
    except (ImportError, KeyError):
        return str(user)
