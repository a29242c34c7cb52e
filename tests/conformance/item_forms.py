"""The queue classes: every way in which a program hands items from one flow of control to another.

An :class:`ItemForm` says how one of them is used and what can be expected of any such container;
what is expected of the library is in ``test_items.py`` and holds for every form alike. A coroutine
that does not have to wait is driven by hand, so that the asyncio queues go through the same tests,
in flows that are a ``contextvars.Context`` each.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import itertools
import queue
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from forms import WAIT, without_context
from opentelemetry.context import Context
from opentelemetry.trace import Span, Tracer


class Spans:
    """Names spans, and tells whose child a span is that is made here and now."""

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer
        self._names: dict[int, str] = {}

    def start(self, name: str, *, child: bool = False) -> Span:
        """Start a span that is not current: a root, or a ``child`` of the current one."""
        span = self._tracer.start_span(name, context=None if child else Context())
        self._names[span.get_span_context().span_id] = name
        return span

    @contextlib.contextmanager
    def current(self, name: str) -> Iterator[Span]:
        """Open a root span and make it current."""
        with self._tracer.start_as_current_span(name, context=Context()) as span:
            self._names[span.get_span_context().span_id] = name
            yield span

    @contextlib.contextmanager
    def start_as_child(self, name: str, traces: list[int] | None = None) -> Iterator[Any]:
        """Open a span where the flow is, and make it current; note its trace in ``traces``."""
        with self._tracer.start_as_current_span(name) as span:
            self._names[span.get_span_context().span_id] = name
            if traces is not None:
                traces.append(span.get_span_context().trace_id)
            yield span

    def name(self, span: Any) -> str | None:
        """Return the name of the span that has a context; None of none."""
        return None if span is None else self._names[span.span_id]

    def parent(self) -> str | None:
        """Return the name of the parent of a span that is made now; None where it is a root."""
        span: Any = self._tracer.start_span("work")
        span.end()
        return None if span.parent is None else self._names[span.parent.span_id]


def eventually(condition: Callable[[], bool]) -> bool:
    """Wait until ``condition()`` holds; return whether it ever did."""
    deadline = time.monotonic() + WAIT
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.001)
    return True


def drive(coroutine: Any) -> Any:
    """Run a coroutine that does not have to wait, in the present flow."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        return stop.value
    coroutine.close()
    raise AssertionError("the coroutine waits")


@dataclass(frozen=True)
class ItemForm:
    """One queue class, and what is true of it with or without the library."""

    name: str
    make: Callable[..., Any]
    """Takes the maximal size, where the class has one."""
    order: str | None = None
    """Which item comes out of it: the ``first``, the ``last``, or one by an order of its own."""
    exact: bool = True
    """Whether every item that is put is got, so that its context can always be told."""
    takes: str = "anything"
    """What it can hold: ``anything``, ``hashable`` or ``sortable`` items."""
    blocking: bool = True
    setting: str = "queue"

    @property
    def asynchronous(self) -> bool:
        """Whether its methods are coroutines."""
        return self.setting == "asyncio"

    @property
    def empty(self) -> type[Exception]:
        return asyncio.QueueEmpty if self.asynchronous else queue.Empty

    @property
    def full(self) -> type[Exception]:
        return asyncio.QueueFull if self.asynchronous else queue.Full

    @property
    def shut_down(self) -> type[Exception]:
        return asyncio.QueueShutDown if self.asynchronous else queue.ShutDown

    @property
    def bounded(self) -> bool:
        """Whether it takes a maximal size, counts unfinished tasks, and can be shut down."""
        return "SimpleQueue" not in self.name

    def put(self, queue: Any, item: object) -> None:
        """Put by the method that can wait."""
        put = queue.put(item)
        if self.asynchronous:
            drive(put)

    def get(self, queue: Any) -> Any:
        """Get by the method that can wait."""
        got = queue.get()
        return drive(got) if self.asynchronous else got

    def put_under(self, spans: Spans, name: str | None, queue: Any, item: object) -> None:
        """Put in a flow of its own: inside the root span ``name``, or in no context."""

        def put() -> None:
            if name is None:
                self.put(queue, item)
                return
            with spans.current(name):
                self.put(queue, item)

        without_context(put)

    def __repr__(self) -> str:
        return self.name


# Subclasses as programs write them. The asyncio ones are made of the same bodies.


class Stable:
    """Transforms: equal priorities come out in the order in which they were put."""

    def _init(self, maxsize: int) -> None:
        super()._init(maxsize)
        self.counter = itertools.count()

    def _put(self, item: Any) -> None:
        super()._put((0, next(self.counter), item))

    def _get(self) -> Any:
        return super()._get()[-1]


class Unique:
    """A set, without any call of super: an equal item is dropped, and any comes out first."""

    def _init(self, maxsize: int) -> None:
        self.items: set[Any] = set()

    def _qsize(self) -> int:
        return len(self.items)

    def qsize(self) -> int:
        return len(self.items)

    def empty(self) -> bool:
        return not self.items

    def _put(self, item: Any) -> None:
        self.items.add(item)

    def _get(self) -> Any:
        return self.items.pop()


class Deduplicating:
    """Drops an item that is equal to one that waits."""

    def _put(self, item: Any) -> None:
        waiting = self.__dict__.get("queue", self.__dict__.get("_queue"))
        if item not in waiting:
            super()._put(item)


