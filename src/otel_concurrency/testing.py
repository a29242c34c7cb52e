"""Tests that a program keeps its traces together, with pytest or without.

::

    from otel_concurrency import testing

    with testing.watch() as spans:
        place_order()
        spans.wait_for("send_receipt")
    spans.assert_connected()

Under pytest the fixture ``spans`` does the same. A failing assertion prints the spans as a tree, in
which the break is marked, with the line that is at fault and what to do.

All spans of this process are seen, from any tracer provider of the SDK; spans of other processes
are not. It needs ``opentelemetry-sdk``, which the extra ``cli`` installs.
"""

from __future__ import annotations

import os
import re
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, Protocol, overload

from opentelemetry import context as context_api
from opentelemetry import trace
from opentelemetry.context import Context

from otel_concurrency import _instrumentor
from otel_concurrency._instrumentor import ConcurrencyInstrumentor
from otel_concurrency._observer import context_hooks, observer, state
from otel_concurrency._observer.shared import Shared
from otel_concurrency._trace_report.analysis import Collection
from otel_concurrency._trace_report.model import HandOff, Leak, Link, Orphan, Report, Span, SpanId
from otel_concurrency._trace_report.outline import outline

__all__ = [
    "ContextLeakError",
    "HandOff",
    "Leak",
    "Link",
    "Orphan",
    "Report",
    "Span",
    "SpanId",
    "Spans",
    "StartedSpan",
    "no_leaks",
    "watch",
]

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from otel_concurrency._settings import Keywords

_PAUSE = 0.005
"""Seconds between two checks while waiting for spans."""


class ContextLeakError(AssertionError):
    """A context was left attached."""


class StartedSpan(Protocol):
    """A span of OpenTelemetry: the API's ``Span``, or the SDK's ``Span`` or ``ReadableSpan``."""

    def get_span_context(self) -> trace.SpanContext | None:
        """Return the span's identifiers."""


class Spans(Sequence[Span]):
    """The spans that were started while it watched, in the order of their start.

    Where a method takes a span, it accepts a name, a :class:`Span`, or an OpenTelemetry span. If
    several spans have the name, the assertion must hold for each of them.
    """

    def __init__(self) -> None:
        self._events: deque[dict[str, Any]] = deque()
        self._collection = Collection()

    def report(self) -> Report:
        """Return everything that was seen so far."""
        while self._events:
            self._collection.feed(self._events.popleft())
        return self._collection.report()

    def clear(self) -> None:
        """Discard everything that was seen so far."""
        self._events.clear()
        self._collection = Collection()

    @overload
    def __getitem__(self, index: int) -> Span: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Span]: ...
    def __getitem__(self, index: int | slice) -> Span | Sequence[Span]:
        return self.report().spans[index]

    def __len__(self) -> int:
        return len(self.report().spans)

    def __iter__(self) -> Iterator[Span]:
        return iter(self.report().spans)

    def named(self, name: str) -> tuple[Span, ...]:
        """Return the spans that are called ``name``."""
        return tuple(span for span in self if span.name == name)

    def wait_for(self, *names: str, timeout: float = 10) -> None:
        """Wait until a span of each name has ended.

        If a name is given twice, it waits for two spans of that name. Raises AssertionError after
        ``timeout`` seconds.
        """
        __tracebackhide__ = True
        deadline = time.monotonic() + timeout
        while True:
            missing = list(names)
            for span in self:
                if span.end_ns is not None and span.name in missing:
                    missing.remove(span.name)
            if not missing:
                return
            if time.monotonic() > deadline:
                spelled = ", ".join(map(repr, missing))
                _fail(f"no span {spelled} has ended in {timeout:g} s", self.report())
            time.sleep(_PAUSE)

    def assert_connected(self, *spans: str | Span | StartedSpan) -> None:
        """Fail unless the given spans, or all spans if none is given, belong to one trace."""
        __tracebackhide__ = True
        report = self.report()
        chosen = [one for given in spans for one in _find(given, report)] if spans else report.spans
        traces = {span.id.trace_id for span in chosen}
        if len(traces) == 1:
            return
        if not chosen:
            _fail("no span was started", report)
        main = chosen[0].id.trace_id
        roots = {
            span.id: f"a trace of its own, apart from {chosen[0].name!r}"
            for span in report.spans
            if span.id.trace_id in traces - {main} and _is_top(span, report)
        }
        _fail(f"the spans are not connected: they are {len(traces)} traces", report, roots)

    def assert_parent(
        self, child: str | Span | StartedSpan, parent: str | Span | StartedSpan | None
    ) -> None:
        """Fail unless ``child`` is a child of ``parent``, or a root span if ``parent`` is None."""
        __tracebackhide__ = True
        report = self.report()
        parents = {span.id for span in _find(parent, report)} if parent is not None else None
        wrong = {
            span.id: f"{_should_be(parent)}: {_its_parent(span, report)}"
            for span in _find(child, report)
            if (span.parent is not None if parents is None else span.parent not in parents)
        }
        if wrong:
            expected = (
                "is not a root span" if parent is None else f"is not a child of {_name(parent)}"
            )
            _fail(f"{_name(child)} {expected}", report, wrong)

    def assert_linked(self, span: str | Span | StartedSpan, to: str | Span | StartedSpan) -> None:
        """Fail unless ``span`` has a link to the span ``to``."""
        __tracebackhide__ = True
        report = self.report()
        targets = {target.id for target in _find(to, report)}
        wrong = {
            one.id: f"not linked to {_name(to)}"
            for one in _find(span, report)
            if not targets & {link.to for link in one.links}
        }
        if wrong:
            _fail(f"{_name(span)} is not linked to {_name(to)}", report, wrong)

    def assert_no_orphans(self) -> None:
        """Fail if a span in work that was handed off has lost its parent."""
        __tracebackhide__ = True
        report = self.report()
        if report.orphans:
            many = len(report.orphans)
            _fail(f"{many} span{'s have' if many > 1 else ' has'} lost the parent", report)

    def assert_no_leaks(self) -> None:
        """Fail if a context has outlived its work, or telemetry was lost."""
        __tracebackhide__ = True
        report = self.report()
        if report.leaks:
            raise AssertionError(_leaks(report.leaks))

    def assert_no_wrong_parents(self) -> None:
        """Fail if a span is the child of a span that belongs to other work.

        That is another request, connection, item or round, or the consumer of a generator.
        """
        __tracebackhide__ = True
        report = self.report()
        leaks = [leak for leak in report.leaks if leak.is_wrong_parent]
        if leaks:
            marked = {leak.span: "wrong parent" for leak in leaks if leak.span}
            _fail(f"a span has the parent of other work\n{_leaks(leaks)}", report, marked)


