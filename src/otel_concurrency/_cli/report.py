"""Prints a report in the terminal: traces, what has come off, and which lines hand work off."""

from __future__ import annotations

import os
import statistics
from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from otel_concurrency._cli import paths, tree
from otel_concurrency._trace_report.model import (
    CallSite,
    HandOff,
    Leak,
    Orphan,
    Report,
    Span,
    SpanId,
)
from otel_concurrency._trace_report.trees import Branch, Forest

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.table import Table
    from rich.text import Text

_TREES = 30
"""Kinds of traces that are drawn; the others are counted."""

_ROWS = 60
"""Rows of a tree that are drawn."""

_FAULTS = 20
"""How many orphans, leaks and call sites are shown; those of one line count as one."""

_NARROW = 100
"""In a terminal with fewer columns the details of a span or a line stand below it."""

_UNKNOWN = "-"

_NO_SPANS = (
    "No span was started: is the code with spans reached, and are its tracers of OpenTelemetry's "
    "SDK? Frameworks start spans only if their instrumentation is installed: "
    "opentelemetry-bootstrap -a install."
)


_Fault = TypeVar("_Fault", Orphan, Leak)


def show(console: Console, report: Report) -> None:
    """Print all of ``report``."""
    from rich.rule import Rule

    # What is not shown on a terminal is not broken into its lines, so that it can be searched.
    wide = not console.is_terminal and "COLUMNS" not in os.environ
    if wide:
        console.width = 160
    words = _Words(console)
    state = "on" if report.library else "off"
    console.print()
    console.print(Rule(f"{_one_line(' '.join(report.command))}, library {state}", style="dim"))
    for title, part in words.report(report):
        console.print()
        if title:
            console.print(title, style="bold")
        console.print(part)
    console.print()
    if report.processes and not report.spans:
        console.print(_NO_SPANS, style="yellow")
    console.print(words.summary(report))


def show_comparison(console: Console, off: Report, on: Report) -> None:
    """Print what the library has changed."""
    from rich.table import Table

    drawn = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0))
    for heading in ("", "off", "on"):
        drawn.add_column(heading, justify="right" if heading else "left")
    for name, before, after in zip(_COUNTS, _counts(off), _counts(on), strict=True):
        drawn.add_row(name, f"{before:,}", f"{after:,}")
    console.print()
    console.print("The same program, without the library and with it", style="bold")
    console.print(drawn)


_COUNTS = ("traces", "spans", "hand-offs", "with a context", "orphans", "leaks")


def _counts(report: Report) -> tuple[int, ...]:
    return (
        len({span.id.trace_id for span in report.spans}) + report.dropped.get("traces", 0),
        len(report.spans) + report.dropped.get("spans", 0),
        sum(site.count for site in report.call_sites),
        sum(site.with_context for site in report.call_sites),
        len(report.orphans) + report.dropped.get("orphans", 0),
        sum(leak.count for leak in report.leaks),
    )


