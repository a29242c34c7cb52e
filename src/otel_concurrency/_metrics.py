"""Metrics, if they are switched on: the number of hand-offs, their waits, and root spans.

This module is imported only if metrics are switched on. The hot path never checks for that: the
functions of the seams, and ``attach``, are replaced instead. A captured context travels as a copy
that holds the time and the primitive of its capture. It arrives when it is attached first.

Hand-offs happen in finalizers and under locks, even while metrics are collected. So they are
counted here under a reentrant lock, and the counts are read when metrics are collected.
"""

from __future__ import annotations

import functools
import inspect
import os
import sys
import threading
from _thread import get_ident
from collections.abc import Callable, Iterable
from time import perf_counter
from types import FrameType, ModuleType
from typing import Any

from opentelemetry import metrics
from opentelemetry.context import Context
from opentelemetry.metrics import CallbackOptions, Histogram, Observation
from opentelemetry.trace import SpanKind

from otel_concurrency._core import compiled, handoff
from otel_concurrency._core.callers import caller
from otel_concurrency._core.handoff import NO_CONTEXT, Seam
from otel_concurrency._core.patching import Layer, Patch
from otel_concurrency._items.known_queues import is_plumbing
from otel_concurrency._linking import root_places
from otel_concurrency.version import __version__

HAND_OFFS = "otel_concurrency.hand_offs"
WAIT = "otel_concurrency.hand_off.wait"
ROOT_SPANS = "otel_concurrency.root_spans"

PRIMITIVE = "otel_concurrency.primitive"
"""The setting that covers the hand-off: ``futures``, ``queue`` …"""

CARRIED = "otel_concurrency.context_carried"
"""Whether there was a context, which was carried with the work."""

SPAN_KIND = "otel_concurrency.span_kind"
"""The kind of a root span: ``internal``, ``server`` …"""

STARTED_IN = "otel_concurrency.started_in"
"""The kind of work in which a root span was started (see ``_linking.root_places``)."""

LINKED = "otel_concurrency.linked"
"""Whether a root span has a link, as under the policy ``link``, in batches and in rounds."""

_UNMEASURED = ("multiprocessing", "subprocess")
"""Primitives whose waits are not measured: work arrives in another process, or more than once."""

_BOUNDARIES = (0.0001, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10, 60, 300)
"""Advised bucket boundaries of the histogram, in seconds: from an idle pool to an overloaded one.
"""


_OF_THE_SDK = ("opentelemetry.sdk.", "opentelemetry.exporter.")
"""Modules that hand off work of their own, such as resource detection."""

_BETWEEN = ("otel_concurrency.", "concurrent.futures.", "opentelemetry.instrumentation.", "wrapt.")
"""Modules whose frames may lie between such a module and the hand-off."""


class Carried(Context):
    """A captured context that has not arrived yet."""

    meter: Meter
    primitive: str
    since: float | None

    def arrive(self) -> None:
        """Record how long it waited, when it is attached for the first time. Never raises."""
        since, self.since = self.since, None
        if since is not None:
            self.meter.record(perf_counter() - since, self)

    def become(self, context: Context) -> Context:
        """Return a measured copy of ``context``, which a policy has derived from this context."""
        return self.meter.stamp(self.primitive, context, self.since) if context else context