def unknown_settings(given: Iterable[str]) -> list[str]:
    """Return those of the keywords ``given`` that :func:`watch` does not take, in their order."""
    return _instrumentor.unknown_keywords(keyword for keyword in given if keyword != "library")


@contextmanager
def watch(*, library: bool = True, **settings: Unpack[Keywords]) -> Generator[Spans, None, None]:
    """Watch this process, and return the spans that are started inside the ``with`` block.

    The library is on inside the block. If it is on already it stays as it is, unless there are
    ``settings`` (keywords of ``instrument()``), which then apply. With ``library=False`` it is off,
    which shows what gets lost without it. Afterwards its previous state is restored. A program
    without a tracer provider gets one inside the block. Raises ImportError without
    ``opentelemetry-sdk``.
    """
    from otel_concurrency._observer import lent

    with ExitStack() as stack:
        try:
            stack.enter_context(lent.provider())
        except ImportError as error:
            raise ImportError(
                "otel_concurrency.testing needs opentelemetry-sdk. Install the extra 'cli': "
                "python -m pip install 'otel-concurrency[cli]'"
            ) from error
        spans = stack.enter_context(_seen(library))
        stack.enter_context(_switched(library, settings))
        yield spans


_switching, _observing = Shared(), Shared()


@contextmanager
def _switched(library: bool, settings: Mapping[str, Any]) -> Generator[None, None, None]:
    """Switch the library on or off as requested, and restore its previous state afterwards."""
    instrumentor = ConcurrencyInstrumentor()
    is_on = instrumentor.is_instrumented_by_opentelemetry

    def switch_on() -> Callable[[], None]:
        instrumentor.instrument(**settings)
        off: Callable[[], None] = instrumentor.uninstrument
        return off

    with ExitStack() as stack:
        if is_on and (settings or not library):
            stack.enter_context(_instrumentor.set_aside())
            if library:
                switch_on()
        elif library and (_switching.is_used or not is_on):
            stack.enter_context(_switching.used(switch_on))
        yield


