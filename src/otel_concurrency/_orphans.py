"""Logs root spans in work that was handed off inside a span, if a setting asks for it.

Such a span has probably lost its parent. A line of log in production tells that, and where to look;
``otel-concurrency trace`` tells why. A false alarm is worse than a missing line, so nothing is
logged for work that starts clean, that has a link to its origin, or that did get its context.

This module is imported only if the setting is on.
"""

from __future__ import annotations

import functools
import logging
import os
import threading
import time
import weakref
from _thread import get_ident
from collections import OrderedDict
from collections.abc import Callable
from types import ModuleType
from typing import Any

from opentelemetry.trace import Link, SpanKind, get_current_span

from otel_concurrency._core import frames, handoff
from otel_concurrency._core.callers import caller
from otel_concurrency._core.handoff import Seam
from otel_concurrency._core.patching import Layer, Patch
from otel_concurrency._linking import origins, root_places

_logger = logging.getLogger(__name__)

INTERVAL = 3600.0
"""How long (s) no second line is logged for the same place."""

_MOST_PLACES = 1000
"""The maximum number of places that are remembered. The one logged longest ago is dropped first."""

_ENTRIES = (SpanKind.SERVER, SpanKind.CONSUMER)
"""The kinds of spans that normally start a trace."""

Matcher = Callable[[Any], bool]

starts_clean: dict[str, Matcher | None] = {}
"""By setting: the predicate for work that starts clean, which is not noted."""


class Start:
    """Where a thread was started, or a task submitted, and inside which span."""

    __slots__ = ("lives_on", "site", "span")

    def __init__(self, site: str, span: str) -> None:
        self.site = site
        self.span = span
        self.lives_on = False
        """Whether it starts spans long after that span has ended."""


class _Notes:
    """A note for each of some objects, by identity, as long as the object lives."""

    def __init__(self) -> None:
        self._notes: dict[int, tuple[weakref.ref[Any], Start]] = {}

    def add(self, work: Any, start: Start) -> None:
        key = id(work)
        self._notes[key] = weakref.ref(work, lambda _: self._forget(key)), start

    def _forget(self, key: int) -> None:
        self._notes.pop(key, None)

    def find(self, work: Any) -> Start | None:
        found = self._notes.get(id(work))
        return found[1] if found is not None and found[0]() is work else None

    def __len__(self) -> int:
        return len(self._notes)


noted = _Notes()
"""The threads and tasks that were started inside a span."""

_logged: OrderedDict[str, float] = OrderedDict()
"""By place: when (s, monotonic) the last line about it was logged."""

_lock = threading.RLock()  # a finalizer may start a span while it is held


def forget() -> None:
    """Report every place anew."""
    _logged.clear()


def _begin() -> None:
    global _lock  # noqa: PLW0603
    _lock = threading.RLock()  # another thread of the parent may have held it


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin)


# Where work is handed off.


def _thread_layers(module: ModuleType, seam: Seam) -> list[Patch]:
    return [Layer(module.Thread, "start", lambda raw: _start(raw, seam))]


def _pool_layers(module: ModuleType, seam: Seam) -> list[Patch]:
    # While `FUTURES` is on, the class in the module is a subclass that this library has made.
    plain = getattr(module._WorkItem, "stands_in_for", module._WorkItem)
    return [Layer(plain, "__init__", lambda raw: _init(raw, seam))]


MODULES = {"threading": _thread_layers, "concurrent.futures.thread": _pool_layers}


def _start(original: Any, seam: Seam) -> Any:
    @functools.wraps(original)
    def start(self: Any) -> Any:
        if seam.active:
            _note(self, "threading", self)
        return original(self)

    return start


def _init(original: Any, seam: Seam) -> Any:
    @functools.wraps(original)
    def init(self: Any, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        if seam.active:
            _note(self, "futures", self.task[0] if hasattr(self, "task") else self.fn)

    return init


def _note(work: Any, setting: str, named: Any) -> None:
    """Note that ``work`` is handed off here, if that is inside a span. Never raises.

    ``named`` is what the table of work that starts clean may name.
    """
    try:
        span: Any = get_current_span()
        name = getattr(span, "name", None)  # a span that is not sampled has none
        matches = starts_clean.get(setting)
        if name is None or (matches is not None and matches(named)):
            return
        site = frames.site(caller())
        if site.line is not None and not site.is_ours:
            noted.add(work, Start(site.line, name))
    except Exception as error:
        handoff.report_fault("note an orphan", error)


# Where a root span starts.


def report(span: Any, kind: Any, links: Any) -> None:
    """Log that ``span``, a root span with ``links``, has probably lost its parent. May raise."""
    name = getattr(span, "name", None)
    if name is None or getattr(span, "kind", kind) in _ENTRIES:
        return
    start, way = _origin(caller(), links)
    if start is None:
        return
    site = frames.site(caller()).line
    if site is None or not _is_due(site):
        return
    _logger.warning(
        "span `%s` (%s) started a trace of its own on thread `%s`, %s at %s inside `%s`: "
        "`otel-concurrency trace` tells why",
        name,
        site,
        getattr(root_places.thread_here(), "name", get_ident()),
        way,
        start.site,
        start.span,
    )


def _origin(frame: Any, links: Any) -> tuple[Start | None, str]:
    """Return where the work of ``frame`` was started, if it has lost that context, and in words."""
    place = root_places.place(frame)
    if place == root_places.POOL_TASK:
        start, way = _submitted(frame), "in a task that was submitted"
    elif place in (root_places.THREAD, root_places.TIMER):
        start, way = noted.find(root_places.thread_here()), "which was started"
    else:
        return None, ""
    if start is None:
        return None, ""
    if place == root_places.THREAD and any(map(_is_late, links or ())):
        start.lives_on = True
    is_lost = not links and not _has_arrived()
    return (start, way) if is_lost or start.lives_on else (None, "")


def _is_late(link: Link) -> bool:
    return (link.attributes or {}).get(origins.REASON) == "ended"


def _has_arrived() -> bool:
    """Whether the present work of this thread did get a context with a span."""
    body = handoff.bodies.get(get_ident())
    return body is not None and get_current_span(body).get_span_context().is_valid


def _submitted(frame: Any) -> Start | None:
    """Return where the innermost task of a pool, among the callers of ``frame``, was submitted."""
    runner, _ = root_places.innermost_runner(frame)
    while runner is not None:
        start = noted.find(root_places.self_of(runner))
        if start is not None or runner.f_back is None:
            return start
        runner, place = root_places.innermost_runner(runner.f_back)
        if place != root_places.POOL_TASK:  # until 3.13 a task has one such frame, then two
            return None
    return None


def _is_due(place: str) -> bool:
    """Whether a line about ``place`` is to be logged now; note that it is."""
    now = time.monotonic()
    with _lock:
        last = _logged.get(place)
        if last is not None and now - last < INTERVAL:
            return False
        _logged[place] = now
        _logged.move_to_end(place)
        if len(_logged) > _MOST_PLACES:
            _logged.popitem(last=False)
    return True
