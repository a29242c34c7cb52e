"""What is measured: each operation as the program writes it, and as one carries context by hand.

An operation is a context manager that sets the scene and yields ``run(loops)``; only ``run`` is
timed. ``by_hand`` asks for the second way of writing it. A *waiting* operation yields a function
that hands off and returns what then waits; the memory that it holds is what is measured.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import contextvars
import functools
import multiprocessing
import multiprocessing.pool
import queue
import sched
import sys
import threading
import types
from collections.abc import AsyncGenerator, Callable, Generator, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

import idle
from opentelemetry import propagate, trace
from opentelemetry.context import Context, attach, detach, get_current, set_value
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF

from otel_concurrency import capture, wrap

TRACER = TracerProvider(shutdown_on_exit=False).get_tracer("benchmark")

PLAIN, BY_HAND, OFFICIAL, OURS = VARIANTS = ("plain", "by hand", "official", "ours")

PLAIN_AGAIN = "plain, again"
"""Plain is measured twice: its ratio to itself is the noise of the measurement."""
WITHOUT_OFFICIAL = (PLAIN, BY_HAND, OURS)
"""The variants of what the official instrumentation leaves alone."""


COMPILED, PURE = IMPLEMENTATIONS = ("compiled", "pure")
"""How the hot path of ours may be written."""

Limits = Mapping[str, tuple[float | None, float | None]]
"""By implementation: what ours may take at most in a span, and without any context."""


@dataclass(frozen=True)
class Operation:
    """One row of the table.

    ``unit`` is ``second`` or ``byte``; ``limits`` are those of ours, as a ratio to plain or in
    bytes beyond it; ``count`` is how many of a waiting operation's hand-offs wait at a time;
    ``setting`` takes the variant. If it is the program that makes the hand-off, ``at_most_by_hand``
    is the limit of ours as a ratio to by hand.
    """

    name: str
    unit: str
    limits: Limits
    variants: tuple[str, ...]
    count: int
    setting: Callable[[str], AbstractContextManager[Callable[[int], Any]]]
    at_most_by_hand: float | None = None


OPERATIONS: dict[str, Operation] = {}

Setting = Callable[[bool], Iterator[Callable[[int], Any]]]


Limit = float | tuple[float, float] | None
"""What is allowed in a span, and without any context where that is less."""


def timed(
    name: str,
    *,
    compiled: Limit = None,
    pure: Limit = None,
    variants: tuple[str, ...] = VARIANTS,
) -> Callable[[Setting], None]:
    """Add an operation of which the time is measured; without limits it is shown only."""

    def add(setting: Setting) -> None:
        limits = {COMPILED: _both(compiled), PURE: _both(pure)}
        OPERATIONS[name] = Operation(name, "second", limits, variants, 0, _of_variant(setting))

    return add


def _both(limit: Limit) -> tuple[float | None, float | None]:
    return limit if isinstance(limit, tuple) else (limit, limit)


NO_LIMITS: Limits = dict.fromkeys(IMPLEMENTATIONS, (None, None))
WAITING: Limits = {COMPILED: (100, 100), PURE: (200, 200)}
"""The bytes that a waiting hand-off may hold."""


def handed_off(name: str, at_most: float) -> Callable[[Callable[[str], Any]], None]:
    """Add a hand-off that the program makes: in each variant it is written in another way."""

    def add(run_of: Callable[[str], Any]) -> None:
        @contextmanager
        def setting(variant: str) -> Iterator[Callable[[int], Any]]:
            yield run_of(variant)

        OPERATIONS[name] = Operation(
            name, "second", NO_LIMITS, WITHOUT_OFFICIAL, 0, setting, at_most
        )

    return add


def waiting(
    name: str, variants: tuple[str, ...] = VARIANTS, count: int = 2_000
) -> Callable[[Setting], None]:
    """Add an operation of which the memory is measured."""

    def add(setting: Setting) -> None:
        OPERATIONS[name] = Operation(name, "byte", WAITING, variants, count, _of_variant(setting))

    return add


def _of_variant(setting: Setting) -> Callable[[str], AbstractContextManager[Callable[[int], Any]]]:
    @contextmanager
    def of_variant(variant: str) -> Iterator[Callable[[int], Any]]:
        yield from setting(variant == BY_HAND)

    return of_variant


def work(*args: object) -> None:
    """Do nothing: the hand-off is all there is to see."""


def carrying(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return ``function`` bound to the current context, as one writes it by hand."""
    context = get_current()

    def carried(*args: Any) -> Any:
        token = attach(context)
        try:
            return function(*args)
        finally:
            detach(token)

    return carried


