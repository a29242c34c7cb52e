"""Where work is handed to in this process: a station for each family of primitives.

A station is opened for a round of the load, and closed when nothing is under way any more.
Its ``ways`` say how a job of each of its kinds is handed off: most of them by any flow of control,
also inside other jobs, those in ``blocking`` by the threads that generate the load alone.
"""

from __future__ import annotations

import _thread
import asyncio
import functools
import itertools
import queue
import random
import sched
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from multiprocessing.pool import ThreadPool
from typing import Any, ClassVar

from ledger import (
    CANCEL,
    FORGET,
    INTENDED,
    LEDGER,
    RAISE,
    TRACER,
    FailureError,
    Job,
    check,
    outcome,
)
from opentelemetry import baggage
from opentelemetry.context import attach, detach

Way = Callable[[Job], object]
Fates = dict[str, tuple[str, ...]]


class Station:
    """Some kinds of hand-offs, and what they need."""

    fates: ClassVar[Fates] = {}
    """The kinds, and which fates a job may have there beside to return."""

    blocking: frozenset[str] = frozenset()
    native: frozenset[str] = frozenset()
    """The kinds that Python carries context for by itself, whatever the policy."""

    def __init__(self, random: random.Random) -> None:
        self.random = random
        self._ended = threading.Event()
        self._threads: list[threading.Thread] = []

    @property
    def ways(self) -> dict[str, Way]:
        """Return how a job of each kind is handed off."""
        return {kind: getattr(self, _method(kind)) for kind in self.fates}

    def keep_running(self, function: Callable[[], object]) -> None:
        """Run ``function`` on a thread until the station is closed."""
        thread = threading.Thread(target=function, daemon=True)
        thread.start()
        self._threads.append(thread)

    def every(self, least: float, most: float, function: Callable[[], object]) -> None:
        """Call ``function`` again and again, until the station is closed."""

        def again() -> None:
            while not self._ended.wait(self.random.uniform(least, most)):
                function()

        self.keep_running(again)

    def close(self) -> None:
        """Let go of everything."""
        self._ended.set()
        for thread in self._threads:
            thread.join()


def _method(kind: str) -> str:
    return "".join(letter if letter.isalnum() else "_" for letter in kind)


class Threads(Station):
    """Threads of their own."""

    fates: ClassVar[Fates] = {
        "thread": (RAISE, FORGET),
        "subclass": (RAISE, FORGET),
        "timer": (RAISE, FORGET, CANCEL),
        "raw thread": (RAISE, FORGET),
        "timer rounds": (),
    }

    def thread(self, job: Job) -> None:
        threading.Thread(target=job.run).start()

    def subclass(self, job: Job) -> None:
        Runs(job).start()

    def timer(self, job: Job) -> None:
        timer = threading.Timer(0.001 if job.fate != CANCEL else 60, job.run)
        timer.start()
        if job.fate == CANCEL:
            timer.cancel()

    def raw_thread(self, job: Job) -> None:
        _thread.start_new_thread(job.run, ())

    def timer_rounds(self, job: Job) -> None:
        Rounds(job, lambda tick: threading.Timer(0.001, tick).start()).arm()


class Runs(threading.Thread):
    """A thread that overrides ``run``."""

    def __init__(self, job: Job) -> None:
        super().__init__()
        self._job: Job | None = job

    def run(self) -> None:
        """Do the job, once."""
        job, self._job = self._job, None
        assert job is not None
        job.run()


class Rounds:
    """Work that arms itself again: each round is linked to the one before."""

    def __init__(self, job: Job, arm: Callable[[Callable[[], None]], object]) -> None:
        self._kind, self._intended = job.kind, job.intended
        self._arm = arm
        self._left = 3

    def arm(self) -> None:
        """Arm the next round."""
        self._arm(self.tick)

    def tick(self) -> None:
        """Run one round."""
        with TRACER.start_as_current_span(
            self._kind, attributes={INTENDED: self._intended}
        ) as span:
            self._left -= 1
            if self._left:
                self._intended = -span.get_span_context().span_id
                LEDGER.hand(self._kind)
                self.arm()