class Meter:
    """Counts and measures hand-offs, for one meter provider."""

    def __init__(self, provider: Any) -> None:
        self.provider = provider
        self._counts: dict[tuple[str, bool], int] = {}
        self._roots: dict[tuple[str, str, bool], int] = {}
        self._measuring: set[int] = set()
        self._lock = threading.RLock()
        meter = metrics.get_meter("otel_concurrency", __version__, provider)
        meter.create_observable_counter(
            HAND_OFFS, [self._observe], "{hand_off}", "Pieces of work that were handed off."
        )
        meter.create_observable_counter(
            ROOT_SPANS, [self._observe_roots], "{span}", "Spans that started without a parent."
        )
        advice: dict[str, Any] = {}
        if (
            "explicit_bucket_boundaries_advisory"
            in inspect.signature(meter.create_histogram).parameters
        ):  # since opentelemetry-api 1.30
            advice["explicit_bucket_boundaries_advisory"] = _BOUNDARIES
        self._wait: Histogram = meter.create_histogram(
            WAIT, "s", "Time from the capture of a context to its attachment.", **advice
        )

    def begin(self) -> None:
        """Start counting from zero, in a process that was forked."""
        self._lock = threading.RLock()
        self._counts.clear()
        self._roots.clear()
        self._measuring.clear()

    def _observe(self, _: CallbackOptions) -> Iterable[Observation]:
        with self._lock:
            counts = dict(self._counts)
        return [
            Observation(count, {PRIMITIVE: primitive, CARRIED: carried})
            for (primitive, carried), count in counts.items()
        ]

    def _observe_roots(self, _: CallbackOptions) -> Iterable[Observation]:
        with self._lock:
            counts = dict(self._roots)
        return [
            Observation(count, {SPAN_KIND: kind, STARTED_IN: place, LINKED: linked})
            for (kind, place, linked), count in counts.items()
        ]

    def count_root(self, span: Any, kind: Any, links: Any) -> None:
        """Count a root span that was started with ``kind`` and ``links``. May raise."""
        kind = getattr(span, "kind", kind) or SpanKind.INTERNAL  # one not sampled has no kind
        place = root_places.place(caller())
        key = kind.name.lower(), place, bool(links)
        with self._lock:
            self._roots[key] = self._roots.get(key, 0) + 1

    def count(self, primitive: str, context: Context | None) -> Any:
        """Count a hand-off; return the context to carry."""
        carried = bool(context)
        with self._lock:
            key = primitive, carried
            self._counts[key] = self._counts.get(key, 0) + 1
        if not context or primitive in _UNMEASURED:
            return context
        return self.stamp(primitive, context, perf_counter())

    def stamp(self, primitive: str, context: Context, since: float | None) -> Carried:
        """Return a copy of ``context`` that holds the time and the primitive of its capture."""
        carried = Carried(context)
        carried.meter, carried.primitive, carried.since = self, primitive, since
        return carried

    def record(self, seconds: float, context: Carried) -> None:
        """Record that ``context`` arrives, unless recording itself attached it. Never raises."""
        thread = get_ident()
        if thread in self._measuring:
            return
        self._measuring.add(thread)
        try:
            self._wait.record(seconds, {PRIMITIVE: context.primitive}, context)
        except Exception as error:
            handoff.report_fault("metrics", error)
        finally:
            self._measuring.discard(thread)

    def measure(self, seam: Seam) -> None:
        """Make ``seam``, which is active, count its hand-offs and measure their waits."""
        name, capture, change = seam.name, seam.capture, seam.change

        def counted(work: object) -> Context | None:
            context = capture(work)
            if context is NO_CONTEXT:
                return context  # a thread that starts clean: it is infrastructure, not work
            if _is_the_sdks(sys._getframe(1)):  # pyright: ignore[reportPrivateUsage]
                return context
            if context is None and seam.starts_clean is not None and seam.starts_clean(work):
                return None
            return self.count(name, context)  # type: ignore[no-any-return]  # as it was given

        def item() -> Context:
            context = handoff.get_current()
            if is_plumbing(sys._getframe(1)):  # pyright: ignore[reportPrivateUsage]
                return context
            return self.count(name, context)  # type: ignore[no-any-return]  # as it was given

        seam.capture, seam.current, seam.concerned = counted, item, _always
        if change is not None:
            seam.change = _changed(change)


def _always() -> bool:
    return True


def _is_the_sdks(frame: FrameType | None) -> bool:
    """Whether the SDK or an exporter hands off its own work, and not the program's."""
    while frame is not None and str(frame.f_globals.get("__name__")).startswith(_BETWEEN):
        frame = frame.f_back
    return frame is not None and str(frame.f_globals.get("__name__")).startswith(_OF_THE_SDK)


def _changed(change: Callable[[Context], Context]) -> Callable[[Context], Context]:
    def changed(context: Context) -> Context:
        made = change(context)
        return context.become(made) if isinstance(context, Carried) else made

    return changed


_last: Meter | None = None


def _begin() -> None:
    if _last is not None:
        _last.begin()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin)


def meter_for(provider: Any) -> Meter:
    """Return the meter for ``provider`` (None: the global one)."""
    global _last  # noqa: PLW0603
    if _last is None or _last.provider is not provider:
        _last = Meter(provider)  # it is kept, since its instruments cannot be removed
    return _last


class _Attach(Layer):
    """The function by which contexts arrive, here and in the compiled part."""

    __slots__ = ()

    def apply(self) -> None:
        super().apply()
        compiled.bind(handoff.__dict__)

    def undo(self) -> None:
        super().undo()
        compiled.bind(handoff.__dict__)


def _layers(module: ModuleType, seam: Seam) -> list[Patch]:
    # It is a function of this library's; on PyPy its parameter has another name.
    return [_Attach(module, "attach", _attach, check_signature=False)]


MODULES = {"otel_concurrency._core.handoff": _layers, "otel_concurrency._items.adoption": _layers}


def _attach(original: Any) -> Any:
    @functools.wraps(original)
    def attach(context: Context) -> Any:
        if isinstance(context, Carried):
            context.arrive()
        return original(context)

    return attach
