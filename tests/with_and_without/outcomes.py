"""Runs a suite in a process of its own, and reads what became of each test.

The process writes a line for each event to a file at once: what comes next may be a crash. A line
is ``started TEST``, ``stopped TEST``, or an outcome and the test; the last one is ``ended``.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

Outcomes = dict[str, str]
"""What became of each test: passed, failed, skipped or hung."""

PASSED = ("passed", "skipped")

Command = Callable[[Path], "Sequence[str | Path]"]
"""From the file for the outcomes to the command that writes it."""

GRACE = 60
"""How many seconds a process gets to end by itself after its time is up."""


def run(command: Command, name: str, seconds: float, directory: Path | None = None) -> Outcomes:
    """Return what became of the tests that ``command`` runs in ``directory`` (None: an empty one).

    ``name`` is what a process is called that does not get to its end.
    """
    with tempfile.TemporaryDirectory() as empty:
        outcomes = Path(empty, "outcomes")
        kept = {key: os.environ[key] for key in ("PATH", "HOME", "LANG") if key in os.environ}
        process = subprocess.Popen(
            command(outcomes),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            stdin=subprocess.DEVNULL,
            env=kept,
            cwd=directory or empty,
            start_new_session=True,
        )
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(seconds + GRACE)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # what the tests have left behind, too
        process.wait()
        lines = outcomes.read_text().splitlines() if outcomes.exists() else []
    return _read(lines, name)


def _read(lines: list[str], name: str) -> Outcomes:
    found: Outcomes = {}
    for line in lines:
        event, _, test = line.partition(" ")
        if event == "started":
            found[test] = "hung"
        elif event == "stopped":
            if found[test] == "hung":
                found[test] = "passed"
        elif test:
            found[test] = event
    if "ended" not in lines:
        found[f"{name}: it did not end"] = "failed"
    return found
