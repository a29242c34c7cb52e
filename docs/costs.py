"""The table of costs, made of what ``python tests/benchmarks --json FILE`` has measured."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

FILE = Path(__file__).with_name("cost.json")

HEADS = {"pure": "pure Python", "compiled": "compiled"}
"""The implementations, in the order of their columns, and what these are called."""

_NOTHING = "\N{EN DASH}"


def keep(measured: Path) -> None:
    """Keep what was measured, without the single values."""
    data = json.loads(measured.read_text(encoding="utf-8"))
    for row in data["rows"]:
        row.pop("values", None)
    FILE.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")


def table() -> str:
    """Return the table of what was kept, and below it how that was measured."""
    return made_of(json.loads(FILE.read_text(encoding="utf-8")))


def made_of(data: Mapping[str, Any]) -> str:
    """Return the table of what was measured, with a column for each implementation in it."""
    measured = {each["implementation"] for row in data["rows"] for each in row["figures"]}
    columns = [one for one in HEADS if one in measured]
    heads = ["operation", "plain", "by hand", "official", *(HEADS[one] for one in columns)]
    lines = [heads, ["---"] * len(heads)]
    for row in data["rows"]:
        there = {each["implementation"] for each in row["figures"]}
        beside = "compiled" if "compiled" in there else "pure"
        others = [_figures(row, beside, variant) for variant in ("by hand", "official")]
        ours = [_figures(row, one, "ours") for one in columns]
        lines.append([row["name"], _plain(row), *others, *ours])
    notes = [f"- {note}" for note in data["notes"]]
    if data["missed"]:
        notes.append("- \\* more than the benchmark allows")
    return "\n".join([*(f"| {' | '.join(line)} |" for line in lines), "", *notes])


def _plain(row: Mapping[str, Any]) -> str:
    plain = row["plain"]
    if row["unit"] == "byte":
        return f"{plain:.0f} B"
    for unit, size in (("ms", 1e-3), ("µs", 1e-6)):
        if plain >= size:
            return f"{plain / size:.3g} {unit}"
    return f"{plain * 1e9:.0f} ns"


def _figures(row: Mapping[str, Any], implementation: str, variant: str) -> str:
    """Return the figure with a span and, in brackets, the one without a context."""
    found = {
        each["context"]: _figure(row["unit"], each)
        for each in row["figures"]
        if (each["implementation"], each["variant"]) == (implementation, variant)
    }
    words = [found[context] for context in ("span", "no context") if context in found]
    return f"{words[0]} ({words[1]})" if len(words) > 1 else "".join(words) or _NOTHING


def _figure(unit: str, figure: Mapping[str, Any]) -> str:
    at_most = figure["at_most"]
    mark = r"\*" if at_most is not None and figure["median"] > at_most else ""
    if unit == "byte":
        return f"{figure['median']:+.0f} B{mark}"
    spread = f" ±{figure['spread']:.2f}" if figure["variant"] == "ours" else ""
    return f"{figure['median']:.2f}{spread}{mark}"
