"""When a consumer adopts the context of an item, and when it lets go of it again.

``get()`` has no natural end, so the rule is conservative. A flow adopts only where it has nothing
of its own going, and goes back to its idle context (the one in which it called ``get``) as soon as
it asks for the next item or says that it is done. Going back is no detach: it compares, and does
nothing where somebody else has attached since.

A context waits beside its item, not in it: see :class:`Pairs`.
"""

from __future__ import annotations

import inspect
import sys
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from types import CodeType, FrameType
from typing import Any, cast

from opentelemetry import trace
from opentelemetry.context import Context, attach
from opentelemetry.trace.propagation import (
    _SPAN_KEY,  # pyright: ignore[reportPrivateUsage]  # a third of trace.get_current_span's cost
)

from otel_concurrency import _handoff
from otel_concurrency._handoff import NO_CONTEXT, Seam, capture_nothing, installed

_PLUMBING = frozenset(
    (
        "concurrent.futures.interpreter",
        "concurrent.futures.process",
        "concurrent.futures.thread",
        "logging.handlers",
        "multiprocessing.managers",
        "multiprocessing.pool",
    )
)
"""Modules of the standard library whose own queues hand nothing off."""


Size = Callable[[Any], int]
"""Takes a queue, returns how many items it holds."""

_PASSED_THROUGH = (
    "asyncio.queues",
    "otel_concurrency._primitives._asyncio",
    "otel_concurrency._primitives._queue",
    "queue",
)


class _Item:
    """An adopted context, the idle one, and what had been installed in the flow before."""

    __slots__ = ("context", "idle", "outer")

    def __init__(self, context: Context, idle: Context, outer: object) -> None:
        self.context = context
        self.idle = idle
        self.outer = outer


def let_go() -> None:
    """Go back to the idle context if the flow still is where its last item put it."""
    item = installed.get()
    if type(item) is not _Item:
        return
    try:
        installed.set(item.outer)
        if _handoff.get_current() is item.context:
            attach(item.idle)
    except Exception as error:
        _handoff.report("let go of an item", error)


def adopt(context: Context | None, get_code: CodeType | None = None) -> None:
    """Make ``context`` current until :func:`let_go`, unless the flow has something of its own.

    None is the context of an item that was put without one. Nothing is adopted where the standard
    library has got the item for itself, nor, with ``get_code``, where the frame two up from here
    runs other code: then the item has not left the queue to a consumer. May raise.
    """
    idle = _handoff.get_current()
    before = installed.get()
    if idle:
        if before is not idle and _is_alive(idle):
            return
    elif not context:
        return
    frame = sys._getframe(2)  # pyright: ignore[reportPrivateUsage]  # documented
    if (get_code is not None and frame.f_code is not get_code) or is_plumbing(frame):
        return
    wanted = context or NO_CONTEXT
    installed.set(_Item(wanted, idle, before))
    attach(wanted)


def adopt_safely(context: Context | None) -> None:
    """Do as :func:`adopt`; never raise."""
    try:
        adopt(context)
    except Exception as error:
        _handoff.report("get", error)


def _is_alive(context: Context) -> bool:
    """Whether ``context`` holds a span that is not known to have ended."""
    span = context.get(_SPAN_KEY)
    if span is None or span is trace.INVALID_SPAN:
        return False
    return getattr(span, "end_time", None) is None


def is_plumbing(frame: FrameType | None) -> bool:
    """Whether the queue operation that ``frame`` is part of was called by the standard library."""
    while frame is not None and frame.f_globals.get("__name__") in _PASSED_THROUGH:
        frame = frame.f_back
    return frame is not None and frame.f_globals.get("__name__") in _PLUMBING


