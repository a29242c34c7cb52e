"""How it is measured: the variants take turns, on one core, in many short rounds.

pyperf's own runner finishes one benchmark before it begins the next, and so compares one minute
with another; what a shared machine does in between is larger than most of the ratios here. So the
turns are taken here, one process a variant and all of them idle but one. The results are pyperf's:
its statistics, and a file that ``python -m pyperf`` shows, checks and compares.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pyperf
from operations import PLAIN, VARIANTS, Operation

HERE = Path(__file__).parent

PLAIN_AGAIN = "plain, again"
"""Plain is measured twice: its ratio to itself is the noise of the measurement."""

START_UP_AT_MOST = 0.005
"""Seconds that switching on may add to the start of a program."""


@dataclass(frozen=True)
class Effort:
    """``processes`` times from a fresh start, ``rounds`` of about ``seconds`` for each variant."""

    processes: int
    rounds: int
    seconds: float


THOROUGH = Effort(processes=5, rounds=10, seconds=0.015)
QUICK = Effort(processes=1, rounds=2, seconds=0.001)


@dataclass(frozen=True)
class Result:
    """All that was measured of one operation, by whether a span was active, and variant."""

    operation: Operation
    benchmarks: dict[tuple[bool, str], pyperf.Benchmark]

    def beyond_plain(self, span: bool, variant: str) -> float | None:
        """Return the ratio to plain, or the bytes beyond it; None where it was not measured.

        The ratio is the median of the ratios within a round: what disturbs a round is common to it.
        """
        measured = self.benchmarks.get((span, variant))
        plain = self.benchmarks[span, PLAIN]
        if measured is None:
            return None
        if self.operation.unit == "byte":
            return float(measured.median() - plain.median())
        pairs = zip(measured.get_values(), plain.get_values(), strict=True)
        return statistics.median(value / base for value, base in pairs)


class Worker:
    """A process that is one variant (see ``worker.py``)."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def measure(self, operation: Operation, span: bool, count: int) -> float:
        """Return seconds or bytes, all of ``count`` times together."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        request = json.dumps([operation.unit, operation.name, span, count])
        print(request, file=self._process.stdin, flush=True)
        answer = self._process.stdout.readline()
        if not answer:
            raise RuntimeError(f"{self._process.args!r} ended at {request}")
        return float(answer)


def pin() -> int | None:
    """Pin this process and its children to the last core that it may use; return which."""
    if not hasattr(os, "sched_setaffinity"):  # there is none on macOS and Windows
        return None
    core = max(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {core})
    return core


def measure(operations: Sequence[Operation], effort: Effort) -> list[Result]:
    """Measure ``operations``."""
    runs: dict[tuple[Operation, bool, str], list[list[float]]] = {}
    for number in range(effort.processes):
        # A program that never has a span is a process of its own: it does not pay for one that had.
        for span in (True, False):
            with _workers() as workers:
                for operation in operations:
                    if operation.unit == "byte" and number > 0:
                        continue  # memory does not vary
                    turns = {
                        variant: worker
                        for variant, worker in workers.items()
                        if variant in (*operation.variants, PLAIN_AGAIN)
                    }
                    for variant, values in _values(turns, operation, span, effort).items():
                        runs.setdefault((operation, span, variant), []).append(values)
    return [_result(operation, runs) for operation in operations]


@contextmanager
def _workers() -> Iterator[dict[str, Worker]]:
    """Start a process for each variant, and for plain a second one."""
    with ExitStack() as stack:
        workers = {}
        for variant in (*VARIANTS, PLAIN_AGAIN):
            process = subprocess.Popen(
                [sys.executable, str(HERE / "worker.py"), variant],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            workers[variant] = Worker(stack.enter_context(process))  # which closes and waits
        yield workers


def _values(
    workers: dict[str, Worker], operation: Operation, span: bool, effort: Effort
) -> dict[str, list[float]]:
    """Return the values of every round, by variant, for one operation."""
    if operation.unit == "byte":
        count = operation.count
        return {
            variant: [worker.measure(operation, span, count) / count]
            for variant, worker in workers.items()
        }
    loops = 1
    while workers[PLAIN].measure(operation, span, loops) < effort.seconds:
        loops *= 2
    values: dict[str, list[float]] = {variant: [] for variant in workers}
    order = list(workers)
    for number in range(effort.rounds + 1):
        order.append(order.pop(0))
        for variant in order:
            seconds = workers[variant].measure(operation, span, loops)
            if number > 0:  # the first round warms up
                values[variant].append(seconds / loops)
    return values


def _result(
    operation: Operation, runs: dict[tuple[Operation, bool, str], list[list[float]]]
) -> Result:
    benchmarks = {}
    for (measured, span, variant), values in runs.items():
        if measured is operation:
            name = f"{operation.name}, {'span' if span else 'no context'}, {variant}"
            benchmarks[span, variant] = _benchmark(name, values, operation.unit)
    return Result(operation, benchmarks)


def _benchmark(name: str, runs: list[list[float]], unit: str) -> pyperf.Benchmark:
    metadata = {"name": name, "unit": unit}
    return pyperf.Benchmark(
        [pyperf.Run(values, metadata=metadata, collect_metadata=False) for values in runs]
    )


_START_UP = """
import sys, time
import opentelemetry.instrumentation.auto_instrumentation  # as under opentelemetry-instrument
import opentelemetry.instrumentation.instrumentor
import opentelemetry.trace

before = set(sys.modules)
start = time.perf_counter()
from otel_concurrency import ConcurrencyInstrumentor
ConcurrencyInstrumentor().instrument(skip_dep_check=True)
print(time.perf_counter() - start, *sorted(set(sys.modules) - before))
"""


def start_up(effort: Effort) -> tuple[pyperf.Benchmark, Sequence[str]]:
    """Measure seconds to import and switch on; return them, and the modules that it imported."""
    runs: list[list[float]] = []
    imported: list[str] = []
    with tempfile.TemporaryDirectory() as compiled:
        # Compiled once, as an installed package is, also where the environment forbids it.
        environment = {**os.environ, "PYTHONPYCACHEPREFIX": compiled}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        for number in range(effort.processes * 4 + 1):
            seconds, *imported = subprocess.check_output(
                [sys.executable, "-c", _START_UP], text=True, env=environment
            ).split()
            if number > 0:  # the first one compiles
                runs.append([float(seconds)])
    return _benchmark("start-up", runs, "second"), imported