class Merging:
    """Keeps the latest of equal items, in the place of the first."""

    def _init(self, maxsize: int) -> None:
        self.queue = self._queue = OrderedDict()

    def _put(self, item: Any) -> None:
        self.queue[item] = item

    def _get(self) -> Any:
        return self.queue.popitem(last=False)[1]


class Ring:
    """Silently loses the oldest item when it is full: the stock methods on another container."""

    def _init(self, maxsize: int) -> None:
        self.queue = self._queue = deque(maxlen=3)


class OwnDeque:
    """The stock container under the stock methods, made by itself."""

    def _init(self, maxsize: int) -> None:
        self.queue = self._queue = deque()
        self.opened = time.monotonic()


class OwnHeap:
    """A heap of its own, with the largest first."""

    def _init(self, maxsize: int) -> None:
        self.queue = self._queue = []

    def _put(self, item: Any) -> None:
        heapq.heappush(self.queue, (-id(item), item))

    def _get(self) -> Any:
        return heapq.heappop(self.queue)[1]


class Weighing:
    """Measures its size in what the items weigh, not in their number."""

    def _qsize(self) -> int:
        return 2 * super()._qsize()

    def qsize(self) -> int:
        return 2 * super().qsize()


class Stamping(queue.Queue):
    """Overrides put and get: what is stored is not what the program puts and gets."""

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        super().put((time.monotonic(), item), block, timeout)

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        return super().get(block, timeout)[1]


class AsyncStamping(asyncio.Queue):
    """Overrides put_nowait and get_nowait, which put and get call."""

    def put_nowait(self, item: Any) -> None:
        super().put_nowait((time.monotonic(), item))

    def get_nowait(self) -> Any:
        return super().get_nowait()[1]


class AsyncStampingCoroutines(asyncio.Queue):
    """Overrides the coroutines put and get."""

    async def put(self, item: Any) -> None:
        await super().put((time.monotonic(), item))

    async def get(self) -> Any:
        return (await super().get())[1]


def _subclass(mixin: type, base: type) -> type:
    return type(f"{mixin.__name__}{base.__name__}", (mixin, base), {})


def _stamping_simple_queue() -> Any:
    # SimpleQueue is a C type: only what is derived from it while instrumented can be reached.
    class StampingSimpleQueue(queue.SimpleQueue):
        def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
            super().put((time.monotonic(), item), block, timeout)

        def get(self, block: bool = True, timeout: float | None = None) -> Any:
            return super().get(block, timeout)[1]

    return StampingSimpleQueue()


def _derived_simple_queue() -> Any:
    class Derived(queue.SimpleQueue):
        pass

    return Derived()


class Evicting:
    """Holds three items, loses the oldest to a fourth, and gives the last first."""

    def _init(self, maxsize: int) -> None:
        self.queue: list[Any] = []
        self._queue = self.queue

    def _put(self, item: Any) -> None:
        self.queue.append(item)
        del self.queue[:-3]

    def _get(self) -> Any:
        return self.queue.pop()


_STOCK: list[tuple[str, dict[str, Any]]] = [
    ("Queue", {"order": "first"}),
    ("LifoQueue", {"order": "last"}),
    ("PriorityQueue", {"takes": "sortable"}),
]
_OVERRIDING: list[tuple[type, str, dict[str, Any]]] = [
    (Stable, "PriorityQueue", {"order": "first"}),
    (Unique, "Queue", {"exact": False, "takes": "hashable"}),
    (Deduplicating, "Queue", {"exact": False, "takes": "hashable"}),
    (Merging, "Queue", {"exact": False, "takes": "hashable"}),
    (Ring, "Queue", {"exact": False}),
    (OwnDeque, "Queue", {"order": "first"}),
    (OwnHeap, "Queue", {"takes": "sortable"}),
    (Weighing, "Queue", {"exact": False}),
]

FORMS = [
    *(ItemForm(name, getattr(queue, name), **facts) for name, facts in _STOCK),
    ItemForm("SimpleQueue", lambda: queue.SimpleQueue(), order="first"),
    ItemForm("SimpleQueue, derived", _derived_simple_queue, order="first"),
    ItemForm("SimpleQueue, stamping", _stamping_simple_queue, order="first"),
    ItemForm("Stamping", Stamping, order="first"),
    *(
        ItemForm(mixin.__name__, _subclass(mixin, getattr(queue, base)), **facts)
        for mixin, base, facts in _OVERRIDING
    ),
    *(
        ItemForm(f"asyncio.{name}", getattr(asyncio, name), setting="asyncio", **facts)
        for name, facts in _STOCK
    ),
    ItemForm("asyncio, Stamping", AsyncStamping, order="first", setting="asyncio"),
    ItemForm(
        "asyncio, Stamping coroutines", AsyncStampingCoroutines, order="first", setting="asyncio"
    ),
    *(
        ItemForm(
            f"asyncio, {mixin.__name__}",
            _subclass(mixin, getattr(asyncio, base)),
            setting="asyncio",
            **facts,
        )
        for mixin, base, facts in _OVERRIDING
    ),
]

STOCK = [form for form in FORMS if form.name.split(".")[-1].endswith("Queue")]
"""The classes of the standard library."""

assert len(STOCK) == 7