class CarryingPool(concurrent.futures.ThreadPoolExecutor):
    """A pool whose ``map`` carries context, item by item, as one writes it by hand."""

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Any:
        return super().submit(carrying(fn), *args, **kwargs)


@timed("submit().result()", compiled=(1.03, 1.01), pure=1.07)
def _submit(by_hand: bool) -> Iterator[Callable[[int], Any]]:
    def plain(loops: int) -> None:
        for _ in range(loops):
            pool.submit(work).result()

    def hand_written(loops: int) -> None:
        for _ in range(loops):
            pool.submit(carrying(work)).result()

    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        yield hand_written if by_hand else plain


@timed("burst of submit(), 1000", compiled=(1.05, 1.02), pure=1.11)
def _burst(by_hand: bool) -> Iterator[Callable[[int], Any]]:
    def plain(loops: int) -> None:
        for _ in range(loops):
            concurrent.futures.wait([pool.submit(work) for _ in range(1000)])

    def hand_written(loops: int) -> None:
        for _ in range(loops):
            concurrent.futures.wait([pool.submit(carrying(work)) for _ in range(1000)])

    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        yield hand_written if by_hand else plain


@timed("Executor.map, 1000", compiled=1.04, pure=1.09)
def _map(by_hand: bool) -> Iterator[Callable[[int], Any]]:
    def run(loops: int) -> None:
        for _ in range(loops):
            for _ in pool.map(work, range(1000)):
                pass

    kind = CarryingPool if by_hand else concurrent.futures.ThreadPoolExecutor
    with kind(1) as pool:
        yield run


@timed("Thread start + join", compiled=(1.03, 1.01), pure=1.07)
def _thread(by_hand: bool) -> Iterator[Callable[[int], Any]]:
    def plain(loops: int) -> None:
        for _ in range(loops):
            thread = threading.Thread(target=work)
            thread.start()
            thread.join()

    def hand_written(loops: int) -> None:
        for _ in range(loops):
            thread = threading.Thread(target=carrying(work))
            thread.start()
            thread.join()

    yield hand_written if by_hand else plain


@timed("run_in_executor", compiled=(1.03, 1.01), pure=1.06)
def _run_in_executor(by_hand: bool) -> Iterator[Callable[[int], Any]]:
    async def plain(loops: int) -> None:
        run_in_executor = asyncio.get_running_loop().run_in_executor
        for _ in range(loops):
            await run_in_executor(pool, work)

    async def hand_written(loops: int) -> None:
        run_in_executor = asyncio.get_running_loop().run_in_executor
        for _ in range(loops):
            await run_in_executor(pool, carrying(work))

    variant = hand_written if by_hand else plain
    loop = asyncio.new_event_loop()
    try:
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            yield lambda loops: loop.run_until_complete(variant(loops))
    finally:
        loop.close()


@timed("ThreadPool.apply_async().get()", compiled=1.06, pure=1.15, variants=WITHOUT_OFFICIAL)
def _apply_async(by_hand: bool) -> Iterator[Callable[[int], Any]]:
    def plain(loops: int) -> None:
        for _ in range(loops):
            pool.apply_async(work).get()

    def hand_written(loops: int) -> None:
        for _ in range(loops):
            pool.apply_async(carrying(work)).get()

    with multiprocessing.pool.ThreadPool(1) as pool:
        yield hand_written if by_hand else plain


@timed("sched enter + run", variants=WITHOUT_OFFICIAL)
def _sched(by_hand: bool) -> Iterator[Callable[[int], Any]]:
    def plain(loops: int) -> None:
        for _ in range(loops):
            scheduler.enter(0, 1, work)
            scheduler.run()

    def hand_written(loops: int) -> None:
        for _ in range(loops):
            scheduler.enter(0, 1, carrying(work))
            scheduler.run()

    scheduler = sched.scheduler(delayfunc=lambda _: None)  # time.sleep(0) takes up to 50 µs
    yield hand_written if by_hand else plain


