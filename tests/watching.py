"""Runs real programs under the observer, and reports on what it has told of them.

The observer is started as a program's first act, by the `sitecustomize` that is written here; its
events are appended to a file, each with one unbuffered write, so that they come from every process
however it ends.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys

from otel_concurrency._trace_report.analysis import Collection
from programs import APPS

DEADLINE = 60
FORKS = "ignore::DeprecationWarning"  # CPython's, of forking beside threads

START = """
import json, os
from otel_concurrency._observer import observer

def emit(event):
    file = os.open(os.environ["EVENTS"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(file, (json.dumps(event) + "\\n").encode())
    os.close(file)

library = os.environ["LIBRARY"] == "on"
observer.start(emit, library=library, reaches=lambda environment: "EVENTS" in environment)
if library:
    from otel_concurrency import ConcurrencyInstrumentor
    ConcurrencyInstrumentor().instrument()
"""


def run(directory, program, *arguments, library=True, status=0, limit=None, **settings):
    """Run a program of `apps` to its end; return the report on it."""
    start = directory / "start"
    start.mkdir(exist_ok=True)
    (start / "sitecustomize.py").write_text(START)
    events = directory / "events"
    events.write_text("")
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("OTEL_", "PYTHON")) and name not in ("TRACEPARENT", "BAGGAGE")
    }
    finished = subprocess.run(
        [sys.executable, "-W", FORKS, str(APPS / program), *arguments],
        cwd=directory,
        env={
            **inherited,
            "PYTHONPATH": str(start),
            "EVENTS": str(events),
            "LIBRARY": "on" if library else "off",
            **settings,
        },
        capture_output=True,
        timeout=DEADLINE,
        text=True,
    )
    found = finished.returncode, finished.stderr
    assert found == (status, ""), (*found, finished.stdout)
    collection = Collection() if limit is None else Collection(limit)
    for line in events.read_text().splitlines():
        collection.feed(json.loads(line))
    return collection.report((program, *arguments), library, finished.returncode)


def line_at_fault(program):
    """Return the line of a program of `apps` that is marked as being at fault, as `file:line`."""
    return line_marked(program, "at fault")


def line_marked(program, mark):
    """Return the line of a program of `apps` that ends with the comment `mark`, as `file:line`."""
    lines = (APPS / program).read_text().splitlines()
    (number,) = [n for n, line in enumerate(lines, 1) if line.endswith(f"# {mark}")]
    return f"{APPS / program}:{number}"
