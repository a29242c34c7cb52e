"""Draws traces as trees in the terminal.

One row a span: its place in the tree, how long it took, the thread that it ran on, and whatever is
worth saying about it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from otel_concurrency._cli.spans import ExportedSpan, Forest, SpanId, Standing

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

Remark = tuple[str, str]
"""Words, and the style that rich is to print them in."""

_GAP = 3
"""Columns between two trees that stand side by side."""

_WORDS: dict[Standing, Remark] = {
    Standing.LINKED: ("linked trace", "magenta"),
    Standing.ORPHAN: ("orphan: new trace", "bold red"),
    Standing.DETACHED: ("parent not exported", "yellow"),
}


@dataclass(frozen=True)
class Glyphs:
    """What a tree is drawn with."""

    branch: str = "├─ "
    last: str = "└─ "
    trunk: str = "│  "
    orphan: str = "✗ "
    link: str = "→ link "
    hand_off: str = "⇢ "
    times: str = "×"  # noqa: RUF001 - it is meant
    more: str = "…"
    micro: str = "µ"


UNICODE = Glyphs()
ASCII = Glyphs(
    branch="|- ",
    last="`- ",
    trunk="|  ",
    orphan="x ",
    link="-> link ",
    hand_off="=> ",
    times="x",
    more="...",
    micro="u",
)


@dataclass(frozen=True)
class Line:
    """A line of a tree: a span, or one of the links of the span above it."""

    guides: str
    span: ExportedSpan
    link: SpanId | None = None


def rows(forest: Forest, glyphs: Glyphs = UNICODE) -> Iterator[Line]:
    """Yield every span of ``forest`` with its links, in the order in which they are drawn."""
    pending = [(root, "", "") for root in reversed(forest.roots)]
    while pending:
        span, own, below = pending.pop()
        family = forest.children.get(span.id, ())
        yield Line(own, span)
        for link in span.links:
            yield Line(below + (glyphs.trunk if family else "   "), span, link)
        for child in reversed(family):
            last = child is family[-1]
            pending.append(
                (
                    child,
                    below + (glyphs.last if last else glyphs.branch),
                    below + ("   " if last else glyphs.trunk),
                )
            )


def table(
    heading: str,
    forest: Forest,
    remark: Callable[[ExportedSpan], Remark] = lambda _: ("", ""),
    glyphs: Glyphs = UNICODE,
) -> Table:
    """Return ``forest`` as a table; ``remark`` says what else is worth saying about a span."""
    from rich.table import Table
    from rich.text import Text

    drawn = Table(
        title=heading,
        title_style="bold",
        title_justify="left",
        box=None,
        show_header=False,
        padding=(0, 2, 0, 0),
        pad_edge=False,
    )
    drawn.add_column(no_wrap=True, overflow="crop")
    drawn.add_column(no_wrap=True, overflow="crop", justify="right", style="cyan")
    drawn.add_column(style="dim")
    drawn.add_column()
    names = {span.id: span.name for span in forest.spans}
    for row in rows(forest, glyphs):
        name = Text(row.guides)
        if row.link is not None:
            target = names.get(row.link, f"span {row.link.span_id}")
            name.append(glyphs.link + target, "magenta")
            drawn.add_row(name, "", "", Text(f"trace {row.link.trace_id[:8]}", "dim"))
            continue
        standing = forest.standing[row.span.id]
        if standing is Standing.ORPHAN:
            name.append(glyphs.orphan + row.span.name, "red")
        else:
            name.append(row.span.name)
        remarks = [_WORDS[standing]] if standing in _WORDS else []
        remarks += [each for each in (remark(row.span),) if each[0]]
        words = Text(", ").join(Text(*each) for each in remarks)
        drawn.add_row(name, duration(row.span.end_ns - row.span.start_ns), row.span.thread, words)
    return drawn


def duration(nanoseconds: float) -> str:
    """Return a duration in few words: ``0.4 ms``, ``31 ms``, ``2.5 s``."""
    milliseconds = nanoseconds / 1e6
    if milliseconds < 10:
        return f"{milliseconds:.1f} ms"
    return f"{milliseconds:.0f} ms" if milliseconds < 1000 else f"{milliseconds / 1000:.1f} s"


def glyphs_for(console: Console) -> Glyphs:
    """Return what ``console`` can show."""
    return ASCII if console.options.ascii_only else UNICODE


def show(console: Console, left: Table, right: Table) -> None:
    """Print two tables side by side or, where they are too wide for that, one below the other."""
    from rich.table import Table

    width = sum(console.measure(each).maximum for each in (left, right)) + _GAP
    if width > console.width:
        console.print(left)
        console.print()
        console.print(right)
        return
    both = Table.grid(padding=(0, _GAP, 0, 0))
    both.add_row(left, right)
    console.print(both)
