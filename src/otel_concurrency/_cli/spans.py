"""Spans as they were exported, and how they stand to one another.

Read from the JSON that ``ReadableSpan.to_json()`` of the SDK writes, so that nothing here needs the
SDK, and spans of several processes can be looked at together.
"""

from __future__ import annotations

import enum
import json
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from typing import Any, NamedTuple

_UNIX_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


class SpanId(NamedTuple):
    """Names one span among all: what a parent or a link refers to."""

    trace_id: str
    span_id: str


@dataclass(frozen=True)
class ExportedSpan:
    """An exported span. Identifiers are lower-case hexadecimal, times are Unix nanoseconds."""

    trace_id: str
    span_id: str
    parent_id: str | None
    name: str
    start_ns: int
    end_ns: int
    kind: str = "INTERNAL"
    attributes: Mapping[str, Any] = field(default_factory=dict[str, Any])
    links: tuple[SpanId, ...] = ()
    resource: Mapping[str, Any] = field(default_factory=dict[str, Any])

    @property
    def id(self) -> SpanId:
        """What other spans refer to it by."""
        return SpanId(self.trace_id, self.span_id)

    @property
    def parent(self) -> SpanId | None:
        """The span that it is a child of, which need not have been exported."""
        return None if self.parent_id is None else SpanId(self.trace_id, self.parent_id)

    @property
    def thread(self) -> str:
        """The name of the thread it was started on, or an empty string where it does not say."""
        # Since Python 3.10 an unnamed thread is called "Thread-1 (target)".
        return re.sub(r"^(Thread-\d+) \(.*\)$", r"\1", str(self.attributes.get("thread.name", "")))


def parse(lines: Iterable[str]) -> tuple[ExportedSpan, ...]:
    """Return the spans in ``lines``, each of which holds one as JSON; empty lines are skipped.

    Raises ValueError, KeyError or TypeError for a line that does not hold an exported span.
    """
    return tuple(_span(json.loads(line)) for line in lines if line.strip())


def _span(exported: Mapping[str, Any]) -> ExportedSpan:
    return ExportedSpan(
        trace_id=_hexadecimal(exported["context"]["trace_id"]),
        span_id=_hexadecimal(exported["context"]["span_id"]),
        parent_id=exported["parent_id"] and _hexadecimal(exported["parent_id"]),
        name=exported["name"],
        start_ns=_nanoseconds(exported["start_time"]),
        end_ns=_nanoseconds(exported["end_time"]),
        kind=exported["kind"].removeprefix("SpanKind."),
        attributes=exported["attributes"] or {},
        links=tuple(
            SpanId(
                _hexadecimal(link["context"]["trace_id"]), _hexadecimal(link["context"]["span_id"])
            )
            for link in exported["links"] or ()
        ),
        resource=exported["resource"]["attributes"],
    )


def _hexadecimal(exported: str) -> str:
    return exported.removeprefix("0x")


def _nanoseconds(exported: str) -> int:
    since = datetime.strptime(exported, "%Y-%m-%dT%H:%M:%S.%f%z") - _UNIX_EPOCH
    return since // timedelta(microseconds=1) * 1000


class Standing(enum.Enum):
    """How a span stands to the others."""

    ENTRY = "entry"
    """The root of a trace that is meant to begin here."""

    CHILD = "child"
    """Its parent is among the spans."""

    LINKED = "linked"
    """It begins a new trace, and its link says where it comes from."""

    ORPHAN = "orphan"
    """It begins a new trace, and nothing says where it comes from."""

    DETACHED = "detached"
    """It has a parent, which is not among the spans."""


@dataclass(frozen=True)
class Forest:
    """Spans as trees: each is a root or the child of another. Earlier ones come first."""

    roots: tuple[ExportedSpan, ...]
    children: Mapping[SpanId, tuple[ExportedSpan, ...]]
    standing: Mapping[SpanId, Standing]

    @property
    def spans(self) -> tuple[ExportedSpan, ...]:
        """Every span, roots first."""
        return self.roots + tuple(span for family in self.children.values() for span in family)

    @property
    def orphans(self) -> tuple[ExportedSpan, ...]:
        """The roots of traces that should not exist."""
        return tuple(root for root in self.roots if self.standing[root.id] is Standing.ORPHAN)

    @property
    def traces(self) -> int:
        """How many traces there are, apart from those that are there for an orphan alone."""
        return len({root.trace_id for root in self.roots} - {o.trace_id for o in self.orphans})


def plant(spans: Iterable[ExportedSpan]) -> Forest:
    """Return ``spans`` as trees.

    A trace is meant to begin with a span of kind SERVER or CONSUMER; where there is no such root,
    with the earliest of them. Any other root without a link is an orphan.
    """
    in_order = sorted(spans, key=lambda span: span.start_ns)
    known = {span.id for span in in_order}
    children: defaultdict[SpanId, list[ExportedSpan]] = defaultdict(list)
    roots: list[ExportedSpan] = []
    for span in in_order:
        if span.parent is not None and span.parent in known:
            children[span.parent].append(span)
        else:
            roots.append(span)

    unexplained = [root for root in roots if root.parent_id is None and not root.links]
    served = [root for root in unexplained if root.kind in ("SERVER", "CONSUMER")]
    entries = {root.id for root in served or unexplained[:1]}
    standing = dict.fromkeys(known, Standing.CHILD)
    for root in roots:
        if root.parent_id is not None:
            standing[root.id] = Standing.DETACHED
        elif root.links:
            standing[root.id] = Standing.LINKED
        else:
            standing[root.id] = Standing.ENTRY if root.id in entries else Standing.ORPHAN
    return Forest(
        roots=tuple(roots),
        children={parent: tuple(family) for parent, family in children.items()},
        standing=standing,
    )


def summary(forest: Forest) -> str:
    """Return ``1 trace + 8 orphans`` or, without orphans, ``1 trace, 11 spans, 0 orphans``."""
    traces = _counted(forest.traces, "trace")
    orphans = _counted(len(forest.orphans), "orphan")
    if forest.orphans:
        return f"{traces} + {orphans}"
    return f"{traces}, {_counted(len(forest.spans), 'span')}, {orphans}"


def _counted(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"
