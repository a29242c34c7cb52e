"""Draws the traces of a report as plain text: what a failing test prints.

A span that has lost its parent is drawn where it should be, below the span that it comes from, with
a broken edge.
"""

from __future__ import annotations

import textwrap
from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from otel_concurrency._trace_report.model import Orphan, Report, Span, SpanId

_BRANCH, _LAST, _TRUNK, _GAP = "├─ ", "└─ ", "│  ", "   "
_BROKEN, _BROKEN_LAST, _LOST = "├✗ ", "└✗ ", "✗ "
_WIDTH = 96


class _Row(NamedTuple):
    own: str
    below: str
    span: Span


def outline(report: Report, marked: Mapping[SpanId, str] | None = None) -> str:
    """Return all spans of ``report`` as a tree, with its orphans; ``marked`` spans have words."""
    marked = marked or {}
    orphans = {orphan.span: orphan for orphan in report.orphans}
    rows = list(_rows(report, orphans))
    name_width = max((len(row.own + row.span.name) for row in rows), default=0)
    duration_width = max((len(_duration(row.span)) for row in rows), default=0)
    lines: list[str] = []
    for own, below, span in rows:
        name = f"{own}{span.name}".ljust(name_width)
        words = f"{name}  {_duration(span).rjust(duration_width)}  {_where(span)}".rstrip()
        if span.id in marked:
            words += f"  ✗ {marked[span.id]}"
        elif span.id in orphans:
            words += "  ✗ orphan: a trace of its own"
        lines.append(words)
        lines += [f"{below}→ link to {_link(report, link.to)}" for link in span.links]
        if span.id in orphans:
            lines += _reason(orphans[span.id], below)
    return "\n".join(lines)


def reason(orphan: Orphan) -> str:
    """Return what has happened to an orphan, and what to do about it."""
    return " ".join(filter(None, (orphan.words, orphan.advice)))


def _reason(orphan: Orphan, below: str) -> list[str]:
    indent = f"{below}  "
    return textwrap.wrap(
        reason(orphan),
        _WIDTH,
        initial_indent=indent,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _rows(report: Report, orphans: Mapping[SpanId, Orphan]) -> Iterator[_Row]:
    seen = {span.id for span in report.spans}
    families: dict[SpanId | None, list[Span]] = defaultdict(list)
    for span in sorted(report.spans, key=lambda span: span.start_ns):
        above = span.parent
        if span.id in orphans:
            above = orphans[span.id].origin
        families[above if above in seen else None].append(span)
    pending = [
        _Row(_LOST if span.id in orphans else "", "", span) for span in reversed(families[None])
    ]
    while pending:
        row = pending.pop()
        family = families.get(row.span.id, [])
        yield row._replace(below=row.below + (_TRUNK if family else _GAP))
        for child in reversed(family):
            last, lost = child is family[-1], child.id in orphans
            edge = (_BROKEN_LAST if last else _BROKEN) if lost else (_LAST if last else _BRANCH)
            pending.append(_Row(row.below + edge, row.below + (_GAP if last else _TRUNK), child))


def _duration(span: Span) -> str:
    if span.end_ns is None:
        return "not ended"
    milliseconds = (span.end_ns - span.start_ns) / 1e6
    return f"{milliseconds:.1f} ms" if milliseconds < 1000 else f"{milliseconds / 1000:.1f} s"


def _where(span: Span) -> str:
    return f"{span.thread}, {span.task}" if span.task else span.thread


def _link(report: Report, to: SpanId) -> str:
    names = [span.name for span in report.spans if span.id == to]
    return repr(names[0]) if names else f"span {to.span_id} of another program"
