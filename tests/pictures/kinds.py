"""Draws one picture for each kind of hand-off: ``python tests/pictures/kinds.py``.

They stand on the page "What is carried". Each follows the colour scheme of its reader by itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from pathlib import Path

PICTURES = Path(__file__).parents[2] / "docs" / "pictures"

WIDTH, LANE, LEFT = 640, 64, 132

STYLE = """
text { font: 13px system-ui, sans-serif; fill: #1f2430; }
.flow { fill: #5b6472; }
.note { font-size: 12px; fill: #5b6472; }
.card { fill: #ffffff; stroke: #d5d9e0; }
.lane { stroke: #d5d9e0; }
.span { fill: #cfe3ff; stroke: #3b78c3; }
.other { fill: #eceef2; stroke: #8a93a3; }
.way { stroke: #b3541e; fill: none; stroke-width: 1.6; }
.head { fill: #b3541e; }
@media (prefers-color-scheme: dark) {
  text { fill: #e6e8ee; }
  .flow, .note { fill: #a7afbd; }
  .card { fill: #171a21; stroke: #3a404c; }
  .lane { stroke: #3a404c; }
  .span { fill: #1f3a5f; stroke: #6ea8f0; }
  .other { fill: #2a2f3a; stroke: #8a93a3; }
  .way { stroke: #f0a068; }
  .head { fill: #f0a068; }
}
"""


@dataclass(frozen=True)
class Bar:
    """A span, or work outside of the trace, in a lane from one place to another."""

    lane: int
    start: int
    end: int
    words: str
    kind: str = "span"


@dataclass(frozen=True)
class Way:
    """The way of a context: from where it is captured to where it is attached."""

    start: tuple[int, int]
    """Lane and place."""

    end: tuple[int, int]
    words: str = ""


@dataclass(frozen=True)
class Picture:
    """What is drawn for one kind."""

    words: str
    """What it shows, for those who do not see it."""

    lanes: tuple[str, ...]
    bars: tuple[Bar, ...]
    ways: tuple[Way, ...]


KINDS = {
    "call": Picture(
        "A call: captured by submit, attached around the call, and detached when it returns; the "
        "worker is in no context before and after.",
        ("request", "worker"),
        (
            Bar(0, 0, 420, "order"),
            Bar(1, 0, 60, "idle", "other"),
            Bar(1, 200, 330, "charge"),
            Bar(1, 400, 490, "idle", "other"),
        ),
        (Way((0, 80), (1, 200), "submit"),),
    ),
    "item": Picture(
        "An item: captured by put, waits beside the item in the queue, adopted by get, and let go "
        "of when the consumer asks for the next item.",
        ("producer 1", "producer 2", "consumer"),
        (
            Bar(0, 0, 150, "order 1"),
            Bar(1, 95, 320, "order 2"),
            Bar(2, 160, 270, "ship 1"),
            Bar(2, 385, 490, "ship 2"),
        ),
        (Way((0, 70), (2, 160), "put … get"), Way((1, 295), (2, 385), "put … get")),
    ),
    "process": Picture(
        "A process: the context crosses as headers, the parent in the child is a remote span, and "
        "the child exports before it ends.",
        ("parent process", "child process"),
        (
            Bar(0, 0, 440, "upload"),
            Bar(1, 200, 330, "resize"),
            Bar(1, 350, 430, "export", "other"),
        ),
        (Way((0, 80), (1, 200), "traceparent, baggage"),),
    ),
    "suspension": Picture(
        "A suspension: a generator's own span is current from each resumption to the next yield; "
        "in between, the consumer's is.",
        ("consumer", "generator"),
        (
            Bar(0, 0, 490, "request"),
            Bar(1, 60, 150, "stream"),
            Bar(1, 230, 320, "stream"),
            Bar(1, 400, 470, "stream"),
        ),
        (Way((1, 150), (1, 230), "yield"), Way((1, 320), (1, 400), "yield")),
    ),
}


def draw(picture: Picture) -> str:
    """Return the picture as SVG."""
    height = 24 + LANE * len(picture.lanes)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" '
        f'aria-label="{escape(picture.words)}">',
        f"<title>{escape(picture.words)}</title><style>{STYLE}</style>",
        f'<rect class="card" x="0.5" y="0.5" width="{WIDTH - 1}" height="{height - 1}" rx="8"/>',
    ]
    for lane, name in enumerate(picture.lanes):
        y = middle(lane)
        parts.append(f'<text class="flow" x="14" y="{y + 4}">{escape(name)}</text>')
        parts.append(f'<path class="lane" d="M{LEFT} {y}H{WIDTH - 14}"/>')
    for bar in picture.bars:
        y = middle(bar.lane)
        parts.append(
            f'<rect class="{bar.kind}" x="{LEFT + bar.start}" y="{y - 13}" rx="4" '
            f'width="{bar.end - bar.start}" height="26"/>'
            f'<text x="{LEFT + bar.start + 8}" y="{y + 4}">{escape(bar.words)}</text>'
        )
    parts += [arrow(way) for way in picture.ways]
    return "\n".join([*parts, "</svg>\n"])


def middle(lane: int) -> int:
    """Return the height of a lane's middle."""
    return 12 + LANE * lane + LANE // 2


def arrow(way: Way) -> str:
    """Return a way as a line with a head, and its words beside it."""
    (from_lane, start), (to_lane, end) = way.start, way.end
    x, y = LEFT + start, middle(from_lane)
    to_x, to_y = LEFT + end, middle(to_lane)
    if from_lane == to_lane:
        path, at = f"M{x} {y}H{to_x - 8}", (x + 16, y - 8)
    else:
        path, at = f"M{x} {y + 13}V{to_y}H{to_x - 8}", (x + 8, to_y - 18)
    head = f"M{to_x} {to_y}l-9 -5v10z"
    return (
        f'<path class="way" d="{path}"/><path class="head" d="{head}"/>'
        f'<text class="note" x="{at[0]}" y="{at[1]}">{escape(way.words)}</text>'
    )


if __name__ == "__main__":
    for name, each in KINDS.items():
        (PICTURES / f"{name}.svg").write_text(draw(each), encoding="utf-8")