@timed("sched enter + run, 200 events", compiled=1.2, pure=1.4, variants=WITHOUT_OFFICIAL)
def _sched_many(by_hand: bool) -> Iterator[Callable[[int], Any]]:
    def plain(loops: int) -> None:
        for _ in range(loops):
            for _ in range(200):
                scheduler.enter(0, 1, work)
            scheduler.run()

    def hand_written(loops: int) -> None:
        for _ in range(loops):
            for _ in range(200):
                scheduler.enter(0, 1, carrying(work))
            scheduler.run()

    scheduler = sched.scheduler(delayfunc=lambda _: None)
    yield hand_written if by_hand else plain


@timed(
    "Future.add_done_callback + set_result",
    compiled=(1.12, 1.05),
    pure=1.25,
    variants=WITHOUT_OFFICIAL,
)
def _done_callback(by_hand: bool) -> Iterator[Callable[[int], Any]]:
    def plain(loops: int) -> None:
        for _ in range(loops):
            future: concurrent.futures.Future[None] = concurrent.futures.Future()
            future.add_done_callback(work)
            future.set_result(None)

    def hand_written(loops: int) -> None:
        for _ in range(loops):
            future: concurrent.futures.Future[None] = concurrent.futures.Future()
            future.add_done_callback(carrying(work))
            future.set_result(None)

    yield hand_written if by_hand else plain


def _items(kind: Any, by_hand: bool) -> Iterator[Callable[[int], Any]]:
    """Put 100 items in the current context, and get them where there is none: as a worker does."""
    items = kind()

    def plain(loops: int) -> None:
        for _ in range(loops):
            for _ in range(100):
                items.put(work)
            nothing = attach(Context())
            for _ in range(100):
                items.get()
            detach(nothing)

    def hand_written(loops: int) -> None:
        for _ in range(loops):
            for _ in range(100):
                items.put((get_current(), work))
            nothing = attach(Context())
            for _ in range(100):
                context, _item = items.get()
                detach(attach(context))
            detach(nothing)

    yield hand_written if by_hand else plain


@timed("queue.Queue put + get, 100", compiled=(1.2, 1.03), pure=1.5, variants=WITHOUT_OFFICIAL)
def _queue(by_hand: bool) -> Iterator[Callable[[int], Any]]:
    yield from _items(queue.Queue, by_hand)


@timed(
    "queue.LifoQueue put + get, 100",
    compiled=(1.3, 1.03),
    pure=(1.7, 1.15),
    variants=WITHOUT_OFFICIAL,
)
def _lifo_queue(by_hand: bool) -> Iterator[Callable[[int], Any]]:
    yield from _items(queue.LifoQueue, by_hand)


@timed(
    "queue.PriorityQueue put + get, 100",
    compiled=(1.3, 1.03),
    pure=(1.7, 1.15),
    variants=WITHOUT_OFFICIAL,
)
def _priority_queue(by_hand: bool) -> Iterator[Callable[[int], Any]]:
    items: queue.PriorityQueue[Any] = queue.PriorityQueue()

    def plain(loops: int) -> None:
        for _ in range(loops):
            for number in range(100):
                items.put(number)
            nothing = attach(Context())
            for _ in range(100):
                items.get()
            detach(nothing)

    def hand_written(loops: int) -> None:
        for _ in range(loops):
            for number in range(100):
                items.put((number, get_current()))
            nothing = attach(Context())
            for _ in range(100):
                _item, context = items.get()
                detach(attach(context))
            detach(nothing)

    yield hand_written if by_hand else plain


@timed(
    "queue.Queue, two producers in turn",
    compiled=(1.3, 1.03),
    pure=1.8,
    variants=WITHOUT_OFFICIAL,
)
def _two_producers(by_hand: bool) -> Iterator[Callable[[int], Any]]:
    items: queue.Queue[Any] = queue.Queue()

    def put() -> None:
        items.put((get_current(), work) if by_hand else work)

    def run(loops: int) -> None:
        one, other = contextvars.copy_context(), contextvars.copy_context()
        if get_current():
            other.run(attach, set_value("producer", "other"))
        for _ in range(loops):
            for _ in range(50):
                one.run(put)
                other.run(put)
            nothing = attach(Context())
            for _ in range(100):
                item = items.get()
                if by_hand:
                    detach(attach(item[0]))
            detach(nothing)

    yield run


