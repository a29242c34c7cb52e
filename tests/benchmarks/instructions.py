"""How many instructions of ours an operation executes, beside how many it executed when recorded.

Unlike a time, that is the same on every machine and in every run: ``python
tests/benchmarks/instructions.py`` compares this interpreter's bytecode instructions, and the calls
into C, of the library's own code with ``instructions.json``, or with ``instructions.compiled.json``
where the compiled part is in use. Exit status 1: an operation takes more than was recorded.
``--record`` records what it takes now, so that a change shows in review.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import threading
from contextlib import nullcontext
from pathlib import Path
from types import FrameType
from typing import Any

from opentelemetry import trace
from operations import OPERATIONS, OURS, TRACER, Operation
from rich.console import Console
from rich.table import Table

import otel_concurrency
from otel_concurrency import ConcurrencyInstrumentor
from otel_concurrency._core import compiled

PACKAGE = str(Path(otel_concurrency.__file__).parent)
RECORD = Path(__file__).with_suffix(".json" if compiled.functions is None else ".compiled.json")
"""One for the compiled part, which makes calls into C in the place of instructions, one without."""

VERSION = f"{sys.version_info.major}.{sys.version_info.minor}"
LOOPS = 10
TOLERANCE = 0.02
"""By which part more may be executed: a thread that has to wait takes another path."""

ELSEWHERE = ("Process", "Pool", "multiprocessing.Queue")
"""What operations are named after of which a part runs in other processes, or on threads that wait
for each other in one way or another."""

Counts = dict[str, list[float]]
"""Instructions and calls into C of one operation in a span, then without any context."""


class Counter:
    """Counts what the library's own functions execute, on all threads."""

    def __init__(self) -> None:
        self._instructions = itertools.count()
        self._calls = itertools.count()

    def watch(self) -> None:
        """Watch this thread, and those that are started from now on."""
        threading.settrace(self._trace)
        threading.setprofile(self._profile)
        sys.settrace(self._trace)
        sys.setprofile(self._profile)

    def leave(self) -> None:
        """Watch no thread that is started from now on, nor this one."""
        sys.setprofile(None)
        sys.settrace(None)
        threading.setprofile(None)
        threading.settrace(None)

    def read(self) -> tuple[int, int]:
        """Return how many there were since the last time."""
        counts = next(self._instructions), next(self._calls)
        self._instructions, self._calls = itertools.count(), itertools.count()
        return counts

    def _trace(self, frame: FrameType, event: str, _: Any) -> Any:
        if event == "call":
            if not frame.f_code.co_filename.startswith(PACKAGE):
                return None
            frame.f_trace_opcodes, frame.f_trace_lines = True, False
        elif event == "opcode":
            next(self._instructions)
        return self._trace

    def _profile(self, frame: FrameType, event: str, _: Any) -> None:
        if event == "c_call" and frame.f_code.co_filename.startswith(PACKAGE):
            next(self._calls)


def count(operation: Operation) -> list[float]:
    """Return what an operation executes."""
    found: list[float] = []
    counter = Counter()
    loops = 1 if "00" in operation.name else LOOPS  # of these each is a hundred, or a thousand
    for span in (trace.use_span(TRACER.start_span("handler")), nullcontext()):
        counter.watch()
        with operation.setting(OURS) as run, span:
            run(loops)  # first times are others
            counter.read()
            run(loops)
            found += [number / loops for number in counter.read()]
        counter.leave()
    return found


def compare(console: Console, now: Counts, recorded: Counts) -> bool:
    """Print both, and return whether nothing takes more."""
    table = Table()
    for column in ("operation", "in a span", "recorded", "no context", "recorded"):
        table.add_column(column, justify="left" if column == "operation" else "right")
    well = True
    for name, found in now.items():
        before = recorded.get(name, [0.0] * 4)
        more = [a > b * (1 + TOLERANCE) + 0.5 for a, b in zip(found, before, strict=True)]
        well = well and not any(more)
        cells = []
        for start in (0, 2):
            mine, theirs = (_spell(values[start : start + 2]) for values in (found, before))
            cells += [f"[red]{mine}[/]" if any(more[start : start + 2]) else mine, theirs]
        table.add_row(name, *cells)
    console.print(table)
    console.print(f"bytecode instructions + calls into C, an operation, on Python {VERSION}")
    return well


def _spell(values: list[float]) -> str:
    return f"{values[0]:,.1f} + {values[1]:,.1f}"


def main() -> int:
    """Do what the arguments ask for."""
    parser = argparse.ArgumentParser(prog="python tests/benchmarks/instructions.py")
    parser.add_argument("--record", action="store_true", help="of this version of Python")
    parser.add_argument("--file", type=Path, default=RECORD)
    arguments = parser.parse_args()

    ConcurrencyInstrumentor().instrument()
    now = {
        operation.name: count(operation)
        for operation in OPERATIONS.values()
        if operation.unit == "second" and not any(part in operation.name for part in ELSEWHERE)
    }
    ConcurrencyInstrumentor().uninstrument()
    recorded = json.loads(arguments.file.read_text()) if arguments.file.exists() else {}
    well = compare(Console(highlight=False), now, recorded.get(VERSION, {}))
    if not arguments.record:
        return 0 if well else 1
    recorded[VERSION] = now
    versions = sorted(recorded.items(), key=lambda item: int(item[0].split(".")[1]))
    lines = [
        f'  "{version}": {{\n'
        + ",\n".join(f"    {json.dumps(name)}: {values}" for name, values in counts.items())
        + "\n  }"
        for version, counts in versions
    ]
    arguments.file.write_text("{\n" + ",\n".join(lines) + "\n}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
