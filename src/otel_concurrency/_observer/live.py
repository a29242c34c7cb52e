"""Looks into a running process from inside, for ``otel-concurrency`` with ``--pid``.

The command has the process run a script (PEP 768), at a point at which its main thread may be in
any context and hold any lock. The script therefore only starts a thread, which calls :func:`look`
and ends when that returns. The two sides talk through files in a directory of the command.

Threads and locks are not :mod:`threading`'s, which gevent and others replace.
"""

from __future__ import annotations

import atexit
import contextlib
import importlib
import itertools
import json
import logging
import os
import shutil
import sys
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

from otel_concurrency._core import faults

REQUEST, BEGUN, STOP, ANSWER = "request", "begun", "stop", "answer"
"""The files in the directory: what is asked for, that the script has run, that it is to end the
look, and what was found."""

IN_USE = "in-use"
"""The file in the directory that the command locks for as long as it runs."""

STATUS, TRACE = "status", "trace"
"""What can be asked for, and the name under which it is answered."""

_ENTRANCES = {STATUS: "otel_concurrency._status.snapshot", TRACE: f"{__package__}.observer"}
"""The modules that import all others that are needed."""

_NEEDED = "wrapt.", "packaging.", "opentelemetry.", "otel_concurrency."
_NOT_NEEDED = (
    "opentelemetry.sdk",
    "opentelemetry.exporter",
    "otel_concurrency._cli",
    "otel_concurrency._trace_report",
    "otel_concurrency._adapters.",
)

_BREATH = 0.001
"""Seconds for which the thread waits after each small step of its work, so that the process need
not wait for the interpreter's lock."""

_PERIOD = 0.1
"""Seconds between two looks for whether the command still waits."""

_PERIODS = 5
"""How many of these periods pass between two looks for modules that were imported meanwhile."""

_FEW = 16
"""The number of events that are written between two breaths."""

_MOST = 200_000
"""The maximum number of events that wait to be written."""

_watched: dict[str, Any] = {}
"""While this process is watched: ``by``, the directory of the command, and the events that are
``waiting``."""


def _begin() -> None:
    """Let a forked child be watched by nobody, as the thread of the look is not there."""
    waiting: _Waiting | None = _watched.get("waiting")
    if waiting is not None:
        atexit.unregister(waiting.write)
        waiting.forget()
    _watched.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin)

try:
    import fcntl
except ImportError:  # Windows: there the directory alone says whether the command still runs
    fcntl = None  # type: ignore[assignment]

_logger = logging.getLogger(__name__)


def script(directory: Path) -> str:
    """Return the script that has a process run :func:`look` in a thread of its own.

    It leaves the main thread's context alone, blocks nowhere and raises nothing. It does nothing
    where ``directory`` is gone, or where it has run already.
    """
    return _SCRIPT.replace("DIRECTORY", repr(str(directory)), 1)


# `_thread` is made anew, because others replace its functions: this library to hand contexts to
# threads, gevent to make greenlets of them. A signal's handler may raise between two instructions
# of the script, where the interpreter would drop the exception; the signal is then sent again. Its
# number is the first argument of the handler, and a frame is the second.
_SCRIPT = """
def look(directory):
    import os
    from _frozen_importlib import BuiltinImporter
    from _imp import create_builtin, exec_builtin

    def work():
        import json, sys
        try:
            try:
                from otel_concurrency._observer.live import look
            except Exception as error:
                why = {"not_importable": str(error), "executable": sys.executable}
                with open(os.path.join(directory, "answer.new"), "x") as file:
                    file.write(json.dumps(why))
                os.rename(file.name, os.path.join(directory, "answer"))
            else:
                look(directory, raw)
        except OSError:
            pass

    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
        os.close(os.open(os.path.join(directory, "begun"), flags, 0o600))
        raw = create_builtin(BuiltinImporter.find_spec("_thread"))
        exec_builtin(raw)
        raw.start_new_thread(work, ())
    except (OSError, RuntimeError):
        pass

try:
    look(DIRECTORY)
except BaseException as error:
    import _thread
    number, step = 2, error.__traceback__
    while step is not None:
        given = list(step.tb_frame.f_locals.values())
        for first, second in zip(given, given[1:]):
            if isinstance(first, int) and type(second) is type(step.tb_frame):
                number = first
        step = step.tb_next
    _thread.interrupt_main(number)
"""