class Pools(Station):
    """Thread pools, which are shut down and replaced by ones of another size all the time."""

    fates: ClassVar[Fates] = {
        "submit": (RAISE, FORGET, CANCEL),
        "map": (FORGET,),
        "done-callback": (),
        "ThreadPool": (RAISE, FORGET),
        "ThreadPool.map": (FORGET,),
    }
    blocking = frozenset(("map", "ThreadPool.map"))

    def __init__(self, random: random.Random) -> None:
        super().__init__(random)
        self._executor = self._new_executor()
        self._pool = self._new_pool()
        self._handing = threading.Lock()
        """What a ``ThreadPool`` is given while it is being closed is lost."""
        self._mapping = ThreadPoolExecutor(8)  # to be refused in the middle is to run twice
        self._futures: deque[Future[None]] = deque()
        self.every(0.1, 1, self._replace)
        self.every(0.001, 0.01, self._complete)

    def _new_executor(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(self.random.choice((1, 2, 8, 32)))

    def _new_pool(self) -> ThreadPool:
        return ThreadPool(self.random.choice((1, 4, 16)))

    def _replace(self) -> None:
        executor, self._executor = self._executor, self._new_executor()
        executor.shutdown(wait=self.random.random() < 0.5)
        with self._handing:
            pool, self._pool = self._pool, self._new_pool()
        pool.close()
        pool.join()
        with ThreadPool(2) as pool:  # is terminated with work outstanding
            jobs = [Job("ThreadPool", CANCEL) for _ in range(10)]
            pool.map_async(Job.run, jobs)

    def _complete(self) -> None:
        """Complete futures in no context, far from where callbacks were registered."""
        while self._futures:
            self._futures.popleft().set_result(None)

    def submit(self, job: Job) -> None:
        future = _until_accepted(lambda: self._executor.submit(job.run))
        if job.fate == CANCEL:
            future.cancel()
        future.add_done_callback(functools.partial(outcome, job))

    def map(self, job: Job) -> None:
        jobs = _several(job)
        for one, result in zip(jobs, self._mapping.map(Job.run, jobs), strict=True):
            check(one, result)

    def done_callback(self, job: Job) -> None:
        future: Future[None] = Future()
        future.add_done_callback(job.run)
        self._futures.append(future)

    def ThreadPool(self, job: Job) -> None:
        done = functools.partial(check, job)
        with self._handing:
            self._pool.apply_async(job.run, callback=done, error_callback=done)

    def ThreadPool_map(self, job: Job) -> None:
        jobs = _several(job)
        use = self.random.choice(("map_async", "imap", "imap_unordered"))
        chunk = 1 if job.fate == FORGET else 2
        with self._handing:
            results = getattr(self._pool, use)(Job.run, jobs, chunk)
        if use == "map_async":
            results = results.get()
        for one, result in zip(jobs, results, strict=True):
            check(one, result)

    def close(self) -> None:
        super().close()
        self._complete()
        self._executor.shutdown()
        self._mapping.shutdown()
        self._pool.close()
        self._pool.join()


def _until_accepted(hand_off: Callable[[], Any]) -> Any:
    """Hand off; once more where the pool has been shut down between choosing it and using it."""
    while True:
        try:
            return hand_off()
        except (RuntimeError, ValueError):
            time.sleep(0.001)


def _several(job: Job) -> list[Job]:
    """Return ``job`` and some more for the same origin, of which it is one."""
    more = [Job(job.kind, job.fate, intended=job.intended) for _ in range(9)]
    for one in more:
        LEDGER.hand(one.kind)
    return [job, *more]


class Schedulers(Station):
    """Schedulers, each with a thread that runs it."""

    fates: ClassVar[Fates] = {"sched": (RAISE, CANCEL), "sched rounds": ()}

    def __init__(self, random: random.Random) -> None:
        super().__init__(random)
        self._schedulers = [sched.scheduler() for _ in range(4)]
        for scheduler in self._schedulers:
            self.keep_running(functools.partial(self._run, scheduler))

    def _run(self, scheduler: sched.scheduler) -> None:
        while not self._ended.wait(0.002):
            with suppress(FailureError):
                scheduler.run(blocking=False)

    def sched(self, job: Job) -> None:
        scheduler = self.random.choice(self._schedulers)
        event = scheduler.enter(self.random.random() / 100, 1, job.run)
        if job.fate == CANCEL:
            with suppress(ValueError):
                scheduler.cancel(event)

    def sched_rounds(self, job: Job) -> None:
        scheduler = self.random.choice(self._schedulers)
        Rounds(job, functools.partial(scheduler.enter, 0.001, 1)).arm()


class Bag(queue.Queue):  # type: ignore[type-arg]
    """A queue of the program's own, which gives its items in any order."""

    def _init(self, maxsize: int) -> None:
        self.queue: Any = []

    def _get(self) -> Any:
        return self.queue.pop(random.randrange(len(self.queue)))

    def _put(self, item: Any) -> None:
        self.queue.append(item)


class Queues(Station):
    """Queues, each with consumers that get from it for ever."""

    makers: ClassVar[dict[str, Callable[[], Any]]] = {
        "Queue": queue.Queue,
        "LifoQueue": queue.LifoQueue,
        "PriorityQueue": queue.PriorityQueue,
        "SimpleQueue": lambda: queue.SimpleQueue(),
        "queue of its own": Bag,
    }
    fates: ClassVar[Fates] = dict.fromkeys(makers, (RAISE,))
    consumers = 6

    def __init__(self, random: random.Random) -> None:
        super().__init__(random)
        self._queues = {kind: make() for kind, make in self.makers.items()}
        for items in self._queues.values():
            with a_context():  # a queue of its own loses contexts while it holds items from before
                items.put(_FIRST)
            for number in range(self.consumers):
                self.keep_running(functools.partial(self._consume, items, number))

    @property
    def ways(self) -> dict[str, Way]:
        return dict.fromkeys(self.makers, self._put)

    def _put(self, job: Job) -> None:
        self._queues[job.kind].put(job)

    def _consume(self, items: Any, number: int) -> None:
        """Do what comes: some wait with a time-out, some say when they are done."""
        # Where several wait for one SimpleQueue, CPython 3.10 may miss the time-out, for ever.
        timeout = 0.2 if number % 3 and type(items).__name__ != "SimpleQueue" else None
        while True:
            try:
                job = items.get(timeout=timeout)
            except queue.Empty:
                continue
            if job is _LAST:
                return
            if job is _FIRST:
                continue
            with suppress(FailureError):
                job.run()
            job = None
            if number % 2 and hasattr(items, "task_done"):
                items.task_done()

    def close(self) -> None:
        for items in self._queues.values():
            for _ in range(self.consumers):
                items.put(_LAST)
        super().close()


_FIRST, _LAST = Job("first"), Job("last")


@contextmanager
def a_context() -> Iterator[None]:
    """Be in a context without a span."""
    token = attach(baggage.set_baggage("key", "value"))
    try:
        yield
    finally:
        detach(token)


class Elsewhere(Executor):
    """A home-made executor: a queue, and threads that run what comes."""

    def __init__(self) -> None:
        self._work: queue.Queue[Any] = queue.Queue()
        self._threads = [threading.Thread(target=self._run) for _ in range(3)]
        for thread in self._threads:
            thread.start()

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        self._work.put((future, functools.partial(fn, *args, **kwargs)))
        return future

    def _run(self) -> None:
        while (work := self._work.get()) is not None:
            future, function = work
            work = None
            if not future.set_running_or_notify_cancel():
                self._work.task_done()  # or the next item belongs to one batch with this one
                continue
            try:
                future.set_result(function())
            except BaseException as error:
                future.set_exception(error)
            future = function = None
            self._work.task_done()

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        for _ in self._threads:
            self._work.put(None)
        for thread in self._threads:
            thread.join()


class Loop(Station):
    """An event loop on a thread of its own."""

    fates: ClassVar[Fates] = {
        "task": (RAISE, FORGET, CANCEL),
        "call_later": (FORGET,),
        "to_thread": (RAISE, FORGET),
        "run_in_executor": (RAISE, FORGET, CANCEL),
        "run_in_executor, own pool": (RAISE, FORGET, CANCEL),
        "run_in_executor, home-made": (RAISE, CANCEL),
        "asyncio.Queue": (RAISE,),
        "asyncio.LifoQueue": (RAISE,),
        "asyncio.PriorityQueue": (RAISE,),
    }
    native = frozenset(("task", "call_later", "to_thread"))
    consumers = 10

    def __init__(self, random: random.Random) -> None:
        super().__init__(random)
        self._tasks: set[asyncio.Task[Any]] = set()
        self._executors = {
            "run_in_executor": None,
            "run_in_executor, own pool": ThreadPoolExecutor(8),
            "run_in_executor, home-made": Elsewhere(),
        }
        opened = threading.Event()
        self.keep_running(lambda: asyncio.run(self._main(opened)))
        opened.wait()

    async def _main(self, opened: threading.Event) -> None:
        self._loop = asyncio.get_running_loop()
        self._loop.set_exception_handler(_of_a_handle)
        self._closing = asyncio.Event()
        self._queues: dict[str, asyncio.Queue[Job]] = {
            f"asyncio.{kind.__name__}": kind()
            for kind in (asyncio.Queue, asyncio.LifoQueue, asyncio.PriorityQueue)
        }
        consumers = [
            self._loop.create_task(self._consume(items, number))
            for items in self._queues.values()
            for number in range(self.consumers)
        ]
        opened.set()
        await self._closing.wait()
        for consumer in consumers:
            consumer.cancel()
        await asyncio.gather(*consumers, *self._tasks, return_exceptions=True)

    @property
    def ways(self) -> dict[str, Way]:
        methods: dict[str, Way] = {
            "task": self._task,
            "call_later": lambda job: self._loop.call_later(0.001, job.run),
            "to_thread": self._to_thread,
            **dict.fromkeys(self._executors, self._in_executor),
            **dict.fromkeys(self._queues, lambda job: self._queues[job.kind].put_nowait(job)),
        }
        return {kind: functools.partial(self._in_loop, way) for kind, way in methods.items()}

    def _in_loop(self, way: Way, job: Job) -> None:
        if self._loop is asyncio._get_running_loop():
            way(job)
        else:
            self._loop.call_soon_threadsafe(way, job)

    def _keep(self, coroutine: Any, job: Job) -> asyncio.Task[Any]:
        task = self._loop.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(functools.partial(outcome, job))
        return task

    def _task(self, job: Job) -> None:
        task = self._keep(_sleep_and_run(job), job)
        if job.fate == CANCEL:
            self._loop.call_later(0.0005, task.cancel)

    def _to_thread(self, job: Job) -> None:
        self._keep(asyncio.to_thread(job.run), job)

    def _in_executor(self, job: Job) -> None:
        future = self._loop.run_in_executor(self._executors[job.kind], job.run)
        if job.fate == CANCEL:
            future.cancel()
        future.add_done_callback(functools.partial(outcome, job))

    async def _consume(self, items: asyncio.Queue[Job], number: int) -> None:
        while True:
            job = await items.get()
            if number % 3 == 0:
                await asyncio.sleep(0)
            with suppress(FailureError):
                job.run()
            if number % 2:
                items.task_done()

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._closing.set)
        super().close()
        for executor in self._executors.values():
            if executor is not None:
                executor.shutdown()


