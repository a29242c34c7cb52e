"""Looks into a running process from inside, for ``otel-concurrency status --pid`` and its kin.

The command has the process run a script (PEP 768), at a point at which its main thread may be in
any context and hold any lock. The script therefore only starts a thread, which calls :func:`look`
and ends with the look. The two sides talk through files in a directory of the command.
"""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from typing import Any

from otel_concurrency._core import faults

REQUEST, BEGUN, ANSWER = "request", "begun", "answer"
"""The files in the directory: what is asked for, that the script has run, and what was found."""

STATUS = "status"
"""What can be asked for, and the name under which it is answered."""

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
    import json, os, sys
    from _imp import create_builtin, exec_builtin
    from importlib.machinery import BuiltinImporter

    def work():
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


def look(directory: str, raw: Any) -> None:
    """Do what the command asks for in ``directory``, and answer there. Never raises.

    ``raw`` is a ``_thread`` module whose functions nobody has replaced.
    """
    try:
        request = json.loads(Path(directory, REQUEST).read_text("utf-8"))
        answer = _found(request)
    except Exception as error:
        faults.once(
            _logger, "look", "The command otel-concurrency cannot look into this process: %s", error
        )
        answer = {"fault": f"{type(error).__name__}: {error}"}
    _reply(Path(directory), answer)


def _found(request: dict[str, Any]) -> dict[str, Any]:
    from otel_concurrency._status import snapshot

    if request["what"] == STATUS:
        return {STATUS: snapshot.state_as_it_is()}
    return {"fault": f"the version of otel-concurrency there does not know {request['what']!r}"}


def _reply(directory: Path, answer: dict[str, Any]) -> None:
    try:
        new = directory / f"{ANSWER}.new"
        new.write_text(json.dumps(answer), "utf-8")
        os.rename(new, directory / ANSWER)
    except OSError:  # the command has given up
        pass
