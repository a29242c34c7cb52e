"""What each span is meant to be under, and whether it is: every span is checked as it ends.

A :class:`Job` is handed off, and makes one span. Whoever hands it off writes down beforehand, from
the span that it has in its hands, which one the job's is to be a child of.
"""

from __future__ import annotations

import os
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from opentelemetry import trace
from opentelemetry.context import attach
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider

INTENDED = "intended"
"""The attribute of every span: the id of its parent, less than 0 of a link, 0 of none."""

OPTIONAL = ", cancelled"
"""What the names of spans end with that may or may not come to be."""

RETURN, RAISE, FORGET, CANCEL = "return", "raise", "forget", "cancel"
"""The fates of a job: ``FORGET`` is to leave a context attached."""

Tally = tuple["Counter[str]", "Counter[str]", "Counter[str]", list[str]]
"""Hand-offs, spans and mistakes by kind, and the first mistakes in words."""

ENOUGH = 20
"""How many mistakes are told in full."""


class FailureError(Exception):
    """What a job raises whose fate that is."""


class Ledger(SpanProcessor):
    """Counts hand-offs and spans, and notes every span that is not where it is meant to be."""

    def __init__(self) -> None:
        self._forget()
        os.register_at_fork(after_in_child=self._forget)

    def _forget(self) -> None:
        self._lock = threading.Lock()
        self.handed: Counter[str] = Counter()
        self.ended: Counter[str] = Counter()
        self.wrong: Counter[str] = Counter()
        self.told: list[str] = []

    def hand(self, kind: str) -> None:
        """Count a hand-off."""
        with self._lock:
            self.handed[kind] += 1

    def drop(self, kind: str) -> None:
        """Take back a hand-off that was refused."""
        with self._lock:
            self.handed[kind] -= 1

    def on_end(self, span: ReadableSpan) -> None:
        """Check a span."""
        attributes: Any = span.attributes
        intended = attributes[INTENDED]
        parent = span.parent
        found = 0 if parent is None else parent.span_id
        if parent is None and span.links:
            found = -span.links[0].context.span_id
        with self._lock:
            self.ended[span.name] += 1
        if found != intended:
            self.mistake(span.name, f"is under {found:x}, and meant to be under {intended:x}")

    def mistake(self, kind: str, what: str) -> None:
        """Note what is wrong."""
        with self._lock:
            self.wrong[kind] += 1
            if len(self.told) < ENOUGH:
                self.told.append(f"{kind}: {what}")

    def missing(self) -> Counter[str]:
        """Return how many spans of each kind are still to come; of the optional ones none is."""
        with self._lock:
            return Counter(
                {
                    kind: self.handed[kind] - self.ended[kind]
                    for kind in {*self.handed, *self.ended}
                    if self.handed[kind] != self.ended[kind] and not kind.endswith(OPTIONAL)
                }
            )

    def waiting(self) -> int:
        """Return how many spans are still to come."""
        return sum(self.missing().values())

    def settle(self, seconds: float) -> Counter[str]:
        """Wait until no span is missing; return what does not add up then, or when time is up."""
        deadline = time.monotonic() + seconds
        while any(n > 0 for n in self.missing().values()) and time.monotonic() < deadline:
            time.sleep(0.01)
        return self.missing()

    def give_up(self) -> None:
        """Note the spans that are missing as mistakes, and expect them no more."""
        for kind, count in self.missing().items():
            self.mistake(kind, f"{count} spans never came to be")
            with self._lock:
                self.handed[kind] -= count

    def take(self) -> Tally:
        """Return all that was counted, and begin anew: what a process tells the one it is from."""
        with self._lock:
            tally = self.handed, self.ended, self.wrong, self.told
            self.handed, self.ended, self.wrong, self.told = Counter(), Counter(), Counter(), []
        return tally

    def add(self, tally: Tally) -> None:
        """Count what another process has counted."""
        handed, ended, wrong, told = tally
        with self._lock:
            self.handed += handed
            self.ended += ended
            self.wrong += wrong
            self.told += told[: ENOUGH - len(self.told)]


LEDGER = Ledger()
_provider = TracerProvider(shutdown_on_exit=False)
_provider.add_span_processor(LEDGER)
trace.set_tracer_provider(_provider)  # so that the library flushes it in children
TRACER = trace.get_tracer("soak")

WAYS: dict[str, Callable[[Job], object]] = {}
"""How a job of a kind is handed off in this process."""

LINKED: set[str] = set()
"""The kinds whose spans are linked, and not children: of every covered one under ``link``."""


@dataclass(eq=False)
class Job:
    """One piece of work: a span, and what is handed off in it.

    It has weak references: without them, one that is like another may have no parent (see
    docs/limits.md).
    """

    kind: str
    fate: str = RETURN
    children: tuple[Job, ...] = ()
    intended: int = 0

    @property
    def name(self) -> str:
        """Return the name of the span."""
        return self.kind + OPTIONAL if self.fate == CANCEL else self.kind

    def run(self, *_: object) -> int:
        """Do it: the span's parent is checked as it ends."""
        span = TRACER.start_span(self.name, attributes={INTENDED: self.intended})
        with trace.use_span(
            span, end_on_exit=True, record_exception=False, set_status_on_exception=False
        ):
            for child in self.children:
                hand_off(child, span)
            if self.fate == RAISE:
                raise FailureError
        if self.fate == FORGET:
            attach(trace.set_span_in_context(span))
        return self.intended

    def __lt__(self, other: Job) -> bool:
        return id(self) < id(other)


def hand_off(job: Job, span: trace.Span | None) -> None:
    """Hand ``job`` off where ``span`` is the current one."""
    origin = 0 if span is None else span.get_span_context().span_id
    job.intended = -origin if job.kind in LINKED else origin
    LEDGER.hand(job.name)
    WAYS[job.kind](job)


def outcome(job: Job, future: Any) -> None:
    """Check what the program gets to see of a job that is done."""
    if future.cancelled():
        if job.fate != CANCEL:
            LEDGER.mistake(job.kind, "was cancelled by nobody")
        return
    check(job, future.exception() or future.result())


def check(job: Job, result: Any) -> None:
    """Check what a job has returned, or raised."""
    right = isinstance(result, FailureError) if job.fate == RAISE else result == job.intended
    if not right:
        LEDGER.mistake(job.kind, f"{job.fate} gave {result!r}")