async def _sleep_and_run(job: Job) -> int:
    await asyncio.sleep(0.001)
    return job.run()


def _of_a_handle(_: Any, context: dict[str, Any]) -> None:
    LEDGER.mistake("asyncio", f"{context.get('message')}: {context.get('exception')!r}")


class Stations:
    """All of them, open."""

    KINDS = (Threads, Pools, Schedulers, Queues, Loop)

    def __init__(self, random: random.Random, ways: dict[str, Way]) -> None:
        self._open = [kind(random) for kind in self.KINDS]
        ways.clear()
        for station in self._open:
            ways.update(station.ways)

    def close(self) -> None:
        """Close them."""
        for station in self._open:
            station.close()


FATES = dict(itertools.chain.from_iterable(kind.fates.items() for kind in Stations.KINDS))
BLOCKING = frozenset().union(*(kind.blocking for kind in Stations.KINDS))
NATIVE = frozenset().union(*(kind.native for kind in Stations.KINDS))


@contextmanager
def quiet_failures() -> Iterator[None]:
    """Have nobody told of the exceptions that jobs raise; all others are mistakes."""

    def in_thread(args: Any) -> None:
        _note("thread", args.exc_type, args.exc_value)

    def in_raw_thread(args: Any) -> None:
        _note("raw thread", args.exc_type, args.exc_value)

    before = threading.excepthook, sys.unraisablehook
    threading.excepthook, sys.unraisablehook = in_thread, in_raw_thread
    try:
        yield
    finally:
        threading.excepthook, sys.unraisablehook = before


def _note(kind: str, exception: Any, value: Any) -> None:
    if exception is not FailureError:
        LEDGER.mistake(kind, f"{exception.__name__}: {value}")