def needed_for(what: str) -> list[str]:
    """Return the names of the modules that are needed to answer ``what``, in steps.

    This imports them here. ``sys.modules`` has them in the order in which they were complete, and
    so each after those that it needs.
    """
    importlib.import_module(_ENTRANCES[what])
    return [
        name
        for name in sys.modules
        if name.startswith(_NEEDED) and not name.startswith(_NOT_NEEDED)
    ]


def look(directory: str, raw: Any) -> None:
    """Do what the command asks for in ``directory``, and answer there. Never raises.

    ``raw`` is a ``_thread`` module whose functions nobody has replaced.
    """
    try:
        request = json.loads(Path(directory, REQUEST).read_text("utf-8"))
        answer = _found(request, Path(directory), raw)
    except Exception as error:
        faults.once(
            _logger, "look", "The command otel-concurrency cannot look into this process: %s", error
        )
        answer = {"fault": f"{type(error).__name__}: {error}"}
    _reply(Path(directory), answer)


def _found(request: dict[str, Any], directory: Path, raw: Any) -> dict[str, Any]:
    never = raw.allocate_lock()
    never.acquire()

    def rest(seconds: float = _BREATH) -> None:
        never.acquire(timeout=seconds)

    for name in request.get("modules", ()):
        if name not in sys.modules and name.startswith(_NEEDED):
            with contextlib.suppress(ImportError):  # another version here may not have it
                importlib.import_module(name)
            rest()
    if request["what"] == STATUS:
        from otel_concurrency._status import snapshot

        return {STATUS: snapshot.state_as_it_is(rest)}
    if request["what"] == TRACE:
        return _watch(request["seconds"], directory, rest, raw.RLock)
    return {"fault": f"the version of otel-concurrency there does not know {request['what']!r}"}


def _watch(
    seconds: float, directory: Path, rest: Callable[..., None], make_lock: Callable[[], Any]
) -> dict[str, Any]:
    """Observe this process until the time is over, or the command no longer waits."""
    from otel_concurrency import _settings
    from otel_concurrency._observer import observer, state, wire

    if state.emit is not None or _watched.setdefault("by", str(directory)) != str(directory):
        return {"fault": "it is being observed already"}
    library = _settings.in_force is not None
    writer = wire.Writer(directory, follow_forks=False, make_lock=make_lock)
    waiting = _Waiting(writer.emit)
    _watched["waiting"] = waiting
    atexit.register(waiting.write)
    try:
        observer.start_alone(waiting.keep, library=library)
        deadline = time.monotonic() + seconds
        for period in itertools.count(1):
            left = deadline - time.monotonic()
            if left <= 0 or not _is_waited_for(directory):
                break
            rest(min(left, _PERIOD))
            waiting.write(rest)
            if period % _PERIODS == 0:
                observer.look_again()
    finally:
        observer.stop()
        waiting.write()
        writer.close()
        atexit.unregister(waiting.write)
        _watched.clear()
    return {TRACE: {"library": library}}


class _Waiting:
    """Events that the thread of the look is to write, so that no other thread waits for a file."""

    def __init__(self, emit: Callable[[dict[str, Any]], None]) -> None:
        self._emit = emit
        self._events: deque[dict[str, Any]] = deque()
        self._lost = 0

    def keep(self, event: dict[str, Any]) -> None:
        """Keep ``event`` until it is written; only count it if there is no room."""
        if len(self._events) < _MOST:
            self._events.append(event)
        else:
            self._lost += 1

    def forget(self) -> None:
        """Drop the events that wait now."""
        self._events.clear()
        self._lost = 0

    def write(self, rest: Callable[[], None] = lambda: None) -> None:
        """Write the events that wait now, and call ``rest`` after each few of them."""
        with contextlib.suppress(IndexError):  # at the end of the process two threads write
            for number in range(1, len(self._events) + 1):
                self._emit(self._events.popleft())
                if number % _FEW == 0:
                    rest()
        if self._lost:
            lost, self._lost = self._lost, 0
            self._emit({"event": "lost", "pid": os.getpid(), "count": lost})


def _is_waited_for(directory: Path) -> bool:
    """Whether the command still runs, and wants more; remove what a killed one has left."""
    try:
        with (directory / IN_USE).open("r+") as file:
            if fcntl is not None:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(directory, ignore_errors=True)
                return False
    except BlockingIOError:  # the command has locked it
        pass
    except OSError:  # the command has ended, and removed its directory
        return False
    return not (directory / STOP).exists()


def _reply(directory: Path, answer: dict[str, Any]) -> None:
    try:
        new = directory / f"{ANSWER}.new"
        new.write_text(json.dumps(answer), "utf-8")
        os.rename(new, directory / ANSWER)
    except OSError:  # the command has given up
        pass
