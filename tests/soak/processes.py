"""Work that crosses into other processes, under every start method, at a modest rate.

A process checks its spans itself, and hands what it has counted back with its results.
"""

from __future__ import annotations

import functools
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures import process as executors
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ledger import INTENDED, LEDGER, LINKED, RETURN, TRACER, WAYS, Job, Tally
from opentelemetry import trace
from stations import Threads

METHODS = multiprocessing.get_all_start_methods()
FORMS = (
    "ProcessPoolExecutor",
    "ProcessPoolExecutor.map",
    "Pool",
    "Pool.map",
    "Process",
    "multiprocessing.Queue",
    "multiprocessing.JoinableQueue",
    "multiprocessing.SimpleQueue",
)
KINDS = tuple(f"{form}, {method}" for form in FORMS for method in METHODS)
WAIT = 60
"""Seconds after which what crosses is lost."""

REST = 4
"""Seconds at most between two things of a kind: to start a process is dear."""

# A lock of an executor of its parent's may be held for ever in a forked child, which asks for it at
# its end: CPython 3.14.10 and 3.15.2 hang there without this library, too.
os.register_at_fork(after_in_child=executors._threads_wakeups.clear)

# So may a lock of `threading`, for which a forked child asks before it runs any code: CPython
# 3.13.0 and 3.14.10 hang there without this library, too. What is done under it does not need it.
_OF_DUMMIES: Any = getattr(threading, "_DeleteDummyThreadOnDel", None)
if _OF_DUMMIES is not None:

    def _forget(self: Any) -> None:
        if threading._active.get(self._tident) is self._dummy_thread:
            threading._active.pop(self._tident, None)

    _OF_DUMMIES.__del__ = _forget

_SAY = "import os; print(os.environ.get('TRACEPARENT'), os.environ.get('OTEL_CONCURRENCY_LINK'))"


class Crossing:
    """Hands work to processes of one start method, until it is told to stop."""

    def __init__(self, method: str, random: random.Random, ended: threading.Event) -> None:
        self._context: Any = multiprocessing.get_context(method)
        self._method = method
        self._random = random
        self._ended = ended
        self._several = 50 if method == "fork" else 20

    def run(self) -> None:
        """Take one form after the other."""
        ways: dict[str, Callable[[list[Job]], None]] = {
            "ProcessPoolExecutor": self._executor,
            "ProcessPoolExecutor.map": self._executor_map,
            "Pool": self._pool,
            "Pool.map": self._pool_map,
            "Process": self._process,
            "multiprocessing.Queue": self._through(self._context.Queue),
            "multiprocessing.JoinableQueue": self._through(self._context.JoinableQueue),
            "multiprocessing.SimpleQueue": self._through(self._context.SimpleQueue),
        }
        forms: list[str] = []
        while not self._ended.is_set():
            if not forms:
                forms = self._random.sample(FORMS, len(FORMS))
            form = forms.pop()
            count = 4 if form == "Process" else self._several
            jobs = [self._job(f"{form}, {self._method}") for _ in range(count)]
            try:
                with origin(self._random) as span:
                    for job in jobs:
                        mark(job, span)
                    ways[form](jobs)
            except Exception as error:
                told = traceback.format_exception_only(type(error), error)[-1].strip()
                LEDGER.mistake(f"{form}, {self._method}", told)
            self._ended.wait(self._random.uniform(0, REST))

    def _job(self, kind: str) -> Job:
        children = [Job(self._random.choice(("thread", "timer", "raw thread")))]
        return Job(kind, RETURN, tuple(children[: self._random.randrange(2)]))

    def _executor(self, jobs: list[Job]) -> None:
        with ProcessPoolExecutor(2, mp_context=self._context) as pool:
            futures = [pool.submit(there, job, bool(LINKED)) for job in jobs]
            for job, future in zip(jobs, futures, strict=True):
                settle(job, future.result(WAIT))

    def _executor_map(self, jobs: list[Job]) -> None:
        with ProcessPoolExecutor(2, mp_context=self._context) as pool:
            work = functools.partial(there, linked=bool(LINKED))
            for job, result in zip(
                jobs, pool.map(work, jobs, chunksize=3, timeout=WAIT), strict=True
            ):
                settle(job, result)

    def _pool(self, jobs: list[Job]) -> None:
        recycled = self._random.choice((None, 10))
        with self._context.Pool(2, maxtasksperchild=recycled) as pool:
            results = [pool.apply_async(there, (job, bool(LINKED))) for job in jobs]
            for job, result in zip(jobs, results, strict=True):
                settle(job, result.get(WAIT))

    def _pool_map(self, jobs: list[Job]) -> None:
        pool = self._context.Pool(2)
        arguments = [(job, bool(LINKED)) for job in jobs]
        for job, result in zip(
            jobs, pool.starmap_async(there, arguments, 3).get(WAIT), strict=True
        ):
            settle(job, result)
        pool.close()
        pool.join()

    def _process(self, jobs: list[Job]) -> None:
        for job in jobs:
            mine, theirs = self._context.Pipe(duplex=False)
            process = self._context.Process(target=tell, args=(job, bool(LINKED), theirs))
            process.start()
            theirs.close()
            with mine:
                settle(job, mine.recv() if mine.poll(WAIT) else None)
            end(process)

    def _through(self, make: Callable[[], Any]) -> Callable[[list[Job]], None]:
        return functools.partial(self._consumed, make)

    def _consumed(self, make: Callable[[], Any], jobs: list[Job]) -> None:
        items = make()
        mine, theirs = self._context.Pipe(duplex=False)
        consumer = self._context.Process(target=consume, args=(items, bool(LINKED), theirs))
        consumer.start()
        theirs.close()
        for job in jobs:
            items.put(job)
        items.put(None)
        with mine:
            LEDGER.add(mine.recv() if mine.poll(WAIT) else _NOTHING)
        end(consumer)
        items.close()
        if hasattr(items, "join_thread"):
            items.join_thread()


