"""How it is measured: what is compared takes turns of a few milliseconds in one process.

Each turn is warmed up, since switching on and off has the interpreter specialize its code anew.
On a machine that changes its speed by the second, and that others use, nothing else is stable. The
ratio is that of two turns of the same round; of all rounds the median counts, and how far the
middle half of them is spread is said beside it. Each row has a process of its own, with a span or
without: no row pays for what another has left behind, nor for a span where there never was one.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from operations import BY_HAND, COMPILED, OURS, PLAIN, PURE, Operation

HERE = Path(__file__).parent

SPANS = {True: "span", False: "no context"}


SWITCH = "OTEL_PYTHON_CONCURRENCY_PURE_PYTHON"
"""The variable by which a process that has the compiled part does without."""


@dataclass(frozen=True)
class Effort:
    """So many rounds, in each of which each variant has a turn of about so many seconds.

    ``clock`` is ``wall``, or ``cpu`` for a machine that others use: it does not count their turns.
    """

    rounds: int
    seconds: float
    clock: str = "wall"


THOROUGH = Effort(rounds=25, seconds=0.004)
QUICK = Effort(rounds=2, seconds=0.0)  # one call a turn


@dataclass(frozen=True)
class Figure:
    """What a variant takes beyond plain: a ratio, or bytes; the median, and half the spread."""

    median: float
    spread: float = 0.0


@dataclass(frozen=True)
class Row:
    """All figures of one operation, and the limits of ours.

    ``plain`` is in seconds or bytes, in a span. The figures are by implementation, by whether a
    span is active, and by variant. The limits are by implementation: in a span, and without one.
    """

    name: str
    unit: str
    plain: float
    figures: Mapping[tuple[str, bool, str], Figure]
    limits: Mapping[str, tuple[float | None, float | None]]
    at_most_by_hand: float | None = None
    values: Mapping[str, Sequence[float]] = field(default_factory=dict)

    def limit(self, implementation: str, span: bool) -> float | None:
        """Return what ours may take at most, if there is a limit to it."""
        by_hand = self.figures.get((implementation, span, BY_HAND))
        if self.at_most_by_hand is not None and by_hand is not None:
            return self.at_most_by_hand * by_hand.median
        return self.limits.get(implementation, (None, None))[not span]

    def misses(self) -> Iterator[str]:
        """Yield, in words, where ours takes more than it may."""
        for (implementation, span, variant), figure in self.figures.items():
            limit = self.limit(implementation, span)
            if variant == OURS and limit is not None and figure.median > limit:
                yield (
                    f"{self.name}, {implementation}, {SPANS[span]}: "
                    f"{figure.median:.3g}, at most {limit:.3g}"
                )

    def as_data(self) -> dict[str, Any]:
        """Return the row as JSON has it."""
        return {
            "name": self.name,
            "unit": self.unit,
            "plain": self.plain,
            "figures": [
                {
                    "implementation": implementation,
                    "context": SPANS[span],
                    "variant": variant,
                    "median": figure.median,
                    "spread": figure.spread,
                    "at_most": self.limit(implementation, span) if variant == OURS else None,
                }
                for (implementation, span, variant), figure in self.figures.items()
            ],
            "values": self.values,
        }


def pin() -> int | None:
    """Pin this process and its children to the last core that it may use; return which."""
    if not hasattr(os, "sched_setaffinity"):  # there is none on macOS and Windows
        return None
    core = max(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {core})
    return core


@contextmanager
def environments() -> Iterator[dict[str, dict[str, str]]]:
    """Yield the environment for each implementation that there is here, with compiled bytecode.

    Where this process is told to do without the compiled part, that is the one in pure Python.
    """
    with tempfile.TemporaryDirectory() as bytecode:
        # As an installed package has it, also where the environment forbids it.
        plain = {**os.environ, "PYTHONPYCACHEPREFIX": bytecode}
        plain.pop("PYTHONDONTWRITEBYTECODE", None)
        if _run(plain, "-c", "import worker; print(worker.implementation())").strip() == PURE:
            yield {PURE: plain}
        else:
            yield {COMPILED: plain, PURE: {**plain, SWITCH: "true"}}


def measure(operation: Operation, effort: Effort, given: Mapping[str, Mapping[str, str]]) -> Row:
    """Measure an operation, by all implementations."""
    figures: dict[tuple[str, bool, str], Figure] = {}
    all_values: dict[str, list[float]] = {}
    plain = 0.0
    how = "held" if operation.unit == "byte" else "timed"
    for implementation, environment in given.items():
        for span, word in SPANS.items():
            found = json.loads(
                _run(
                    environment,
                    *(str(HERE / "worker.py"), how, operation.name, word),
                    *(str(effort.rounds), str(effort.seconds), effort.clock),
                )
            )
            assert found["implementation"] == implementation
            values: dict[str, list[float]] = found["values"]
            base = values.pop(PLAIN)
            plain = plain or statistics.median(base)
            all_values[f"{implementation}, {word}, {PLAIN}"] = base
            for variant, mine in values.items():
                all_values[f"{implementation}, {word}, {variant}"] = mine
                figures[implementation, span, variant] = (
                    Figure(mine[0] - base[0]) if how == "held" else ratio(mine, base)
                )
    return Row(
        operation.name,
        operation.unit,
        plain,
        figures,
        operation.limits,
        operation.at_most_by_hand,
        all_values,
    )


def ratio(values: Sequence[float], base: Sequence[float]) -> Figure:
    """Return the median of the ratios within a round, and half of their interquartile range."""
    ratios = [value / other for value, other in zip(values, base, strict=True)]
    first, median, third = statistics.quantiles(ratios, n=4, method="inclusive")
    return Figure(median, (third - first) / 2)


def _run(environment: Mapping[str, str], *arguments: str) -> str:
    return subprocess.run(
        [sys.executable, *arguments],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
        cwd=HERE,
    ).stdout


START_UP = "start-up: import and instrument()"
START_UP_LIMITS = {COMPILED: (0.05, None), PURE: (0.06, None)}
"""CPU time as a ratio to that of the import of the SDK."""

_START_UP = """
import sys, time