class _Words:
    """Puts a report into words, for a console."""

    def __init__(self, console: Console) -> None:
        self._glyphs = tree.glyphs_for(console)
        self._width = console.width
        self._narrow = console.width < _NARROW
        self._paths = paths.Paths()

    def report(self, report: Report) -> Iterable[tuple[str, RenderableType]]:
        self._paths = paths.of(report)
        orphans, leaks = _together(report.orphans), _together(report.leaks)
        forest = Forest(report)
        if len(report.processes) > 1:
            yield counted(len(report.processes), "process", "processes"), self._processes(report)
        if forest.roots:
            yield "", self._traces(forest, orphans)
        if orphans:
            yield "Orphans: spans that lost their parent", self._faults(orphans, forest)
        if leaks:
            yield (
                "Leaks: contexts that outlived their work, and telemetry that was lost",
                self._faults(leaks, forest),
            )
        if report.call_sites:
            yield "Hand-offs by line", self._call_sites(report.call_sites)

    def summary(self, report: Report) -> Text:
        from rich.text import Text

        traces, spans, hand_offs, _, orphans, leaks = _counts(report)
        took = self._duration(report.ended_ns - report.started_ns)
        status = report.exit_status
        ended = "observed for" if status is None else f"exit status {status},"
        text = Text(f"{ended} {took}: ", "dim")
        text.append(f"{counted(traces, 'trace')}, {counted(spans, 'span')}, ", "not dim")
        text.append(f"{counted(hand_offs, 'hand-off')}, ", "not dim")
        for number, what in ((orphans, "orphan"), (leaks, "leak")):
            text.append(counted(number, what), f"not dim bold {'red' if number else 'green'}")
            text.append(", " if what == "orphan" else "")
        dropped = [
            counted(number, what.replace("_", "-").removesuffix("s"))
            for what, number in report.dropped.items()
            if number
        ]
        if dropped:
            text.append(f"\nof these not kept (--limit): {', '.join(dropped)}", "yellow")
        return text

    def _processes(self, report: Report) -> Table:
        from rich.text import Text

        drawn = _table()
        for process in report.processes[:_FAULTS]:
            command = Text(_one_line(process.command), overflow="ellipsis", no_wrap=True)
            ended = process.ended_ns
            lived = "" if ended is None else self._duration(ended - process.started_ns)
            drawn.add_row(str(process.pid), lived, command)
        _say_more(drawn, len(report.processes) - _FAULTS)
        return drawn

    # --- traces ---

    def _traces(self, forest: Forest, orphans: Sequence[Sequence[Orphan]]) -> RenderableType:
        from rich.text import Text

        rows: list[_Row] = []
        numbers = {each.span: n for n, same in enumerate(orphans, 1) for each in same}
        for kind in forest.roots[:_TREES]:
            branches, undrawn = forest.tree(kind, rows=_ROWS)
            for branch, following in zip(branches, [*branches[1:], None], strict=True):
                goes_on = following is not None and following.depth > branch.depth
                below = self._guides(branch, below=True)
                below += self._glyphs.trunk if goes_on else "   "
                rows += self._rows(branch, below, forest, numbers)
            if undrawn:
                more = f"   {self._glyphs.more} {counted(undrawn, 'more span')}"
                rows.append(_Row(Text(more)))
        left = forest.roots[_TREES:]
        if left:
            traces = counted(sum(len(kind) for kind in left), "more trace")
            kinds = counted(len(left), "other kind")
            rows.append(_Row(Text(f"{self._glyphs.more} {traces} of {kinds}")))
        return _stacked(rows, self._width) if self._narrow else _side_by_side(rows)

    def _rows(
        self, branch: Branch, below: str, forest: Forest, numbers: Mapping[SpanId, int]
    ) -> Iterable[_Row]:
        from rich.text import Text

        span = branch.example
        orphan = forest.orphans.get(span.id)
        name = Text(self._guides(branch))
        style = "red" if orphan else "" if span.parent is None else "not bold"
        name.append((self._glyphs.orphan if orphan else "") + _one_line(span.name), style)
        if branch.times > 1:
            name.append(f" {self._glyphs.times}{branch.times:,}", "bold")
        took = [each.end_ns - each.start_ns for each in branch.spans if each.end_ns is not None]
        duration = self._duration(statistics.median(took)) if took else "running"
        how = self._how(branch, forest, numbers.get(span.id))
        yield _Row(name, duration, _flows(branch, forest), how, below)
        for link in span.links:
            known = forest.spans.get(link.to)
            target = _one_line(known.name) if known else f"span {link.to.span_id}"
            row = Text(below).append(self._glyphs.link + target, "magenta")
            if self._narrow and link.reason:
                row.append(f" {link.reason}", "dim")
            yield _Row(row, remark=Text("" if self._narrow else link.reason or "", "dim"))
        if branch.folded:
            more = f"{below}{self._glyphs.more} {counted(branch.folded, 'more span')} below"
            yield _Row(Text(more, "dim"))

    def _guides(self, branch: Branch, *, below: bool = False) -> str:
        glyphs = self._glyphs
        own, *above = branch.lasts or (None,)
        guides = ["   " if last else glyphs.trunk for last in reversed(above)]
        if own is not None:
            guides.append(
                ("   " if own else glyphs.trunk) if below else glyphs.last if own else glyphs.branch
            )
        return "".join(guides)

    def _how(self, branch: Branch, forest: Forest, orphan: int | None) -> Text:
        """Say how the work got there, and what is wrong with it."""
        from rich.text import Text

        parts: list[Text] = []
        hand_offs = [forest.hand_offs.get(span.hand_off or "") for span in branch.spans]
        known = [each for each in hand_offs if each is not None]
        if known:
            text = Text(f"{self._glyphs.hand_off}{known[0].call} ", "green")
            text.append(self._local(known[0].site), "not green")
            if known[0].to_site is not None:
                text.append(f", resumed at {self._local(known[0].to_site)}", "not green")
            text.append(self._waited(known), "dim not green")
            parts.append(text)
        failed = sum(span.status == "ERROR" for span in branch.spans)
        if failed:
            times = f" {self._glyphs.times}{failed:,}" if failed > 1 else ""
            parts.append(Text(f"error{times}", "bold red"))
        if branch.depth == 0 and any(
            span.id.trace_id in forest.incomplete for span in branch.spans
        ):
            parts.append(Text("incomplete (--limit)", "yellow"))
        if orphan:
            parts.append(Text(f"orphan: see {orphan}", "bold red"))
        elif branch.example.parent is not None and branch.example.parent not in forest.spans:
            parts.append(Text("its parent was not seen", "yellow"))
        return Text(", ").join(parts)

    def _waited(self, hand_offs: Sequence[HandOff]) -> str:
        waits = [each.waited_ns for each in hand_offs if each.waited_ns is not None]
        return f", waited {self._duration(statistics.median(waits))}" if waits else ""

    # --- what has come off ---

    def _faults(self, faults: Sequence[Sequence[Orphan | Leak]], forest: Forest) -> Table:
        from rich.text import Text

        drawn = _table()
        for number, same in enumerate(faults[:_FAULTS], 1):
            fault = same[0]
            spans = (forest.spans.get(each.span) for each in same if each.span is not None)
            names = sorted({_one_line(span.name) for span in spans if span is not None})
            count = sum(getattr(each, "count", 1) for each in same)
            text = Text()
            if names:
                text.append(
                    f"{', '.join(names[:5])}{f' {self._glyphs.more}' if names[5:] else ''}", "red"
                )
            if count > max(len(names), 1):
                text.append(f" {self._glyphs.times}{count:,}", "bold")
            text.append(": " if text else "")
            text.append(self._local(fault.words))
            if fault.site is not None and fault.site not in fault.words:
                text.append(f" ({self._local(fault.site)})")
            text.append(f"\n{self._local(fault.advice)}", "dim")
            drawn.add_row(Text(f"{number:>2}", "bold red"), text)
        _say_more(drawn, len(faults) - _FAULTS)
        return drawn

    # --- the table of call sites ---

    def _call_sites(self, sites: Sequence[CallSite]) -> Table:
        from rich.table import Table

        drawn = Table(
            box=None,
            padding=(0, 2, 0, 0),
            pad_edge=False,
            header_style="dim",
        )
        if self._narrow:
            drawn.add_column("call, at", overflow="fold")
        else:
            drawn.add_column("primitive", style="dim")
            drawn.add_column("call", overflow="fold")
            drawn.add_column("at", overflow="fold")
        for heading in ("with context", "without", "wait p50", "p95", "max"):
            drawn.add_column(heading, justify="right", no_wrap=True)
        by_count = sorted(sites, key=lambda site: -site.count)
        for site in by_count[:_FAULTS]:
            waits = (site.wait_p50_ns, site.wait_p95_ns, site.wait_max_ns)
            at = self._local(site.site)
            drawn.add_row(
                *((f"{site.call}\n  {at}",) if self._narrow else (site.primitive, site.call, at)),
                f"{site.with_context:,}",
                f"{site.without_context:,}",
                *(_UNKNOWN if wait is None else self._duration(wait) for wait in waits),
            )
        _say_more(drawn, len(sites) - _FAULTS)
        return drawn

    def _duration(self, nanoseconds: float) -> str:
        """Return a duration in few words; hand-offs are fast."""
        if 0 < nanoseconds < 100_000:
            return f"{nanoseconds / 1000:.0f} {self._glyphs.micro}s"
        return tree.duration(nanoseconds)

    def _local(self, words: str) -> str:
        """Name files as the user would."""
        return self._paths.local(words)