_NOTHING: Tally = (Counter(), Counter(), Counter({"multiprocessing": 1}), ["nothing came back"])


@contextmanager
def origin(random: random.Random) -> Iterator[trace.Span | None]:
    """Be in a span, or in none."""
    if random.random() < 0.1:
        yield None
        return
    LEDGER.hand("request")
    with TRACER.start_as_current_span("request", attributes={INTENDED: 0}) as span:
        yield span


def mark(job: Job, span: trace.Span | None) -> None:
    """Write down where ``job`` is to be, and that it is on its way."""
    start = 0 if span is None else span.get_span_context().span_id
    job.intended = -start if LINKED else start
    LEDGER.hand(job.kind)


def settle(job: Job, result: tuple[int, Tally] | None) -> None:
    """Take in what came back for ``job``."""
    if result is None:
        LEDGER.mistake(job.kind, "nothing came back")
        return
    value, tally = result
    LEDGER.add(tally)
    if value != job.intended:
        LEDGER.mistake(job.kind, f"gave {value!r}")


def end(process: Any) -> None:
    """Wait for a process, and let go of it.

    Whoever starts one looks after all the others (``multiprocessing.process._cleanup``): ``join``
    comes back without an exit code where a thread that does so has taken it, and not yet noted it.
    Before 3.13 that look fails at a process that is being closed: there it is freed instead.
    """
    deadline = time.monotonic() + WAIT
    process.join(WAIT)
    while process.exitcode is None and time.monotonic() < deadline:
        time.sleep(0.001)
    if sys.version_info >= (3, 13):
        process.close()


# In the other process.


def prepare(linked: bool) -> None:
    """Know how jobs are handed off here, where this is another interpreter."""
    if not WAYS:
        WAYS.update(Threads(random.Random()).ways)
    if linked and not LINKED:
        LINKED.update(WAYS)


def there(job: Job, linked: bool) -> tuple[int, Tally]:
    """Do a job, and all that it hands off."""
    prepare(linked)
    result = job.run()
    LEDGER.settle(WAIT)
    return result, LEDGER.take()


def tell(job: Job, linked: bool, connection: Any) -> None:
    """Do a job in a process of its own."""
    connection.send(there(job, linked))
    connection.close()


def consume(items: Any, linked: bool, connection: Any) -> None:
    """Do what comes out of a queue."""
    prepare(linked)
    while (job := items.get()) is not None:
        job.run()
        if hasattr(items, "task_done"):
            items.task_done()
    job = None
    LEDGER.settle(WAIT)
    connection.send(LEDGER.take())
    connection.close()


# What is started by other means.


def fork(random: random.Random) -> None:
    """Fork where this thread is, whatever the others are in the middle of; work in the child."""
    with origin(random) as span:
        job = Job("fork", RETURN, (Job("thread"), Job("timer")))
        mark(job, span)
        child = os.fork()
        if not child:
            status = 1
            try:
                signal.alarm(WAIT)
                LINKED.discard("fork")
                job.intended = abs(job.intended)  # it is in the context that it was forked in
                job.run()
                LEDGER.hand("fork")
                status = bool(LEDGER.settle(WAIT) or LEDGER.wrong)
            finally:
                os._exit(status)
    _, status = os.waitpid(child, 0)
    if status:
        LEDGER.mistake("fork", f"the child has ended with {status}")
    LEDGER.add((Counter(), Counter({"fork": 1}), Counter(), []))


def command(random: random.Random) -> None:
    """Run a command, which says what it finds in its environment."""
    with origin(random) as span:
        job = Job("subprocess")
        mark(job, span)
        said = subprocess.check_output(
            [sys.executable, "-I", "-S", "-c", _SAY], text=True, timeout=WAIT
        ).split(maxsplit=1)
    parent, link = (int(one.split("-")[2], 16) if "-" in one else 0 for one in said)
    if (parent or -link) != job.intended:
        LEDGER.mistake(job.kind, f"found {said}, and was meant to find {job.intended:x}")
    LEDGER.add((Counter(), Counter({job.kind: 1}), Counter(), []))


def many_interpreters(random: random.Random) -> None:
    """Hand work off in interpreters of another process, each of which checks it."""
    command = [sys.executable, str(Path(__file__).with_name("many_interpreters.py"))]
    LEDGER.hand("interpreters")
    done = subprocess.run(command, capture_output=True, text=True, timeout=WAIT, check=False)
    if done.returncode:
        LEDGER.mistake("interpreters", f"have ended with {done.returncode}: {done.stderr}")
    LEDGER.add((Counter(), Counter({"interpreters": 1}), Counter(), []))