def seconds():
    return time.process_time()

start = seconds()
import opentelemetry.sdk.trace, opentelemetry.sdk.trace.export
import opentelemetry.sdk.metrics.export, opentelemetry.sdk._logs.export
import opentelemetry.instrumentation.auto_instrumentation  # as under opentelemetry-instrument
import opentelemetry.instrumentation.instrumentor
sdk = seconds()
before = set(sys.modules)
from otel_concurrency import ConcurrencyInstrumentor
imported = seconds()
ConcurrencyInstrumentor().instrument(skip_dep_check=True)
print(sdk - start, imported - sdk, seconds() - imported, *sorted(set(sys.modules) - before))
"""

LEFT_TO_THE_PROGRAM = (
    "asyncio",
    "concurrent.futures.thread",
    "multiprocessing",
    "sched",
    "subprocess",
)


def start_up(effort: Effort, given: Mapping[str, Mapping[str, str]]) -> tuple[Row, list[str]]:
    """Measure importing and switching on; return notes on it too."""
    figures: dict[tuple[str, bool, str], Figure] = {}
    notes: list[str] = []
    of_sdk: list[float] = []
    for implementation, environment in given.items():
        of_sdk, parts, imported = [], [], [""]
        for number in range(effort.rounds + 1):
            sdk, first, second, *imported = _run(environment, "-c", _START_UP).split()
            if number > 0:  # the first one compiles
                of_sdk.append(float(sdk))
                parts.append((float(first), float(second)))
        figures[implementation, True, OURS] = ratio([sum(each) for each in parts], of_sdk)
        first, second = (statistics.median(each) * 1e3 for each in zip(*parts, strict=True))
        wrong = [name for name in LEFT_TO_THE_PROGRAM if name in imported]
        notes.append(
            f"start-up, {implementation}: import {first:.1f} ms, instrument() {second:.1f} ms; "
            f"of {', '.join(LEFT_TO_THE_PROGRAM)} it imported {wrong or 'none'}"
        )
    return Row(START_UP, "second", statistics.median(of_sdk), figures, START_UP_LIMITS), notes