@dataclass(frozen=True)
class _Row:
    """A row of a tree."""

    name: Text
    """With its guides."""
    duration: str = ""
    flow: str = ""
    remark: Text | None = None
    below: str = ""
    """The guides of what stands below."""


def _side_by_side(rows: Iterable[_Row]) -> Table:
    drawn = _table()
    drawn.add_column(no_wrap=True, overflow="ellipsis")
    drawn.add_column(no_wrap=True, justify="right", style="cyan")
    drawn.add_column(style="dim", overflow="fold")
    drawn.add_column(overflow="fold")
    for row in rows:
        drawn.add_row(row.name, row.duration, row.flow, row.remark)
    return drawn


def _stacked(rows: Sequence[_Row], width: int) -> RenderableType:
    """Draw trees with the details of each span in a separate line."""
    from rich.console import Group
    from rich.text import Text

    duration = max((len(row.duration) for row in rows), default=0)
    flow = min(max((len(row.flow) for row in rows), default=0), width // 3)
    most = max(width - duration - flow - 4, 1)
    name = min(max((row.name.cell_len for row in rows if row.duration), default=0), most)
    lines: list[RenderableType] = []
    for row in rows:
        if row.duration:
            line = row.name.copy()
            line.truncate(name, overflow="ellipsis", pad=True)
            line.append(f"  {row.duration:>{duration}}", "not bold cyan")
            flowing = Text(f"  {row.flow}", "dim not bold")
            flowing.truncate(flow + 2, overflow="ellipsis")
            lines.append(line.append_text(flowing))
        else:
            lines.append(row.name)
        if row.remark:
            drawn = _table()
            drawn.add_column(no_wrap=True)
            drawn.add_column(overflow="fold")
            drawn.padding = 0
            drawn.add_row(row.below, row.remark)
            lines.append(drawn)
    return Group(*lines)


def _table() -> Table:
    from rich.table import Table

    return Table(
        box=None,
        show_header=False,
        padding=(0, 2, 0, 0),
        pad_edge=False,
    )


def _say_more(drawn: Table, count: int) -> None:
    if count > 0:
        drawn.add_row("", f"and {count:,} more")


def _together(faults: Iterable[_Fault]) -> list[list[_Fault]]:
    """Return those of one cause together."""
    found: defaultdict[Hashable, list[_Fault]] = defaultdict(list)
    for fault in faults:
        found[fault.reason, fault.site, fault.words].append(fault)
    return list(found.values())


def _flows(branch: Branch, forest: Forest) -> str:
    """Say in which thread, task and process the spans were started, where that changes."""
    if not any(_flow(span, forest.parent(span)) for span in branch.spans):
        return ""
    if len(branch.spans) == 1:
        return _flow(branch.example, forest.parent(branch.example))
    flows = {(span.pid, span.thread) for span in branch.spans}
    if len(flows) > 1:
        processes = len({pid for pid, _ in flows})
        inside = f" in {counted(processes, 'process', 'processes')}" if processes > 1 else ""
        return counted(len(flows), "thread") + inside
    if all(_is_in_thread_of(forest.parent(span), span) for span in branch.spans):
        return counted(len({(span.pid, span.task) for span in branch.spans}), "task")
    return branch.example.thread


def _is_in_thread_of(other: Span | None, span: Span) -> bool:
    return other is not None and (span.pid, span.thread) == (other.pid, other.thread)


def _flow(span: Span, above: Span | None) -> str:
    parts: list[str] = []
    if not _is_in_thread_of(above, span):
        parts.append(span.thread)
    if span.task and (above is None or span.task != above.task):
        parts.append(span.task)
    if above is not None and span.pid != above.pid:
        parts.append(f"process {span.pid}")
    return ", ".join(parts)


def counted(count: int, one: str, many: str | None = None) -> str:
    """Return a number of things in words: ``1 span``, ``1,200 spans``."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def _one_line(text: str) -> str:
    """Return ``text`` without what would move the cursor."""
    return "".join(each if each.isprintable() else " " for each in text)
