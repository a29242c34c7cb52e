"""A report's spans as trees, in which what is alike is one.

A service that has served a thousand requests has a thousand traces, of a few kinds. Spans are alike
when they have the same name, were handed their work from the same line, are orphans for the same
reason, and have children that are alike; those of one parent, and the roots, are drawn together.
"""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from otel_concurrency._trace_report.model import HandOff, Orphan, Report, Span, SpanId


@dataclass(frozen=True)
class Branch:
    """Spans that are alike, at one place of a tree."""

    spans: Sequence[Span]
    times: int
    """How many of them each span of the branch above has; of roots, how many there are."""
    depth: int
    lasts: tuple[bool, ...]
    """Whether it is the last of its siblings, and so on upwards, beginning below the root."""
    folded: int = 0
    """How many spans below it are not drawn."""

    @property
    def example(self) -> Span:
        """The first of them."""
        return self.spans[0]


class Forest:
    """The trees of a report."""

    def __init__(self, report: Report) -> None:
        self.spans: Mapping[SpanId, Span] = {span.id: span for span in report.spans}
        self.hand_offs: Mapping[str, HandOff] = {each.id: each for each in report.hand_offs}
        self.orphans: Mapping[SpanId, Orphan] = {each.span: each for each in report.orphans}
        self.incomplete = frozenset(report.incomplete)
        """The traces of which some spans were not kept."""
        self._children: defaultdict[SpanId, list[Span]] = defaultdict(list)
        roots: list[Span] = []
        for span in sorted(report.spans, key=lambda each: each.start_ns):
            if span.parent is not None and span.parent in self.spans:
                self._children[span.parent].append(span)
            else:
                roots.append(span)
        self._kinds = self._tell_kinds(roots)
        self.roots = self._alike(roots)
        """The roots by kind, the earliest first."""

    def _tell_kinds(self, roots: Iterable[Span]) -> dict[SpanId, int]:
        """Return a number for each span, the same for those that are alike."""
        numbers: dict[Hashable, int] = {}
        kinds: dict[SpanId, int] = {}
        downwards: list[Span] = list(roots)
        for span in downwards:  # grows while it is gone through: no recursion, however deep
            downwards += self._children.get(span.id, ())
        for span in reversed(downwards):
            children = sorted(kinds[child.id] for child in self._children.get(span.id, ()))
            hand_off = self.hand_offs.get(span.hand_off or "")
            orphan = self.orphans.get(span.id)
            kind = (
                span.name,
                hand_off and (hand_off.call, hand_off.site),
                orphan and (orphan.reason, orphan.site),
                tuple(link.reason for link in span.links),
                span.parent is None,
                tuple(children),
            )
            kinds[span.id] = numbers.setdefault(kind, len(numbers))
        return kinds

    def _alike(self, spans: Iterable[Span]) -> list[list[Span]]:
        kinds: defaultdict[int, list[Span]] = defaultdict(list)
        for span in spans:
            kinds[self._kinds[span.id]].append(span)
        return list(kinds.values())

    def parent(self, span: Span) -> Span | None:
        """Return the parent of ``span``, if it was seen."""
        return None if span.parent is None else self.spans.get(span.parent)

    def below(self, branch: Sequence[Span]) -> list[list[Span]]:
        """Return the children of the spans of ``branch``, which are alike, by kind."""
        return self._alike(child for span in branch for child in self._children.get(span.id, ()))

    def size(self, span: Span) -> int:
        """Return how many spans there are below ``span``."""
        found = [span]
        for each in found:
            found += self._children.get(each.id, ())
        return len(found) - 1

    def tree(
        self, roots: Sequence[Span], *, depth: int = 20, rows: int = 200
    ) -> tuple[list[Branch], int]:
        """Return the branches of ``roots``, which are alike, from above, and the number left out.

        Spans deeper than ``depth`` are folded into their branch. At most ``rows`` branches are
        returned; the number is that of the spans in the others.
        """
        drawn: list[Branch] = []
        pending = [Branch(roots, len(roots), 0, ())]
        while pending and len(drawn) < rows:
            branch = pending.pop()
            families = self.below(branch.spans)
            if families and branch.depth >= depth:
                folded = sum(map(self.size, branch.spans))
                drawn.append(dataclasses.replace(branch, folded=folded))
                continue
            drawn.append(branch)
            for family in reversed(families):
                pending.append(
                    Branch(
                        family,
                        len(family) // len(branch.spans),
                        branch.depth + 1,
                        (family is families[-1], *branch.lasts),
                    )
                )
        return drawn, sum(1 + self.size(span) for branch in pending for span in branch.spans)
