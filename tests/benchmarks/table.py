"""The table that is printed: one row an operation, ratios to plain, the limit beside them."""

from __future__ import annotations

import platform
from collections.abc import Callable, Sequence
from importlib.metadata import version

import pyperf
from measure import PLAIN_AGAIN, START_UP_AT_MOST, Effort, Result
from operations import BY_HAND, OFFICIAL, OURS, PLAIN
from rich import box
from rich.console import Console
from rich.table import Table

START_UP = "instrumenting at start-up"

_NOTHING = "\N{EN DASH}"
_WIDTH = 132
_COMPARED = tuple((span, name) for span in (True, False) for name in (BY_HAND, OFFICIAL, OURS))
_PACKAGES = (
    "otel-concurrency",
    "opentelemetry-api",
    "opentelemetry-instrumentation-threading",
    "wrapt",
)
_LEFT_TO_THE_PROGRAM = (
    "asyncio",
    "concurrent.futures.thread",
    "multiprocessing",
    "sched",
    "subprocess",
)


def show(
    results: Sequence[Result],
    start_up: tuple[pyperf.Benchmark, Sequence[str]] | None,
    notes: Sequence[str],
    *,
    markdown: bool,
) -> None:
    """Print one table of everything, and ``notes`` below it."""
    table = Table(box=box.MARKDOWN if markdown else box.ROUNDED)
    table.add_column("operation", no_wrap=True)
    table.add_column("plain", no_wrap=True, justify="right")
    for span, variant in _COMPARED:
        table.add_column(f"{variant}, {'span' if span else 'no context'}", justify="right")
    table.add_column("ours: at most", no_wrap=True, justify="right")
    for result in results:
        table.add_row(*_cells(result))
    notes = [*notes, *_noise(results)]
    if start_up is not None:
        seconds, imported = start_up
        cells = {(True, OURS): _coloured(seconds.median(), START_UP_AT_MOST, _seconds)}
        table.add_row(
            START_UP,
            _NOTHING,
            *(cells.get(column, _NOTHING) for column in _COMPARED),
            _seconds(START_UP_AT_MOST),
        )
        wrong = [name for name in _LEFT_TO_THE_PROGRAM if name in imported]
        notes.append(f"start-up imported, of {', '.join(_LEFT_TO_THE_PROGRAM)}: {wrong or 'none'}")

    console = Console(highlight=False)
    if markdown:
        console = Console(highlight=False, no_color=True, width=_WIDTH * 2)
    elif not console.is_terminal:
        console = Console(highlight=False, width=_WIDTH)
    console.print(table)
    for note in notes:
        console.print(f"- {note}" if markdown else note)


def conditions(core: int | None, effort: Effort) -> list[str]:
    """Return what a reader must know of how it was measured."""
    return [
        f"{platform.python_implementation()} {platform.python_version()}, {_cpu()}, "
        + ("not pinned" if core is None else f"pinned to core {core}"),
        ", ".join(f"{name} {version(name)}" for name in _PACKAGES),
        f"{effort.processes} processes a variant, {effort.rounds} rounds in each, medians",
    ]


def _cells(result: Result) -> list[str]:
    operation = result.operation
    in_bytes = operation.unit == "byte"
    of_plain = result.benchmarks[True, PLAIN].median()
    cells = [operation.name, f"{of_plain:.0f} B" if in_bytes else _seconds(of_plain)]
    for span, variant in _COMPARED:
        value = result.beyond_plain(span, variant)
        limit = _limit(result, span) if variant == OURS else None
        cells.append(_coloured(value, limit, _bytes if in_bytes else _ratio))
    limits = dict.fromkeys(operation.at_most)  # one, where they are the same
    spell = _bytes if in_bytes else _ratio
    if operation.at_most_by_hand is None:
        cells.append(", ".join(_coloured(limit, None, spell) for limit in limits))
    else:
        cells.append(f"{_ratio(operation.at_most_by_hand)} of by hand")
    return cells


def _limit(result: Result, span: bool) -> float | None:
    """Return the limit of ours beyond plain, if there is one."""
    of_by_hand = result.operation.at_most_by_hand
    by_hand = result.beyond_plain(span, BY_HAND)
    if of_by_hand is None or by_hand is None:
        return result.operation.at_most[not span]
    return of_by_hand * by_hand


def _coloured(value: float | None, limit: float | None, spell: Callable[[float], str]) -> str:
    """Return ``value`` in words, and in colour where there is a limit to it."""
    if value is None:
        return _NOTHING
    if limit is None:
        return spell(value)
    return f"[{'green' if value <= limit else 'red'}]{spell(value)}[/]"


def _noise(results: Sequence[Result]) -> list[str]:
    noise = [
        result.beyond_plain(span, PLAIN_AGAIN) or 0
        for result in results
        for span in (True, False)
        if result.operation.unit == "second"
    ]
    if not noise:
        return []
    return [f"plain to plain, measured in the same way: {min(noise):.3f} to {max(noise):.3f}"]


def _ratio(ratio: float) -> str:
    return f"{ratio:.2f}"


def _bytes(size: float) -> str:
    return f"{size:+.0f} B"


def _seconds(seconds: float) -> str:
    return f"{seconds * 1e3:.1f} ms" if seconds > 1e-3 else f"{seconds * 1e6:.2f} µs"


def _cpu() -> str:
    try:
        with open("/proc/cpuinfo") as file:
            return next(line.split(":")[1].strip() for line in file if "model name" in line)
    except (OSError, StopIteration):
        return platform.machine()
