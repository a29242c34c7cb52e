"""A process that is one variant: it is told what to measure, a line at a time, and answers.

Every variant has a process of its own, instrumented once at its start as a program is. So no
variant pays for what another left behind: an interpreter specialised for other functions, classes
whose caches were given up after too many changes, larger instances.
"""

from __future__ import annotations

import gc
import json
import sys
import time
import tracemalloc
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from opentelemetry import trace
from operations import OFFICIAL, OPERATIONS, OURS, TRACER


def instrument(variant: str) -> None:
    """Make this process the ``variant``."""
    if variant == OURS:
        from otel_concurrency import ConcurrencyInstrumentor

        ConcurrencyInstrumentor().instrument()
    elif variant == OFFICIAL:
        from opentelemetry.instrumentation.threading import ThreadingInstrumentor

        ThreadingInstrumentor().instrument()


class Measuring:
    """Answers requests, a method for each unit; keeps the setting of the last one."""

    def __init__(self, variant: str) -> None:
        self._variant = variant
        self._scene: tuple[str, AbstractContextManager[Any]] | None = None
        self._run: Any = None

    def second(self, operation: str, span: bool, loops: int) -> float:
        """Return how long ``loops`` of the operation take."""
        self._set(operation)
        gc.collect()
        with _span() if span else nullcontext():
            self._run(max(loops // 10, 1))  # the interpreter and the caches are warm again
            start = time.perf_counter()
            self._run(loops)
            return time.perf_counter() - start

    def byte(self, operation: str, span: bool, count: int) -> float:
        """Return how many bytes ``count`` waiting hand-offs hold."""
        with (
            OPERATIONS[operation].setting(self._variant) as hand_off,
            _span() if span else nullcontext(),
        ):
            held = [hand_off(max(count // 10, 1))]
            gc.collect()
            tracemalloc.start()
            held.append(hand_off(count))
            gc.collect()
            size, _ = tracemalloc.get_traced_memory()
            tracemalloc.stop()
        return float(size)

    def _set(self, operation: str) -> None:
        if self._scene is None or self._scene[0] != operation:
            self.leave()
            setting = OPERATIONS[operation].setting(self._variant)
            self._scene = operation, setting
            self._run = setting.__enter__()

    def leave(self) -> None:
        """Take down the setting of the last operation."""
        if self._scene is not None:
            self._scene[1].__exit__(None, None, None)
            self._scene = None


def _span() -> AbstractContextManager[Any]:
    return trace.use_span(TRACER.start_span("handler"))


def main(variant: str) -> None:
    """Answer every line of standard input: ``[unit, operation, span, loops]``, by a number."""
    instrument(variant)
    measuring = Measuring(variant)
    for line in sys.stdin:
        unit, *arguments = json.loads(line)
        print(getattr(measuring, unit)(*arguments), flush=True)
    measuring.leave()


if __name__ == "__main__":
    main(sys.argv[1])
