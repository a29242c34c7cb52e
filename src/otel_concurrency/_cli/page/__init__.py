"""Writes reports as one HTML page that opens from disk: no network, nothing beside the file.

The page is put together from the files beside this one: ``page.html`` is its frame, ``page.css``
its look, and the scripts make everything that is seen from the data. A report is embedded as JSON
by columns, in which a text that recurs is written once; ``data.js`` reads it back.
"""

from __future__ import annotations

import dataclasses
import html
import json
import math
import os
import re
from collections.abc import Mapping, Sequence
from functools import singledispatch
from importlib import resources
from pathlib import Path
from typing import Any

from otel_concurrency._trace_report import model
from otel_concurrency._trace_report.model import Report, SpanId

SCRIPTS = (
    "dom.js",
    "data.js",
    "run.js",
    "edges.js",
    "rows.js",
    "waterfall.js",
    "details.js",
    "tables.js",
    "compare.js",
    "main.js",
)
"""In the order in which they use each other."""

_TABLES: Mapping[str, type] = {
    "processes": model.Process,
    "spans": model.Span,
    "hand_offs": model.HandOff,
    "orphans": model.Orphan,
    "leaks": model.Leak,
    "call_sites": model.CallSite,
}

_MOMENTS = frozenset({"started_ns", "ended_ns", "start_ns", "end_ns", "at_ns", "attached_ns"})
"""Written relative to the report's start: JavaScript's numbers are exact up to 2**53."""

_EXACT = 2**53


def write(reports: Mapping[str, Report] | Report, file: str | os.PathLike[str]) -> None:
    """Write ``reports`` to ``file``; several are listed by their titles, the first is shown."""
    titled = {"": reports} if isinstance(reports, Report) else reports
    Path(file).write_text(render(titled), encoding="utf-8")


def render(reports: Mapping[str, Report]) -> str:
    """Return the page for ``reports`` by their titles."""
    first = next(iter(reports.values()))
    parts = {
        "title": html.escape(" ".join(first.command) or "otel-concurrency"),
        "style": _text("page.css"),
        "data": _embeddable([{"title": title, **_data(each)} for title, each in reports.items()]),
        "scripts": "\n".join(f"<script>\n{_text(name)}</script>" for name in SCRIPTS),
    }
    # In one pass: what is put in is not searched for more places.
    return re.sub(r"\{\{ (\w+) \}\}", lambda place: parts[place[1]], _text("page.html"))


def _text(name: str) -> str:
    return resources.files(__name__).joinpath(name).read_text(encoding="utf-8")


def _embeddable(data: Any) -> str:
    """Return ``data`` as JSON that cannot end the element in which it stands."""
    text = json.dumps(data, separators=(",", ":"), default=_plain)
    return text.replace("<", "\\u003c")


def _data(report: Report) -> dict[str, Any]:
    """Return what the page needs of ``report``."""
    return {
        "command": report.command,
        "library": report.library,
        "exit_status": report.exit_status,
        "started_ms": report.started_ns // 1_000_000,
        "length_ns": report.ended_ns - report.started_ns,
        "dropped": report.dropped,
        **{
            name: _table(row_type, getattr(report, name), report.started_ns)
            for name, row_type in _TABLES.items()
        },
    }


def _table(row_type: type, rows: Sequence[Any], started_ns: int) -> dict[str, Any]:
    """Return ``rows`` by columns."""

    def since_start(moment: int | None) -> int | None:
        return None if moment is None else moment - started_ns

    def column(name: str) -> Any:
        values = [getattr(row, name) for row in rows]
        if name in _MOMENTS:
            return [since_start(value) for value in values]
        return _column([_plain(value) for value in values] if name == "attributes" else values)

    return {field.name: column(field.name) for field in dataclasses.fields(row_type)}


def _column(values: list[Any]) -> Any:
    """Return ``values`` in the shortest of the forms that ``data.js`` knows."""
    kinds = set(map(type, values))
    if SpanId in kinds:
        return {
            "traces": _column([value and value.trace_id for value in values]),
            "spans": _column([value and value.span_id for value in values]),
        }
    if str not in kinds or kinds - {str, type(None)}:
        return values
    of = list(dict.fromkeys(values))
    if 2 * len(of) > len(values):
        return values
    place = {value: index for index, value in enumerate(of)}
    return {"of": of, "at": [place[value] for value in values]}


@singledispatch
def _plain(value: Any) -> Any:
    """Return ``value`` as what JSON can hold and JavaScript can read, if need be as words."""
    return str(value)


@_plain.register(str)
@_plain.register(type(None))
def _unchanged(value: str | None) -> str | None:
    return value


@_plain.register
def _plain_integer(value: int) -> int | str:
    return value if abs(value) < _EXACT else str(value)


@_plain.register
def _plain_float(value: float) -> float | str:
    return value if math.isfinite(value) else str(value)


@_plain.register(Mapping)
def _plain_mapping(value: Mapping[Any, Any]) -> dict[str, Any]:
    return {str(key): _plain(each) for key, each in value.items()}


@_plain.register(list)
@_plain.register(tuple)
def _plain_list(value: Sequence[Any]) -> list[Any]:
    return [_plain(each) for each in value]


@_plain.register
def _plain_link(value: model.Link) -> dict[str, Any]:
    return dataclasses.asdict(value)