def _consumer() -> contextvars.Context:
    """Return the variables of a flow with a span of its own, or of one where there is none."""
    consumer = contextvars.Context()
    if get_current():
        span = TRACER.start_span("consumer", context=Context())
        consumer.run(attach, trace.set_span_in_context(span))
    return consumer


def _items_in_a_span(kind: Any, by_hand: bool) -> Iterator[Callable[[int], Any]]:
    """Put 100 items in the current context, and get them in another flow, inside its own span."""
    items = kind()

    def get() -> None:
        for _ in range(100):
            items.get()

    def run(loops: int) -> None:
        consumer = _consumer()
        for _ in range(loops):
            for _ in range(100):
                items.put((get_current(), work) if by_hand else work)
            consumer.run(get)

    yield run


@timed("queue.Queue, got inside a span", variants=WITHOUT_OFFICIAL)
def _queue_in_a_span(by_hand: bool) -> Iterator[Callable[[int], Any]]:
    yield from _items_in_a_span(queue.Queue, by_hand)


@timed("queue.SimpleQueue, got inside a span", variants=WITHOUT_OFFICIAL)
def _simple_queue_in_a_span(by_hand: bool) -> Iterator[Callable[[int], Any]]:
    yield from _items_in_a_span(queue.SimpleQueue, by_hand)


@timed("asyncio.Queue, got inside a span", variants=WITHOUT_OFFICIAL)
def _asyncio_queue_in_a_span(by_hand: bool) -> Iterator[Callable[[int], Any]]:
    items: asyncio.Queue[Any] = asyncio.Queue()

    async def get() -> None:
        for _ in range(100):
            await items.get()

    async def run(loops: int) -> None:
        consumer, loop = _consumer(), asyncio.get_running_loop()
        for _ in range(loops):
            for _ in range(100):
                await items.put((get_current(), work) if by_hand else work)
            await consumer.run(loop.create_task, get())

    loop = asyncio.new_event_loop()
    try:
        yield lambda loops: loop.run_until_complete(run(loops))
    finally:
        loop.close()


@timed("queue.SimpleQueue put + get, 100", compiled=(5, 2), pure=12, variants=WITHOUT_OFFICIAL)
def _simple_queue(by_hand: bool) -> Iterator[Callable[[int], Any]]:
    yield from _items(queue.SimpleQueue, by_hand)


@timed("asyncio.Queue put + get, 100", compiled=(1.5, 1.05), pure=2.4, variants=WITHOUT_OFFICIAL)
def _asyncio_queue(by_hand: bool) -> Iterator[Callable[[int], Any]]:
    async def plain(loops: int) -> None:
        items: asyncio.Queue[Any] = asyncio.Queue()
        for _ in range(loops):
            for _ in range(100):
                await items.put(work)
            nothing = attach(Context())
            for _ in range(100):
                await items.get()
            detach(nothing)

    async def hand_written(loops: int) -> None:
        items: asyncio.Queue[Any] = asyncio.Queue()
        for _ in range(loops):
            for _ in range(100):
                await items.put((get_current(), work))
            nothing = attach(Context())
            for _ in range(100):
                context, _item = await items.get()
                detach(attach(context))
            detach(nothing)

    variant = hand_written if by_hand else plain
    loop = asyncio.new_event_loop()
    try:
        yield lambda loops: loop.run_until_complete(variant(loops))
    finally:
        loop.close()


FORK = multiprocessing.get_context(
    "fork" if "fork" in multiprocessing.get_all_start_methods() else None
)


@timed(
    "multiprocessing.Queue put + get, 100",
    compiled=(1.2, 1.05),
    pure=(1.4, 1.08),
    variants=(PLAIN, OURS),
)
def _process_queue(by_hand: bool) -> Iterator[Callable[[int], Any]]:
    items = FORK.Queue()
    yield lambda loops: _put_and_get(items, loops)
    items.close()
    items.join_thread()


@timed(
    "multiprocessing.SimpleQueue put + get, 100",
    compiled=(1.5, 1.05),
    pure=(2, 1.08),
    variants=(PLAIN, OURS),
)
def _simple_process_queue(by_hand: bool) -> Iterator[Callable[[int], Any]]:
    items = FORK.SimpleQueue()
    yield lambda loops: _put_and_get(items, loops)
    items.close()


