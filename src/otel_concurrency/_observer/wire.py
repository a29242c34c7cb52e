"""Sends events from a program's processes to the command that watches them.

Each process appends lines of JSON to its own files, in a directory that the command reads. An event
is in the file when :meth:`Writer.emit` returns. So it arrives however the process ends: by
``os._exit``, by SIGKILL, with its parent or long after it. No process waits for another. If the
reader is slow or gone, unread files use disk space up to :data:`BACKLOG` files per process. Further
events are only counted.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SEGMENT = 4 * 1024 * 1024
"""The size in bytes after which a process opens its next file; the reader removes read files."""

BACKLOG = 64
"""The maximum number of unread files of a process."""

LOST = "lost"
"""The event whose ``count`` says how many other events there was no room for."""

_SUFFIX = ".jsonl"
_RETRY = 1000
_CHUNK = 256 * 1024

# Bound early: if the program replaces these functions on `os`, it must not affect the writer.
_open, _close, _write, _fstat, _getpid = os.open, os.close, os.write, os.fstat, os.getpid
_dumps = json.dumps


class Writer:
    """Writes the events of this process, and of those that are forked from it. Thread-safe.

    If it does not ``follow_forks``, it closes its file in a forked process, and writes nothing
    there. ``make_lock`` returns a new reentrant lock.
    """

    def __init__(
        self,
        directory: str | Path,
        *,
        follow_forks: bool = True,
        make_lock: Callable[[], Any] = threading.RLock,
    ) -> None:
        self._directory = str(directory)
        self._follow_forks = follow_forks
        self._make_lock = make_lock
        self._file: int | None = None
        self._identity: tuple[int, int] | None = None
        self._is_closed = False
        self._pid = 0
        self._start()
        _writers.add(self)

    def start_in_child(self) -> None:
        """Write to another file, or to none, if this process was forked since."""
        if _getpid() == self._pid:
            return
        if self._follow_forks and not self._is_closed:
            self._start()
        else:
            self._pid, self._lock = _getpid(), self._make_lock()
            self.close()

    def close(self) -> None:
        """Write no more, and close the file."""
        with self._lock:
            self._is_closed = True
            if self._file is not None and self._is_ours(self._file):
                _close(self._file)
            self._file = None

    def _start(self) -> None:
        self._pid = _getpid()
        # An event can be caused while one is written: by a signal handler, by a finalizer.
        self._lock = self._make_lock()
        # `exec` keeps the process id, and the time puts the files of both programs in order.
        self._name = f"{self._pid}-{time.time_ns():020}"
        self._next = self._written = self._lost = 0
        self._open()

    def emit(self, event: dict[str, Any]) -> None:
        """Write ``event``; values that JSON does not know are written as their ``repr``.

        Raises nothing but what ``repr`` of such a value raises.
        """
        line = _dumps(event, separators=(",", ":"), default=repr).encode() + b"\n"
        self.start_in_child()  # after a fork by C code, which runs none of Python's fork hooks
        with self._lock, contextlib.suppress(OSError):
            if not self._is_closed and self._has_room():
                self._append(line)

    def _has_room(self) -> bool:
        """Whether there is a file to write to; opens the next file if the current one is full."""
        if self._file is not None and self._written < SEGMENT and self._is_ours(self._file):
            return True
        if self._lost % _RETRY or not self._open():
            self._lost += 1
            return False
        if self._lost:
            lost, self._lost = self._lost, 0
            event = {"event": LOST, "pid": self._pid, "count": lost}
            self._append(_dumps(event).encode() + b"\n")
        return True

    def _append(self, line: bytes) -> None:
        if self._file is None:
            return
        self._written += len(line)
        while line:
            line = line[_write(self._file, line) :]

    def _is_ours(self, file: int) -> bool:
        """Whether ``file`` is still our file: a program may close descriptors it does not know."""
        try:
            status = _fstat(file)
        except OSError:
            return False
        return (status.st_dev, status.st_ino) == self._identity

    def _open(self) -> bool:
        """Open the next file; return whether that succeeded."""
        if self._file is not None and self._is_ours(self._file):
            _close(self._file)
        self._file = None
        try:
            unread = sum(name.startswith(self._name) for name in os.listdir(self._directory))
            if unread >= BACKLOG:
                return False
            path = os.path.join(self._directory, f"{self._name}.{self._next:06}{_SUFFIX}")
            file = _open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL, 0o600)
            status = _fstat(file)
        except OSError:  # the command has ended, and its directory is gone
            return False
        self._identity = status.st_dev, status.st_ino
        self._next += 1
        self._written = 0
        self._file = file
        return True


_writers: weakref.WeakSet[Writer] = weakref.WeakSet()


def _start_in_child() -> None:
    for writer in list(_writers):
        writer.start_in_child()


if hasattr(os, "register_at_fork"):
    # Open the file right after the fork, not at the first event: the child may drop the permission
    # to do so.
    os.register_at_fork(after_in_child=_start_in_child)


@dataclass
class _Tail:
    """The state of reading one file."""

    at: int = 0
    unfinished: bytes = b""


@dataclass
class Reader:
    """Reads the files of all processes, and removes those that are read to their end."""

    directory: Path
    lost: int = 0
    """The number of events for which a process had no room, and of lines that are no events."""
    _tails: dict[str, _Tail] = field(default_factory=dict[str, _Tail])

    def read(self, feed: Callable[[dict[str, Any]], None]) -> int:
        """Feed every event that was written since the last call; return the number of events.

        Events of one process come in order. Events that are written during the call are left for
        the next call, so that a process that never stops writing is not waited for.
        """
        count = 0
        files = sorted(path.name for path in self.directory.glob(f"*{_SUFFIX}"))
        for name, follower in zip(files, [*files, ""][1:], strict=True):
            # Checked before reading: a file that has a successor is not written to any more.
            complete = follower.split(".")[0] == name.split(".")[0]
            count += self._read(name, feed)
            if complete:
                (self.directory / name).unlink()
                del self._tails[name]
        return count

    def _read(self, name: str, feed: Callable[[dict[str, Any]], None]) -> int:
        tail = self._tails.setdefault(name, _Tail())
        count = 0
        with (self.directory / name).open("rb") as file:
            written = _fstat(file.fileno()).st_size
            file.seek(tail.at)
            while chunk := file.read(min(_CHUNK, written - tail.at)):
                tail.at += len(chunk)
                *lines, tail.unfinished = (tail.unfinished + chunk).split(b"\n")
                count += sum(self._feed(line, feed) for line in lines)
        return count

    def _feed(self, line: bytes, feed: Callable[[dict[str, Any]], None]) -> bool:
        try:
            event = json.loads(line, parse_constant=str)  # NaN is not valid JSON outside Python
        except ValueError:  # a partial line: the process was killed, or the disk was full
            self.lost += 1
            return False
        if event.get("event") == LOST:
            self.lost += event["count"]
            return False
        feed(event)
        return True
