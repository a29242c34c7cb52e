"""The table that is printed: one row an operation, ratios to plain, the limits beside them."""

from __future__ import annotations

import platform
from collections.abc import Callable, Sequence
from importlib.metadata import version

from measure import Effort, Figure, Row
from operations import BY_HAND, COMPILED, OFFICIAL, OURS, PLAIN_AGAIN, PURE
from rich import box
from rich.console import Console
from rich.table import Table
from worker import WARM_UP

_NOTHING = "\N{EN DASH}"
_WIDTH = 200
_PACKAGES = (
    "otel-concurrency",
    "opentelemetry-api",
    "opentelemetry-instrumentation-threading",
    "wrapt",
)


def show(rows: Sequence[Row], notes: Sequence[str], *, markdown: bool) -> list[str]:
    """Print one table of everything, ``notes`` below it, and what misses a limit; return that."""
    table = Table(box=box.MARKDOWN if markdown else box.ROUNDED)
    table.add_column("operation", no_wrap=True)
    table.add_column("plain", no_wrap=True, justify="right")
    for name in (BY_HAND, OFFICIAL, f"ours, {PURE}", "at most"):
        table.add_column(name, no_wrap=True, justify="right")
    for name in (f"ours, {COMPILED}", "at most"):
        table.add_column(name, no_wrap=True, justify="right")
    for row in rows:
        table.add_row(*_cells(row))
    console = Console(highlight=False)
    if markdown:
        console = Console(highlight=False, no_color=True, width=_WIDTH)
    elif not console.is_terminal:
        console = Console(highlight=False, width=_WIDTH)
    console.print(table)
    missed = [words for row in rows for words in row.misses()]
    told = [f"beyond its limit: {words}" for words in missed] or ["no row is beyond its limit"]
    for note in (*notes, *_noise(rows), *told):
        console.print(f"- {note}" if markdown else note, markup=False, soft_wrap=True)
    return missed


def conditions(core: int | None, effort: Effort) -> list[str]:
    """Return what a reader must know of how it was measured."""
    return [
        "in a span, and in brackets without any context; the median, ± half of the middle half",
        f"{platform.python_implementation()} {platform.python_version()}, {_cpu()}, "
        + ("not pinned" if core is None else f"pinned to core {core}"),
        ", ".join(f"{name} {version(name)}" for name in _PACKAGES),
        f"{effort.rounds} rounds in one process, turns of {effort.seconds * 1e3:g} ms, each after "
        f"{WARM_UP} times as long to warm up, {effort.clock} time",
    ]


def _cells(row: Row) -> list[str]:
    spell = _bytes if row.unit == "byte" else _ratio
    plain = f"{row.plain:.0f} B" if row.unit == "byte" else _seconds(row.plain)
    cells = [row.name, plain]
    first = COMPILED if (COMPILED, True, OURS) in row.figures else PURE
    for variant in (BY_HAND, OFFICIAL):
        cells.append(_both(row, first, variant, spell))
    for implementation in (PURE, COMPILED):
        cells += [_both(row, implementation, OURS, spell), _limits(row, implementation, spell)]
    return cells


def _both(row: Row, implementation: str, variant: str, spell: Callable[[Figure], str]) -> str:
    words = []
    for span in (True, False):
        figure = row.figures.get((implementation, span, variant))
        if figure is not None:
            limit = row.limit(implementation, span) if variant == OURS else None
            words.append(_coloured(figure, limit, spell))
    return f"{words[0]} ({words[1]})" if len(words) > 1 else "".join(words) or _NOTHING


def _coloured(figure: Figure, limit: float | None, spell: Callable[[Figure], str]) -> str:
    if limit is None:
        return spell(figure)
    return f"[{'green' if figure.median <= limit else 'red'}]{spell(figure)}[/]"


def _limits(row: Row, implementation: str, spell: Callable[[Figure], str]) -> str:
    if row.at_most_by_hand is not None:
        return f"{row.at_most_by_hand:g} of by hand"
    limits = [limit for limit in row.limits.get(implementation, ()) if limit is not None]
    words = list(dict.fromkeys(spell(Figure(limit, -1)) for limit in limits))
    return f"{words[0]} ({words[1]})" if len(words) > 1 else "".join(words) or _NOTHING


def _noise(rows: Sequence[Row]) -> list[str]:
    noise = [
        figure.median
        for row in rows
        for (_, _, variant), figure in row.figures.items()
        if variant == PLAIN_AGAIN and row.unit == "second"
    ]
    if not noise:
        return []
    return [f"plain to plain, measured in the same way: {min(noise):.3f} to {max(noise):.3f}"]


def _ratio(figure: Figure) -> str:
    ratio = f"{figure.median:.2f}"
    return ratio if figure.spread < 0 else f"{ratio} ±{figure.spread:.2f}"


def _bytes(figure: Figure) -> str:
    return f"{figure.median:+.0f} B"


def _seconds(seconds: float) -> str:
    return f"{seconds * 1e3:.1f} ms" if seconds > 1e-3 else f"{seconds * 1e6:.2f} µs"


def _cpu() -> str:
    try:
        with open("/proc/cpuinfo") as file:
            return next(line.split(":")[1].strip() for line in file if "model name" in line)
    except (OSError, StopIteration):
        return platform.machine()