def _put_and_get(items: Any, loops: int) -> None:
    """Put 100 items in the current context, and get them where there is none."""
    for _ in range(loops):
        for number in range(100):
            items.put(number)
        nothing = attach(Context())
        for _ in range(100):
            items.get()
        detach(nothing)


def _processes(method: str) -> Iterator[Callable[[int], Any]]:
    context = multiprocessing.get_context(method)

    def run(loops: int) -> None:
        for _ in range(loops):
            process = context.Process(target=idle.nothing)
            process.start()
            process.join()

    yield run


if "fork" in multiprocessing.get_all_start_methods():

    @timed("Process start + join, fork", compiled=1.05, pure=1.05, variants=(PLAIN, OURS))
    def _forked(by_hand: bool) -> Iterator[Callable[[int], Any]]:
        yield from _processes("fork")


@timed("Process start + join, spawn", compiled=1.35, pure=1.35, variants=(PLAIN, OURS))
def _spawned(by_hand: bool) -> Iterator[Callable[[int], Any]]:
    yield from _processes("spawn")


def carried_across(headers: dict[str, str], function: Callable[..., Any], *args: Any) -> Any:
    """Call ``function`` in the context of ``headers``, in another process."""
    token = attach(propagate.extract(headers))
    try:
        return function(*args)
    finally:
        detach(token)


