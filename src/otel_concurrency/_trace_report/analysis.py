"""Makes a report of the events that the observers of all processes tell of.

It keeps the first spans and hand-offs up to a limit, and counts the rest. What it says of lost
parents, of leaks and of call sites is about all of them.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from otel_concurrency._trace_report import explanations, processes
from otel_concurrency._trace_report.model import (
    CallSite,
    HandOff,
    Leak,
    Link,
    Orphan,
    Process,
    Report,
    Span,
    SpanId,
)

_KINDS = ("traces", "spans", "hand_offs", "orphans")

LIMIT = 200_000
"""How many spans are kept by default, and how many hand-offs."""

_MOST_LINES = 10_000
"""How many lines of the program are counted separately, for each kind of entry."""

_SAMPLE = 512
"""How many of the times that work has waited are kept of a call site."""


class _CallSite:
    """The hand-offs from one line."""

    __slots__ = ("carried", "count", "longest", "waits", "waits_seen")

    def __init__(self) -> None:
        self.count = 0
        self.carried = 0
        self.waits: list[int] = []
        self.waits_seen = 0
        self.longest: int | None = None

    def waited(self, waited: int, chance: random.Random) -> None:
        """Add one to the sample, in which each that was seen is as likely as any other."""
        self.longest = waited if self.longest is None else max(self.longest, waited)
        self.waits_seen += 1
        if len(self.waits) < _SAMPLE:
            self.waits.append(waited)
        elif (place := chance.randrange(self.waits_seen)) < _SAMPLE:
            self.waits[place] = waited


def _percentile(waits: Sequence[int], part: float) -> int | None:
    return sorted(waits)[min(int(len(waits) * part), len(waits) - 1)] if waits else None


class _Leaks:
    """The leaks so far: those of one reason and one line are one, however often it happens."""

    def __init__(self) -> None:
        self._leaks: dict[tuple[str, str | None], Leak] = {}
        self._keys: dict[str, tuple[str, str | None]] = {}

    def __len__(self) -> int:
        return len(self._leaks)

    def add(self, event: Mapping[str, Any]) -> None:
        """Take the facts of one; by its key it may turn out to be none."""
        place = event["reason"], event["site"]
        known = self._leaks.get(place)
        span = _span_id(event["span"])
        if known is None:
            if len(self._leaks) >= _MOST_LINES:
                return
            reason = explanations.of_leak(event)
            self._leaks[place] = Leak(
                reason.name, reason.words, reason.advice, reason.site, span, event.get("count", 1)
            )
        elif event["key"] in self._keys:
            self._leaks[place] = replace(known, span=known.span or span)
            return
        else:
            self._leaks[place] = replace(
                known, span=known.span or span, count=known.count + event.get("count", 1)
            )
        self._keys[event["key"]] = place

    def take_back(self, key: str) -> None:
        """Forget one: it was late, but it was mended."""
        place = self._keys.pop(key, None)
        known = None if place is None else self._leaks.get(place)
        if place is None or known is None:
            return
        if known.count > 1:
            self._leaks[place] = replace(known, count=known.count - 1)
        else:
            del self._leaks[place]

    def all(self) -> tuple[Leak, ...]:
        return tuple(self._leaks.values())


class _Ending:
    """How a process ended, and the spans that it had still to export."""

    __slots__ = ("call", "pending", "site")

    def __init__(self) -> None:
        self.pending: Counter[str] = Counter()
        """By the processor that has kept them."""
        self.call: str | None = None
        self.site: str | None = None


class Collection:
    """Takes events as they come, in any order of processes, and reports on them at any time."""

    def __init__(self, limit: int = LIMIT) -> None:
        self._limit = limit
        self._started_ns = time.time_ns()
        self._processes: dict[int, Process] = {}
        self._spans: dict[SpanId, Span] = {}
        self._hand_offs: dict[str, HandOff] = {}
        self._call_sites: dict[tuple[str, str, str], _CallSite] = {}
        self._orphans: list[Orphan] = []
        self._leaks = _Leaks()
        self._endings: dict[int, _Ending] = {}
        self._replaced: list[tuple[int, _Ending]] = []
        """Of processes that have become another program, or left their number to one."""
        self._born_at: dict[int, str] = {}
        self._off: set[int] = set()
        """The processes in which the library was kept off."""
        self._traces: set[str] = set()
        self._incomplete: set[str] = set()
        """The traces of which spans are kept, and of which spans were dropped."""
        self._counts: Counter[str] = Counter()
        self._dropped: Counter[str] = Counter()
        self._chance = random.Random(0)  # noqa: S311 - a sample

    def feed(self, event: Mapping[str, Any]) -> None:
        """Take one event of an observer. An unknown one is ignored."""
        handler = getattr(self, f"_{event['event']}", None)
        if handler is not None:
            handler(event)

    def counts(self) -> Mapping[str, int]:
        """Return how many spans, hand-offs, traces, orphans, leaks, processes there were."""
        names = ("spans", "hand_offs", "traces", "orphans", "processes")
        return {**{name: self._counts[name] for name in names}, "leaks": len(self._leaks)}

    def report(
        self, command: Sequence[str] = (), library: bool = True, exit_status: int | None = None
    ) -> Report:
        """Return what was seen so far."""
        return Report(
            command=tuple(command),
            library=library,
            exit_status=exit_status,
            started_ns=self._started_ns,
            ended_ns=time.time_ns(),
            processes=tuple(self._processes.values()),
            spans=tuple(self._spans.values()),
            hand_offs=tuple(self._hand_offs.values()),
            orphans=tuple(self._orphans),
            leaks=(*self._leaks.all(), *self._not_exported()),
            call_sites=tuple(
                CallSite(
                    *key,
                    count=site.count,
                    with_context=site.carried,
                    wait_p50_ns=_percentile(site.waits, 0.5),
                    wait_p95_ns=_percentile(site.waits, 0.95),
                    wait_max_ns=site.longest,
                )
                for key, site in self._call_sites.items()
            ),
            dropped={kind: self._dropped[kind] for kind in _KINDS if self._dropped[kind]},
            incomplete=tuple(sorted(self._incomplete)),
        )

    def _keep(self, kind: str, kept: Mapping[Any, Any] | Sequence[Any]) -> bool:
        self._counts[kind] += 1
        if len(kept) < self._limit:
            return True
        self._dropped[kind] += 1
        return False

    def _process(self, event: Mapping[str, Any]) -> None:
        pid = event["pid"]
        if pid in self._endings:
            self._replaced.append((pid, self._endings.pop(pid)))
        self._counts["processes"] += pid not in self._processes
        if not event.get("library", True):
            self._off.add(pid)
        self._processes[pid] = Process(pid, event["parent"], event["command"], event["at_ns"])

    def _process_end(self, event: Mapping[str, Any]) -> None:
        process = self._processes.get(event["pid"])
        if process is not None:
            self._processes[event["pid"]] = replace(process, ended_ns=event["at_ns"])
        ending = self._ending(event["pid"])
        ending.call, ending.site = event.get("call"), event.get("site")

    def _ending(self, pid: int) -> _Ending:
        return self._endings.setdefault(pid, _Ending())

    def _queued(self, event: Mapping[str, Any]) -> None:
        self._ending(event["pid"]).pending[event["processor"]] += 1

    def _exported(self, event: Mapping[str, Any]) -> None:
        self._ending(event["pid"]).pending[event["processor"]] -= event["count"]

    def _not_exported(self) -> tuple[Leak, ...]:
        """Return what has been lost with processes that are not there any more."""
        lost = _Leaks()
        ended = ((pid, ending) for pid, ending in self._endings.items() if not self._runs(pid))
        for pid, ending in (*self._replaced, *ended):
            count = max(ending.pending.values(), default=0)
            if count > 0:
                site = ending.site or self._born_at.get(pid)
                lost.add(
                    {
                        "key": str(pid),
                        "reason": "not_exported",
                        "pid": pid,
                        "count": count,
                        "call": ending.call,
                        "site": site,
                        "span": None,
                    }
                )
        return lost.all()

    def _runs(self, pid: int) -> bool:
        process = self._processes.get(pid)
        return (process is None or process.ended_ns is None) and processes.is_there(pid)

    def _leak(self, event: Mapping[str, Any]) -> None:
        self._leaks.add({**event, "library": self._has_library(event)})

    def _has_library(self, event: Mapping[str, Any]) -> bool:
        return event["pid"] not in self._off

    def _leak_over(self, event: Mapping[str, Any]) -> None:
        self._leaks.take_back(event["key"])

    def _hand_off(self, event: Mapping[str, Any]) -> None:
        facts = event["hand_off"]
        site = self._call_site(facts)
        site.count += 1
        site.carried += facts["carried"]
        if self._keep("hand_offs", self._hand_offs):
            self._hand_offs[facts["id"]] = HandOff(
                id=facts["id"],
                primitive=facts["primitive"],
                call=facts["call"],
                site=facts["site"],
                at_ns=facts["at_ns"],
                pid=facts["pid"],
                thread=facts["thread"],
                policy=facts["policy"],
                origin=_span_id(facts["origin"]),
                carried=facts["carried"],
            )

    def _call_site(self, facts: Mapping[str, Any]) -> _CallSite:
        key = facts["primitive"], facts["call"], facts["site"]
        if key not in self._call_sites and len(self._call_sites) >= _MOST_LINES:
            return _CallSite()
        return self._call_sites.setdefault(key, _CallSite())

    def _attach(self, event: Mapping[str, Any]) -> None:
        facts = event["of"]
        if event["pid"] != facts["pid"]:
            self._born_at.setdefault(event["pid"], facts["site"])
        kept = self._hand_offs.get(event["id"])
        if kept is not None and kept.attached_ns is not None:
            return  # by another process before: one of several parts of it
        site = self._call_site(facts)
        site.carried += event["carried"] - facts["carried"]
        if event.get("site") is None:
            site.waited(max(event["at_ns"] - facts["at_ns"], 0), self._chance)
        if kept is not None:
            self._hand_offs[event["id"]] = replace(
                kept,
                carried=event["carried"],
                attached_ns=event["at_ns"],
                to_pid=event["pid"],
                to_thread=event["thread"],
                to_site=event.get("site"),
            )

    def _brought(self, span: SpanId, parent: SpanId | None, hand_off: str | None) -> str | None:
        """Return ``hand_off``, which is the last one that the flow of ``span`` has picked up.

        None if it cannot have brought the span's work, since it is of no trace or of another one.
        Then the work came by hand or by an adapter, which is not seen, and the last hand-off that
        was seen may be the start of the worker.
        """
        kept = self._hand_offs.get(hand_off or "")
        if kept is None or parent is None:
            return hand_off
        origin = kept.origin
        return None if origin is None or origin.trace_id != span.trace_id else hand_off

    def _span(self, event: Mapping[str, Any]) -> None:
        span_id = SpanId(*event["id"])
        parent = _span_id(event["parent"])
        self._counts["traces"] += parent is None
        suspect = event["suspect"]
        if suspect is not None and self._keep("orphans", self._orphans):
            facts = {"site": event["site"], "library": self._has_library(event)}
            reason = explanations.of({**suspect, **facts})
            self._orphans.append(
                Orphan(
                    span_id,
                    reason.name,
                    reason.words,
                    reason.advice,
                    reason.site,
                    _span_id(suspect["origin"]),
                )
            )
        if self._keep("spans", self._spans):
            self._traces.add(span_id.trace_id)
            self._spans[span_id] = Span(
                id=span_id,
                parent=parent,
                name=event["name"],
                start_ns=event["start_ns"],
                kind=event["kind"],
                links=_links(event["links"]),
                pid=event["pid"],
                thread=event["thread"],
                task=event["task"],
                site=event["site"],
                hand_off=self._brought(span_id, parent, event["hand_off"]),
            )
        elif parent is None:
            self._dropped["traces"] += 1
        elif span_id.trace_id in self._traces:
            self._incomplete.add(span_id.trace_id)

    def _span_end(self, event: Mapping[str, Any]) -> None:
        span_id = SpanId(*event["id"])
        span = self._spans.get(span_id)
        if span is not None:
            self._spans[span_id] = replace(
                span,
                name=event["name"],
                end_ns=event["end_ns"],
                status=event["status"],
                attributes=event["attributes"],
                links=_links(event["links"]),
            )


def _span_id(given: Any) -> SpanId | None:
    return None if given is None else SpanId(given[0], given[1])


def _links(given: Sequence[Mapping[str, Any]]) -> tuple[Link, ...]:
    return tuple(Link(SpanId(*one["to"]), one["reason"], one["primitive"]) for one in given)