class Accompaniment:
    """Pairs the items of queues with contexts: for one module, ``queue`` or ``asyncio.queues``.

    A queue is accompanied from the first item on that is put to it in a context, by two attributes
    of that one queue which stand before the ``_put`` and ``_get`` of its class. Those run under the
    queue's own lock (or in its event loop), so that every step is paired as it happens, whoever
    overrides them.
    """

    def __init__(self, module: Any, seam: Seam, *, get: Any, size: str) -> None:
        """``get`` is the method of the stock queue that calls ``_get`` for a consumer."""
        self._module = module
        self._seam = seam
        self._get_code = inspect.unwrap(get).__code__
        self._size = size

    def start(self, queue: Any, container: Any) -> None:
        """Accompany ``queue``, whose stock class keeps the items in ``container``.

        To be called under the queue's lock. Raises what the queue's methods raise.
        """
        kind = cast("Any", type(queue))
        size = getattr(kind, self._size)
        pairs = self._pairs_for(kind, container, size(queue))
        remember, take, seam, get_code = pairs.put, pairs.take, self._seam, self._get_code
        plain_put, plain_get = kind._put, kind._get
        reference: Any = weakref.ref(queue)  # an attribute of the queue must not keep it alive

        def _put(item: Any) -> None:
            queue = reference()
            plain_put(queue, item)
            try:
                if seam.capture is capture_nothing:  # uninstrument() came in between
                    del queue._put, queue._get
                else:
                    remember(item, _handoff.get_current(), size, queue)
            except Exception as error:
                _handoff.report("put", error)

        def _get() -> Any:
            queue = reference()
            item = plain_get(queue)
            try:
                if seam.capture is capture_nothing:
                    del queue._put, queue._get
                    let_go()
                    return item
                context = take(item, size(queue))
                if context or _handoff.get_current():
                    adopt(context, get_code)
            except Exception as error:
                _handoff.report("get", error)
            return item

        queue._get = _get
        queue._put = _put

    def _pairs_for(self, kind: Any, container: Any, size: int) -> _Pairs:
        module, methods = self._module, (kind._put, kind._get)
        if methods == (module.Queue._put, module.Queue._get):
            return _OrderedPairs(size, last_first=False)
        if methods == (module.LifoQueue._put, module.LifoQueue._get):
            return _OrderedPairs(size, last_first=True)
        if methods == (module.PriorityQueue._put, module.PriorityQueue._get):
            return _KeyedPairs(size, container)
        return _KeyedPairs(size)


class _Pairs:
    """The contexts of the items that wait in one queue, beside them.

    An item is known by its identity. Whoever uses this tells the queue's size after each step.
    Where that is not what it should be, or another item comes out than the one that is due, then
    somebody has reached into the queue, or a subclass drops, merges or transforms items: all
    contexts are dropped, since a missing parent is better than a wrong one.

    Not thread-safe: to be used under the queue's own lock.
    """

    __slots__ = ()

    def put(self, item: object, context: Context | None, size: Size, queue: object) -> None:
        """Remember the context of an item that has just been put to ``queue``."""
        raise NotImplementedError

    def take(self, item: object, size: int) -> Context | None:
        """Return the context of an item that has just been got; the queue holds ``size`` now."""
        raise NotImplementedError


_UNKNOWN = object()
"""Stands for an item that was in the queue already."""


class _OrderedPairs(_Pairs):
    """For a container that gives the first, or else the last, of its items.

    Refers to the items themselves: so nothing else can have their identity while they are due.
    """

    __slots__ = ("_due", "_next")

    def __init__(self, size: int, *, last_first: bool) -> None:
        self._due: deque[tuple[object, Context | None]] = deque(((_UNKNOWN, None),) * size)
        self._next = self._due.pop if last_first else self._due.popleft

    def put(self, item: object, context: Context | None, size: Size, queue: object) -> None:
        self._due.append((item, context))

    def take(self, item: object, size: int) -> Context | None:
        if len(self._due) == size + 1:
            due, context = self._next()
            if due is item or due is _UNKNOWN:
                return context
        self._due.clear()
        self._due.extend(((_UNKNOWN, None),) * size)
        return None


class _KeyedPairs(_Pairs):
    """For a container that gives its items in an order of its own.

    Identical items are given their contexts in the order in which they were put. While the queue
    holds items from before, or from before contexts were dropped, nothing is remembered: one of
    them might be identical to one that is put now.
    """

    __slots__ = ("_contexts", "_count", "_unknown")

    def __init__(self, size: int, items: Sequence[object] = ()) -> None:
        """Start with ``size`` items in the queue; with ``items`` where they can be looked at."""
        self._contexts: dict[int, Context | deque[Context | None] | None] = {}
        self._count = 0
        self._unknown = size - len(items)
        for item in items:
            self._remember(item, None)

    def put(self, item: object, context: Context | None, size: Size, queue: object) -> None:
        held = size(queue)
        if self._unknown or self._count + 1 != held:
            # Where it has not grown it has dropped the item, or merged it into another.
            if self._unknown or self._count != held:
                self._drop(held)
            return
        self._remember(item, context)

    def _remember(self, item: object, context: Context | None) -> None:
        self._count += 1
        contexts, key = self._contexts, id(item)
        if key not in contexts:
            contexts[key] = context
            return
        several = contexts[key]
        if isinstance(several, deque):
            several.append(context)
        else:
            contexts[key] = deque((several, context))

    def take(self, item: object, size: int) -> Context | None:
        self._count -= 1
        contexts, key = self._contexts, id(item)
        if self._unknown or self._count != size or key not in contexts:
            self._drop(size)
            return None
        several = contexts[key]
        if isinstance(several, deque) and len(several) > 1:
            return several.popleft()
        del contexts[key]
        return several.popleft() if isinstance(several, deque) else several

    def _drop(self, size: int) -> None:
        self._contexts.clear()
        self._count = 0
        self._unknown = size