def across(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return ``function`` bound to the headers of the current context, as one writes it by hand."""
    headers: dict[str, str] = {}
    propagate.inject(headers)
    return functools.partial(carried_across, headers, function)


@timed("ProcessPoolExecutor.submit().result()", compiled=1.10, pure=1.10, variants=WITHOUT_OFFICIAL)
def _process_submit(by_hand: bool) -> Iterator[Callable[[int], Any]]:
    def plain(loops: int) -> None:
        for _ in range(loops):
            pool.submit(work).result()

    def hand_written(loops: int) -> None:
        for _ in range(loops):
            pool.submit(across(work)).result()

    with concurrent.futures.ProcessPoolExecutor(1, mp_context=FORK) as pool:
        yield hand_written if by_hand else plain


@timed("Pool.map, 100000", compiled=1.05, pure=1.05, variants=WITHOUT_OFFICIAL)
def _pool_map(by_hand: bool) -> Iterator[Callable[[int], Any]]:
    items = range(100_000)

    def plain(loops: int) -> None:
        for _ in range(loops):
            pool.map(work, items)

    def hand_written(loops: int) -> None:
        for _ in range(loops):
            pool.map(across(work), items)

    with FORK.Pool(1) as pool:
        yield hand_written if by_hand else plain


@timed("starting a span", compiled=1.02, pure=1.02, variants=(PLAIN, OURS))
def _span(by_hand: bool) -> Iterator[Callable[[int], Any]]:
    def run(loops: int) -> None:
        for _ in range(loops):
            TRACER.start_span("work").end()

    yield run


@timed("the same, as the current one", compiled=1.01, pure=1.03, variants=(PLAIN, OURS))
def _current_span(by_hand: bool) -> Iterator[Callable[[int], Any]]:
    def run(loops: int) -> None:
        for _ in range(loops):
            with TRACER.start_as_current_span("work"):
                pass

    yield run


@timed("the same, not sampled", compiled=1.05, pure=1.10, variants=(PLAIN, OURS))
def _unsampled_span(by_hand: bool) -> Iterator[Callable[[int], Any]]:
    def run(loops: int) -> None:
        for _ in range(loops):
            tracer.start_span("work").end()

    tracer = TracerProvider(sampler=ALWAYS_OFF, shutdown_on_exit=False).get_tracer("benchmark")
    yield run


def _values() -> Iterator[int]:
    yield from range(100)


def _holding(count: int = 100) -> Generator[int, None, None]:
    with TRACER.start_as_current_span("stream"):
        yield from range(count)


def _swapping(count: int = 100) -> Generator[int, None, None]:
    """Do the same by hand: detach before each `yield`, and attach after it."""
    span = TRACER.start_span("stream")
    context = trace.set_span_in_context(span)
    token = attach(context)
    for value in range(count):
        detach(token)
        yield value
        token = attach(context)
    detach(token)
    span.end()


@types.coroutine
def _turn() -> Generator[None, bool, bool]:
    return (yield)


async def _waiting_for_ever() -> AsyncGenerator[None, None]:
    with TRACER.start_as_current_span("stream"):
        while True:
            if await _turn():
                yield


@timed("generator, 100 values", compiled=1.02, pure=1.02, variants=(PLAIN, OURS))
def _generator(by_hand: bool) -> Iterator[Callable[[int], Any]]:
    def run(loops: int) -> None:
        for _ in range(loops):
            for _value in _values():
                pass

    other = _holding()  # there is one that the library knows
    next(other)
    yield run
    other.close()


@timed("the same, holding a span", variants=WITHOUT_OFFICIAL)
def _generator_with_span(by_hand: bool) -> Iterator[Callable[[int], Any]]:
    def run(loops: int) -> None:
        for _ in range(loops):
            for _value in generator():
                pass

    generator = _swapping if by_hand else _holding
    yield run


@timed("the same, a `yield` alone, 100", variants=WITHOUT_OFFICIAL)
def _yield_with_span(by_hand: bool) -> Iterator[Callable[[int], Any]]:
    def run(loops: int) -> None:
        for _ in range(loops):
            for _ in range(100):
                next(values)

    flow, values = contextvars.copy_context(), (_swapping if by_hand else _holding)(sys.maxsize)
    flow.run(next, values)
    yield lambda loops: flow.run(run, loops)
    flow.run(values.close)


@timed("await in such a generator, 100", compiled=1.02, pure=1.02, variants=(PLAIN, OURS))
def _generator_that_waits(by_hand: bool) -> Iterator[Callable[[int], Any]]:
    def run(loops: int) -> None:
        send = waiting.send
        for _ in range(loops):
            for _ in range(100):
                send(None)

    flow, waiting = contextvars.copy_context(), _waiting_for_ever().__anext__()
    flow.run(waiting.send, None)
    yield lambda loops: flow.run(run, loops)
    with contextlib.suppress(GeneratorExit):
        flow.run(waiting.throw, GeneratorExit)


def attached(context: Context, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Call ``function`` in ``context``, as one writes it by hand for many calls."""
    token = attach(context)
    try:
        return function(*args, **kwargs)
    finally:
        detach(token)


def _plain(loops: int) -> None:
    for _ in range(loops):
        work()


@handed_off("by hand: capture() and with", at_most=1.25)
def _capture_and_with(variant: str) -> Callable[[int], Any]:
    def hand_written(loops: int) -> None:
        for _ in range(loops):
            context = get_current()
            token = attach(context)
            try:
                work()
            finally:
                detach(token)

    def ours(loops: int) -> None:
        for _ in range(loops):
            with capture():
                work()

    return {BY_HAND: hand_written, OURS: ours}.get(variant, _plain)


@handed_off("by hand: with", at_most=1.1)
def _with(variant: str) -> Callable[[int], Any]:
    def hand_written(loops: int) -> None:
        context = get_current()
        for _ in range(loops):
            token = attach(context)
            try:
                work()
            finally:
                detach(token)

    def ours(loops: int) -> None:
        handoff = capture()
        for _ in range(loops):
            with handoff:
                work()

    return {BY_HAND: hand_written, OURS: ours}.get(variant, _plain)


@handed_off("by hand: run()", at_most=1.1)
def _run(variant: str) -> Callable[[int], Any]:
    def hand_written(loops: int) -> None:
        context = get_current()
        for _ in range(loops):
            attached(context, work)

    def ours(loops: int) -> None:
        run = capture().run
        for _ in range(loops):
            run(work)

    return {BY_HAND: hand_written, OURS: ours}.get(variant, _plain)


@handed_off("by hand: a call of what wrap() returned", at_most=1.1)
def _wrapped(variant: str) -> Callable[[int], Any]:
    def carrying_all(function: Callable[..., Any]) -> Callable[..., Any]:
        context = get_current()

        def carried(*args: Any, **kwargs: Any) -> Any:
            token = attach(context)
            try:
                return function(*args, **kwargs)
            finally:
                detach(token)

        return carried

    def hand_written(loops: int) -> None:
        function = carrying_all(work)
        for _ in range(loops):
            function()

    def ours(loops: int) -> None:
        function = wrap(work)
        for _ in range(loops):
            function()

    return {BY_HAND: hand_written, OURS: ours}.get(variant, _plain)


class Blocked(concurrent.futures.ThreadPoolExecutor):
    """A pool whose only worker is busy until the pool is left."""

    def __init__(self) -> None:
        super().__init__(1)
        self._go_on = threading.Event()
        self.submit(self._go_on.wait)

    def __exit__(self, *exception: Any) -> Any:
        self._go_on.set()
        return super().__exit__(*exception)


@waiting("waiting submit()")
def _waiting_submit(by_hand: bool) -> Iterator[Callable[[int], Any]]:
    with Blocked() as pool:
        if by_hand:
            yield lambda count: [pool.submit(carrying(work)) for _ in range(count)]
        else:
            yield lambda count: [pool.submit(work) for _ in range(count)]


class Elsewhere(concurrent.futures.Executor):
    """A home-made executor; what is submitted to it waits for ever."""

    def __init__(self) -> None:
        self._queue: list[Any] = []

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Any:
        future: concurrent.futures.Future[Any] = concurrent.futures.Future()
        self._queue.append((future, fn, args, kwargs))
        return future


def _waiting_run_in_executor(executor: Any, by_hand: bool) -> Iterator[Callable[[int], Any]]:
    loop = asyncio.new_event_loop()
    futures: list[Any] = []

    def hand_off(count: int) -> None:
        for _ in range(count):
            futures.append(loop.run_in_executor(executor, carrying(work) if by_hand else work))

    yield hand_off
    for future in futures:
        future.cancel()
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()


@waiting("waiting run_in_executor")
def _waiting_in_pool(by_hand: bool) -> Iterator[Callable[[int], Any]]:
    with Blocked() as pool:
        yield from _waiting_run_in_executor(pool, by_hand)


@waiting("waiting in a home-made executor", variants=WITHOUT_OFFICIAL)
def _waiting_elsewhere(by_hand: bool) -> Iterator[Callable[[int], Any]]:
    yield from _waiting_run_in_executor(Elsewhere(), by_hand)


@waiting("waiting done-callback", variants=WITHOUT_OFFICIAL)
def _waiting_done_callback(by_hand: bool) -> Iterator[Callable[[int], Any]]:
    def hand_off(count: int) -> Any:
        futures: list[concurrent.futures.Future[None]] = []
        for _ in range(count):
            futures.append(concurrent.futures.Future())
        for future in futures:
            future.add_done_callback(carrying(work) if by_hand else work)
        return futures

    yield hand_off


@waiting("waiting sched event", variants=WITHOUT_OFFICIAL)
def _waiting_sched(by_hand: bool) -> Iterator[Callable[[int], Any]]:
    scheduler = sched.scheduler()
    if by_hand:
        yield lambda count: [scheduler.enter(3600, 1, carrying(work)) for _ in range(count)]
    else:
        yield lambda count: [scheduler.enter(3600, 1, work) for _ in range(count)]


def _waiting_items(kind: Any, by_hand: bool) -> Iterator[Callable[[int], Any]]:
    items = kind()

    def hand_off(count: int) -> None:
        for _ in range(count):
            items.put_nowait((get_current(), work) if by_hand else work)

    yield hand_off


@waiting("waiting in queue.Queue", variants=WITHOUT_OFFICIAL)
def _waiting_queue(by_hand: bool) -> Iterator[Callable[[int], Any]]:
    yield from _waiting_items(queue.Queue, by_hand)


@waiting("waiting in queue.SimpleQueue", variants=WITHOUT_OFFICIAL)
def _waiting_simple_queue(by_hand: bool) -> Iterator[Callable[[int], Any]]:
    yield from _waiting_items(queue.SimpleQueue, by_hand)


@waiting("waiting in asyncio.Queue", variants=WITHOUT_OFFICIAL)
def _waiting_asyncio_queue(by_hand: bool) -> Iterator[Callable[[int], Any]]:
    yield from _waiting_items(asyncio.Queue, by_hand)


@waiting("waiting Timer", count=200)
def _waiting_timer(by_hand: bool) -> Iterator[Callable[[int], Any]]:
    timers: list[threading.Timer] = []

    def hand_off(count: int) -> None:
        for _ in range(count):
            timers.append(threading.Timer(3600, carrying(work) if by_hand else work))
            timers[-1].start()

    yield hand_off
    for timer in timers:
        timer.cancel()
    for timer in timers:
        timer.join()
