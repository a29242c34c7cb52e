"""What a program was seen to do: its spans, the hand-offs between them, and what went wrong.

This is what ``--json`` writes, what the page shows and what a failing test prints. Identifiers of
traces and spans are lower-case hexadecimal, times are Unix nanoseconds, durations nanoseconds, a
*site* is ``file:line``. All of it is plain data.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

VERSION = 1
"""Of the JSON form. It changes when a field changes its meaning or goes."""


class SpanId(NamedTuple):
    """Names one span among all."""

    trace_id: str
    span_id: str


@dataclass(frozen=True)
class Link:
    """A link of a span, and why it is there, where this library has made it."""

    to: SpanId
    reason: str | None = None
    """``policy``, ``ended``, ``periodic`` or ``batch``; None: the program's own."""
    primitive: str | None = None


@dataclass(frozen=True)
class Span:
    """A span that was started."""

    id: SpanId
    parent: SpanId | None
    name: str
    start_ns: int
    end_ns: int | None = None
    """None: it had not ended when the program did."""
    kind: str = "INTERNAL"
    status: str = "UNSET"
    attributes: Mapping[str, Any] = field(default_factory=dict[str, Any])
    links: tuple[Link, ...] = ()
    pid: int = 0
    thread: str = ""
    task: str = ""
    """The name of the asyncio task that it was started in, if any."""
    site: str | None = None
    """Where it was started."""
    hand_off: str | None = None
    """The hand-off by which the work that started it got there, if any."""


@dataclass(frozen=True)
class HandOff:
    """Work that left one flow, and was picked up by another if ``attached_ns`` is not None."""

    id: str
    primitive: str
    """The setting that it goes by: ``threading``, ``queue`` …"""
    call: str
    """What was called, as a user would write it: ``ThreadPoolExecutor.submit``."""
    site: str
    """Where it was called: the first line of the program's own on the way there."""
    at_ns: int
    pid: int
    thread: str
    policy: str = "parent"
    """``parent``, ``link`` or ``off``."""
    origin: SpanId | None = None
    """The span that was current there."""
    carried: bool = False
    """Whether a context went with it."""
    attached_ns: int | None = None
    to_pid: int | None = None
    to_thread: str | None = None
    to_site: str | None = None
    """The line that has resumed a generator; None for all other work."""

    @property
    def waited_ns(self) -> int | None:
        """How long the work has waited to be picked up; None of a generator, which is resumed."""
        if self.attached_ns is None or self.to_site is not None:
            return None
        return max(self.attached_ns - self.at_ns, 0)


@dataclass(frozen=True)
class Orphan:
    """A root span in a flow that the program caused inside another span: it has lost its parent."""

    span: SpanId
    reason: str
    """One word for it, for programs: ``primitive_off``, ``unknown_thread`` …"""
    words: str
    """What happened, in a sentence that names the line at fault."""
    advice: str
    """What to do about it."""
    site: str | None = None
    """The line at fault."""
    origin: SpanId | None = None
    """The span that should have been its parent."""


@dataclass(frozen=True)
class Leak:
    """A context that has outlived its work, or telemetry that was lost."""

    reason: str
    """One word for it: ``left_attached``, ``ended_parent``, ``not_exported`` …"""
    words: str
    advice: str
    site: str | None = None
    span: SpanId | None = None
    """A span that it happened to, if there is one."""
    count: int = 1

    @property
    def is_wrong_parent(self) -> bool:
        """Whether it made a span the child of a span that belongs to other work."""
        return self.span is not None and self.reason != "not_exported"


@dataclass(frozen=True)
class CallSite:
    """All hand-offs of one primitive from one line."""

    primitive: str
    call: str
    site: str
    count: int
    with_context: int
    wait_p50_ns: int | None
    wait_p95_ns: int | None
    wait_max_ns: int | None

    @property
    def without_context(self) -> int:
        """How many carried none."""
        return self.count - self.with_context


@dataclass(frozen=True)
class Process:
    """A process of the program."""

    pid: int
    parent_pid: int | None
    command: str
    started_ns: int
    ended_ns: int | None = None


@dataclass(frozen=True)
class Report:
    """All that was seen of one run of a program."""

    command: tuple[str, ...]
    library: bool
    """Whether this library was on."""
    exit_status: int | None
    started_ns: int
    ended_ns: int
    processes: tuple[Process, ...] = ()
    spans: tuple[Span, ...] = ()
    hand_offs: tuple[HandOff, ...] = ()
    orphans: tuple[Orphan, ...] = ()
    leaks: tuple[Leak, ...] = ()
    call_sites: tuple[CallSite, ...] = ()
    dropped: Mapping[str, int] = field(default_factory=dict[str, int])
    """What was seen and not kept, by kind: ``traces`` (by their roots), ``spans``,
    ``hand_offs``, ``orphans``."""
    incomplete: tuple[str, ...] = ()
    """The traces of which some spans are kept, and others are not."""

    def as_json(self) -> dict[str, Any]:
        """Return it as what :func:`json.dumps` takes, with :data:`VERSION`."""
        return {"version": VERSION, **dataclasses.asdict(self)}