@contextmanager
def no_leaks() -> Generator[None, None, None]:
    """Raise ContextLeakError if the ``with`` block leaves a context attached, here or on a worker.

    The context of this flow is restored. An exception from the block propagates unchanged.
    """
    before = context_api.get_current()
    words: list[str] = []
    with _seen(library=ConcurrencyInstrumentor().is_instrumented_by_opentelemetry) as spans:
        try:
            yield
        finally:
            after = context_api.get_current()
            if after is not before:
                words.append(_left_attached(before, after))
                context_api.attach(before)
    leaks = [leak for leak in spans.report().leaks if leak.reason == "left_attached"]
    if leaks:
        words.append(_leaks(leaks))
    if words:
        raise ContextLeakError("\n".join(words))


_watches: list[Spans] = []
"""The watches that are in progress."""

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_watches.clear)


@contextmanager
def _seen(library: bool) -> Generator[Spans, None, None]:
    """Yield a new ``Spans``, which gets the events of this process inside the ``with`` block."""
    spans = Spans()
    with _observing.used(lambda: _observe(library)):
        _watches.append(spans)
        try:
            yield spans
        finally:
            if spans in _watches:
                _watches.remove(spans)


def _observe(library: bool) -> Callable[[], None]:
    """Start observing this process, and return what stops it.

    If ``otel-concurrency trace`` observes it already, its events are also sent here.
    """
    other = state.emit
    if other is None:
        observer.start(_tell, library=library)
        return observer.stop
    state.emit = _also(other)

    def leave() -> None:
        state.emit = other

    return leave


def _tell(event: dict[str, Any]) -> None:
    for spans in tuple(_watches):
        spans._events.append(event)  # pyright: ignore[reportPrivateUsage]  # takes no lock


def _also(other: Callable[[dict[str, Any]], None]) -> Callable[[dict[str, Any]], None]:
    def tell(event: dict[str, Any]) -> None:
        _tell(event)
        other(event)

    return tell


# Messages.

_UNIQUE = re.compile(r"-[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")
"""The suffix that OpenTelemetry appends to the name of a context key."""


def _fail(words: str, report: Report, marked: Mapping[SpanId, str] | None = None) -> None:
    __tracebackhide__ = True
    drawn = outline(report, marked)
    raise AssertionError(f"{words}\n\n{drawn}" if drawn else words)


def _find(given: str | Span | StartedSpan, report: Report) -> Sequence[Span]:
    """Return the spans that ``given`` names; fail where there is none."""
    __tracebackhide__ = True
    if isinstance(given, str):
        found = [span for span in report.spans if span.name == given]
    else:
        span_id = given.id if isinstance(given, Span) else _id_of(given)
        found = [span for span in report.spans if span.id == span_id]
    if not found:
        _fail(f"there is no span {_name(given)}", report)
    return found


def _id_of(span: StartedSpan) -> SpanId:
    own = span.get_span_context() or trace.INVALID_SPAN_CONTEXT
    return SpanId(trace.format_trace_id(own.trace_id), trace.format_span_id(own.span_id))


def _name(given: object) -> str:
    return repr(given if given is None or isinstance(given, str) else getattr(given, "name", given))


def _is_top(span: Span, report: Report) -> bool:
    return span.parent is None or all(span.parent != one.id for one in report.spans)


def _should_be(parent: object) -> str:
    return "should be a root" if parent is None else f"should be a child of {_name(parent)}"


def _its_parent(span: Span, report: Report) -> str:
    if span.parent is None:
        return "it has no parent"
    names = [one.name for one in report.spans if one.id == span.parent]
    return f"its parent is {names[0]!r}" if names else "its parent was not seen here"


def _leaks(leaks: Sequence[Leak]) -> str:
    lines = [f"  {' '.join(filter(None, (leak.words, leak.advice)))}" for leak in leaks]
    return "\n".join((f"{len(leaks)} leak{'s' if len(leaks) > 1 else ''}:", *lines))


def _left_attached(before: Context, after: Context) -> str:
    """Return a message on how the context at the end differs from the context at the start."""
    names: list[str] = []
    span: Any = trace.get_current_span(after)
    if span is not trace.get_current_span(before):
        names.append(f"the span {getattr(span, 'name', '?')!r}")
    names += [
        _UNIQUE.sub("", key)
        for key, value in after.items()
        if value is not before.get(key) and value is not span
    ]
    what = f", with {', '.join(names)}" if names else ""
    by = context_hooks.attached_here(after)
    where = "" if by is None else f" at {by.site}"
    return f"a context was left attached{where}{what}: detach it in a `finally`, or use a `with`"
