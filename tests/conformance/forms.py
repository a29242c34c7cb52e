"""The dispatch forms: every way in which a program hands a callable to another flow of control.

A :class:`Form` says how one of them is used and what it can do; it says nothing about what is
expected of it. The expectations are in ``test_calls.py`` and hold for every form alike, after the
executor tests of OpenTelemetry's Java agent. A new primitive adds its forms to :data:`FORMS`.
"""

from __future__ import annotations

import _thread
import abc
import asyncio
import collections
import contextlib
import functools
import logging
import sched
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar

from flows import WAIT, without_context
from interpreters import DeathEvent
from otel_concurrency import capture, wrap

NO_THREADS = "can't start new thread"
SHUT_DOWN = "shut down"

Work = Callable[[], Any]


class Fatal(BaseException):
    """An exception that ``except Exception`` does not catch."""


@contextlib.contextmanager
def no_more_threads() -> Iterator[None]:
    """Make the operating system refuse every new thread: no address space has such a stack."""
    before = threading.stack_size(1 << 47)
    try:
        yield
    finally:
        threading.stack_size(before)


@dataclass
class Handle:
    """One hand-off, as whoever made it can see it."""

    held: tuple[Any, ...]
    """What the program may keep: the thread, the future, the event."""

    wait: Callable[[], None]
    """Returns when the work has been done, whatever came of it."""

    error: Callable[[], BaseException | None]
    """The exception of the work, from wherever this form leaves it."""

    result: Callable[[], Any] | None = None
    cancel: Callable[[], Any] | None = None


class Form(abc.ABC):
    """One dispatch form. Entering it gives it a worker, if it has one; leaving it takes it away."""

    name: ClassVar[str]

    setting: ClassVar[str | None]
    """The primitive that covers it; None where Python carries context natively."""

    settings: ClassVar[Mapping[str, str]] = MappingProxyType({})
    """Other settings than the default ones."""

    reuses_worker: ClassVar[bool] = False
    """Whether the next hand-off is picked up by the same thread."""

    tidies_worker: ClassVar[bool] = False
    """Whether also work that was handed off without context leaves its worker as it found it."""

    returns_result: ClassVar[bool] = False
    cancels: ClassVar[bool] = False
    raises: ClassVar[tuple[type[BaseException], ...]] = (
        ValueError,
        Fatal,
        SystemExit,
        KeyboardInterrupt,
    )
    ways_to_fail: ClassVar[tuple[str, ...]] = ()

    def __enter__(self) -> Form:
        with contextlib.ExitStack() as stack:
            self.open(stack)
            self._closing = stack.pop_all()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._closing.close()

    @abc.abstractmethod
    def open(self, stack: contextlib.ExitStack) -> None:
        """Set up what :meth:`hand_off` needs; ``stack`` takes it down."""

    @abc.abstractmethod
    def hand_off(self, work: Work) -> Handle:
        """Hand ``work`` off in the current context."""

    @contextlib.contextmanager
    def occupied(self) -> Iterator[None]:
        """Keep what is handed off from being picked up."""
        yield

    @contextlib.contextmanager
    def failing(self, way: str) -> Iterator[None]:
        """Make :meth:`hand_off` raise, in one of :attr:`ways_to_fail`."""
        assert way == NO_THREADS
        with no_more_threads():
            yield


class _RunInThread(Form):
    """Forms whose worker is a ``threading.Thread`` of its own."""

    setting = "threading"
    ways_to_fail = (NO_THREADS,)

    def open(self, stack: contextlib.ExitStack) -> None:
        self.errors: dict[str, BaseException] = {}
        before = threading.excepthook

        def excepthook(args: Any) -> None:
            self.errors[args.thread.name] = args.exc_value

        threading.excepthook = excepthook
        stack.callback(setattr, threading, "excepthook", before)

    @abc.abstractmethod
    def make(self, work: Work) -> threading.Thread:
        """Return a thread that will do ``work``."""

    def hand_off(self, work: Work) -> Handle:
        thread = self.make(work)
        thread.start()
        return Handle(
            held=(thread,),
            wait=functools.partial(_join, thread),
            error=functools.partial(self.errors.get, thread.name),
            cancel=getattr(thread, "cancel", None),
        )


def _join(thread: threading.Thread) -> None:
    thread.join(WAIT)
    assert not thread.is_alive()


class ThreadTarget(_RunInThread):
    name = "Thread(target)"

    def make(self, work: Work) -> threading.Thread:
        return threading.Thread(target=work)


class _OverridesRun(threading.Thread):
    def __init__(self, work: Work) -> None:
        super().__init__()
        self.work = work

    def run(self) -> None:
        self.work()


class ThreadRun(_RunInThread):
    name = "Thread subclass with run"

    def make(self, work: Work) -> threading.Thread:
        return _OverridesRun(work)


class _OverridesStart(threading.Thread):
    def start(self) -> None:
        super().start()


class ThreadStart(_RunInThread):
    name = "Thread subclass with start"

    def make(self, work: Work) -> threading.Thread:
        return _OverridesStart(target=work)


class Timer(_RunInThread):
    name = "Timer"
    cancels = True
    type_of_timer: ClassVar[type[threading.Timer]] = threading.Timer

    def open(self, stack: contextlib.ExitStack) -> None:
        super().open(stack)
        self.interval = 0

    def make(self, work: Work) -> threading.Thread:
        return self.type_of_timer(self.interval, work)

    @contextlib.contextmanager
    def occupied(self) -> Iterator[None]:
        self.interval = 3600
        yield
        self.interval = 0


class _OverridesTimer(threading.Timer):
    def run(self) -> None:
        self.finished.wait(self.interval)
        if not self.finished.is_set():
            self.function(*self.args, **self.kwargs)


class TimerSubclass(Timer):
    name = "Timer subclass"
    type_of_timer = _OverridesTimer


class RawThread(Form):
    name = "start_new_thread"
    setting = "threading"
    arguments = "2nd arg must be a tuple"
    ways_to_fail = (NO_THREADS, arguments)

    def open(self, stack: contextlib.ExitStack) -> None:
        self.pass_list = False
        self.errors: list[BaseException] = []
        before = sys.unraisablehook

        def unraisablehook(unraisable: Any) -> None:
            self.errors.append(unraisable.exc_value)

        sys.unraisablehook = unraisablehook
        stack.callback(setattr, sys, "unraisablehook", before)

    def hand_off(self, work: Work) -> Handle:
        ended = DeathEvent()
        args: Any = (work, ended)
        _thread.start_new_thread(_raw_body, list(args) if self.pass_list else args)

        def wait() -> None:
            assert ended.wait(WAIT)

        return Handle(held=(), wait=wait, error=lambda: self.errors[0] if self.errors else None)

    # An exception of this kind ends the thread silently.
    raises = (ValueError, Fatal, KeyboardInterrupt)

    @contextlib.contextmanager
    def failing(self, way: str) -> Iterator[None]:
        if way == NO_THREADS:
            with no_more_threads():
                yield
        else:
            self.pass_list = True
            yield
            self.pass_list = False


class _ThreadEnd:
    """Sets an event when the thread that holds it as a thread-local is gone."""

    def __init__(self, event: threading.Event) -> None:
        self._event = event

    def __del__(self) -> None:
        self._event.set()


_of_raw_thread = threading.local()


def _raw_body(work: Work, ended: threading.Event) -> None:
    _of_raw_thread.end = _ThreadEnd(ended)
    work()


class _RunInPool(Form):
    """Forms whose worker is the single one of ``self.pool``."""

    setting = "futures"
    reuses_worker = True
    returns_result = True
    pool: Executor

    @contextlib.contextmanager
    def occupied(self) -> Iterator[None]:
        busy, free = threading.Event(), threading.Event()

        def occupy() -> None:
            busy.set()
            assert free.wait(WAIT)

        occupation = without_context(self.pool.submit, occupy)
        assert busy.wait(WAIT)
        try:
            yield
        finally:
            free.set()
            occupation.result(WAIT)

    @contextlib.contextmanager
    def failing(self, way: str) -> Iterator[None]:
        if way == SHUT_DOWN:
            self.pool.shutdown()
            yield
        else:
            with no_more_threads():
                yield


class Submit(_RunInPool):
    name = "ThreadPoolExecutor.submit"
    tidies_worker = True
    cancels = True
    ways_to_fail = (SHUT_DOWN, NO_THREADS)
    type_of_pool: ClassVar[type[ThreadPoolExecutor]] = ThreadPoolExecutor

    def open(self, stack: contextlib.ExitStack) -> None:
        self.pool = stack.enter_context(self.type_of_pool(1))

    def hand_off(self, work: Work) -> Handle:
        future = self.pool.submit(work)
        return Handle(
            held=(future,),
            wait=functools.partial(_wait_for, future),
            error=functools.partial(future.exception, WAIT),
            result=functools.partial(future.result, WAIT),
            cancel=future.cancel,
        )


def _wait_for(future: Future[Any]) -> None:
    future.exception(WAIT)


class _OverridesSubmit(ThreadPoolExecutor):
    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        return super().submit(self._call, fn, *args, **kwargs)

    def _call(self, fn: Any, *args: Any, **kwargs: Any) -> Any:
        return fn(*args, **kwargs)


class SubmitSubclass(Submit):
    name = "ThreadPoolExecutor subclass"
    type_of_pool = _OverridesSubmit


class ExecutorMap(Submit):
    name = "Executor.map"
    cancels = False  # an iterator that nobody has asked for anything cancels nothing

    def hand_off(self, work: Work) -> Handle:
        results = self.pool.map(_call, [work], timeout=WAIT)
        return Handle(
            held=(results,),
            wait=lambda: without_context(self.pool.submit, int).result(WAIT),
            error=functools.partial(_error_of, results),
            result=functools.partial(next, results),
        )


class BufferedMap(Submit):
    """The iterator keeps the context for the items that are still to be submitted."""

    name = "Executor.map(buffersize=1)"
    cancels = False
    ways_to_fail = (NO_THREADS,)

    def hand_off(self, work: Work) -> Handle:
        results = self.pool.map(_call, [work], timeout=WAIT, buffersize=1)
        outcome: Future[Any] = Future()

        def wait() -> None:
            _complete(outcome, _only, (results,), {})

        def of_outcome(method: Callable[..., Any]) -> Any:
            if not outcome.done():
                wait()
            return method(WAIT)

        return Handle(
            held=(results, outcome),
            wait=wait,
            error=lambda: of_outcome(outcome.exception),
            result=lambda: of_outcome(outcome.result),
        )


def _only(results: Iterator[Any]) -> Any:
    (result,) = results
    return result


def _call(work: Work) -> Any:
    return work()


def _error_of(results: Iterator[Any]) -> BaseException | None:
    try:
        next(results)
    except BaseException as error:
        return error
    return None


class DoneCallback(Form):
    """The future is completed by a worker that has nothing to do with whoever registered."""

    name = "Future.add_done_callback"
    setting = "futures"
    reuses_worker = True

    def open(self, stack: contextlib.ExitStack) -> None:
        self.worker = stack.enter_context(OwnWorker())
        self.log = _Errors()
        logger = logging.getLogger("concurrent.futures")
        logger.addHandler(self.log)
        stack.callback(logger.removeHandler, self.log)

    def hand_off(self, work: Work) -> Handle:
        future: Future[None] = Future()
        future.add_done_callback(functools.partial(_call_back, work))
        completions: list[Future[None]] = []

        def wait() -> None:
            if not completions:
                completions.append(self.worker.submit(future.set_result, None))
            completions[0].exception(WAIT)

        def error() -> BaseException | None:
            return self.log.last or completions[0].exception(WAIT)

        return Handle(held=(future,), wait=wait, error=error)


def _call_back(work: Work, future: Future[None]) -> None:
    work()


class _Errors(logging.Handler):
    last: BaseException | None = None

    def emit(self, record: logging.LogRecord) -> None:
        self.last = record.exc_info[1] if record.exc_info else None


class ThreadPerCall(Executor):
    """A home-made executor that starts a thread for each call."""

    def __init__(self) -> None:
        self.names: list[str | None] = []
        self._threads: list[threading.Thread] = []

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        self.names.append(getattr(fn, "__name__", None))
        future: Future[Any] = Future()
        thread = threading.Thread(target=_complete, args=(future, fn, args, kwargs))
        thread.start()
        self._threads.append(thread)
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        for thread in self._threads:
            _join(thread)


class OwnWorker(Executor):
    """A home-made executor with one thread, started at once, that is handed calls in a list."""

    def __init__(self) -> None:
        self.names: list[str | None] = []
        self._calls: collections.deque[Any] = collections.deque()
        self._waiting = threading.Semaphore(0)
        self._closed = False
        self._thread = threading.Thread(target=self._work)
        without_context(self._thread.start)

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        if self._closed:
            raise RuntimeError("the worker has gone")
        self.names.append(getattr(fn, "__name__", None))
        future: Future[Any] = Future()
        self._put((future, fn, args, kwargs))
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        self._closed = True
        self._put(None)
        _join(self._thread)

    def _put(self, call: Any) -> None:
        self._calls.append(call)
        self._waiting.release()

    def _work(self) -> None:
        while self._waiting.acquire() and (call := self._calls.popleft()) is not None:
            _complete(*call)
            del call


def _complete(future: Future[Any], fn: Any, args: Any, kwargs: Any) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        result = fn(*args, **kwargs)
    except BaseException as error:
        future.set_exception(error)
        del future
    else:
        future.set_result(result)


class _RunInLoop(Form):
    """Forms of asyncio. The loop runs in the thread that hands off, while it waits."""

    returns_result = True

    def open(self, stack: contextlib.ExitStack) -> None:
        self.loop = asyncio.new_event_loop()
        stack.callback(self.loop.close)
        stack.callback(self.run, self.loop.shutdown_default_executor)

    def run(self, function: Any, *args: Any) -> Any:
        """Run the coroutine of ``function`` in the loop, in no context."""
        return without_context(lambda: self.loop.run_until_complete(function(*args)))

    def handle(self, future: asyncio.Future[Any], *held: Any) -> Handle:
        def cancel() -> None:
            future.cancel()
            self.run(asyncio.sleep, 0)
            self.run(asyncio.sleep, 0)

        def wait() -> None:
            _, pending = self.run(_settled, future)
            assert not pending
            if not future.cancelled():
                future.exception()  # which asyncio would log in the middle of another test

        return Handle(
            held=(future, *held),
            wait=wait,
            error=future.exception,
            result=future.result,
            cancel=cancel,
        )


async def _settled(future: asyncio.Future[Any]) -> Any:
    return await asyncio.wait([future], timeout=WAIT)


class RunInDefaultExecutor(_RunInLoop, _RunInPool):
    name = "run_in_executor(None)"
    tidies_worker = True
    cancels = True
    ways_to_fail = (SHUT_DOWN, NO_THREADS)
    given: Any = None

    def open(self, stack: contextlib.ExitStack) -> None:
        super().open(stack)
        self.pool = ThreadPoolExecutor(1)
        self.loop.set_default_executor(self.pool)

    def hand_off(self, work: Work) -> Handle:
        return self.handle(self.loop.run_in_executor(self.given, work))


class RunInThreadPool(RunInDefaultExecutor):
    name = "run_in_executor(ThreadPoolExecutor)"
    given = property(lambda self: self.pool)


class RunInThreadPoolAlone(RunInThreadPool):
    name = "run_in_executor(ThreadPoolExecutor), futures off"
    setting = "asyncio"
    settings = MappingProxyType({"futures": "off"})
    tidies_worker = False


class RunInThreadPerCall(_RunInLoop):
    name = "run_in_executor(home-made, thread per call)"
    setting = "asyncio"
    ways_to_fail = (NO_THREADS,)

    def open(self, stack: contextlib.ExitStack) -> None:
        super().open(stack)
        self.pool: Any = stack.enter_context(ThreadPerCall())

    def hand_off(self, work: Work) -> Handle:
        return self.handle(self.loop.run_in_executor(self.pool, work))


class RunInOwnWorker(_RunInLoop, _RunInPool):
    name = "run_in_executor(home-made, own worker)"
    setting = "asyncio"
    cancels = True
    ways_to_fail = (SHUT_DOWN,)

    def open(self, stack: contextlib.ExitStack) -> None:
        super().open(stack)
        self.pool: Any = OwnWorker()
        stack.callback(self.pool.shutdown)

    def hand_off(self, work: Work) -> Handle:
        return self.handle(self.loop.run_in_executor(self.pool, work))

    @contextlib.contextmanager
    def failing(self, way: str) -> Iterator[None]:
        self.pool._closed = True
        yield
        self.pool._closed = False


class _Native(_RunInLoop):
    """Context is carried by asyncio itself, in copies of its own."""

    setting = None
    reuses_worker = True
    raises = (ValueError,)  # the loop lets the others through to whoever runs it


class CreateTask(_Native):
    name = "create_task"

    def hand_off(self, work: Work) -> Handle:
        return self.handle(self.loop.create_task(_coroutine(work)))


async def _coroutine(work: Work) -> Any:
    return work()


class RunCoroutineThreadsafe(_Native):
    name = "run_coroutine_threadsafe"

    def hand_off(self, work: Work) -> Handle:
        future = asyncio.run_coroutine_threadsafe(_coroutine(work), self.loop)
        return self.handle(asyncio.wrap_future(future, loop=self.loop))


class ToThread(_Native):
    name = "to_thread"
    reuses_worker = False

    def hand_off(self, work: Work) -> Handle:
        return self.handle(self.loop.create_task(asyncio.to_thread(work)))


class CallSoon(_Native):
    name = "call_soon"
    arguments: ClassVar[tuple[Any, ...]] = ()

    def hand_off(self, work: Work) -> Handle:
        future = self.loop.create_future()
        scheduled = getattr(self.loop, self.name)(*self.arguments, _complete_here, future, work)
        return self.handle(future, scheduled)


def _complete_here(future: asyncio.Future[Any], work: Work) -> None:
    try:
        future.set_result(work())
    except Exception as error:
        future.set_exception(error)


class CallSoonThreadsafe(CallSoon):
    name = "call_soon_threadsafe"


class CallLater(CallSoon):
    name = "call_later"
    arguments = (0,)


class Enter(Form):
    """The scheduler is run by a worker that has nothing to do with whoever entered the event."""

    name = "scheduler.enter"
    setting = "sched"
    reuses_worker = True
    cancels = True

    def open(self, stack: contextlib.ExitStack) -> None:
        self.scheduler = sched.scheduler()
        self.worker = stack.enter_context(OwnWorker())

    def enter(self, work: Work) -> sched.Event:
        return self.scheduler.enter(0, 1, work)

    def hand_off(self, work: Work) -> Handle:
        event = self.enter(work)
        runs: list[Future[Any]] = []

        def wait() -> None:
            runs.append(self.worker.submit(self.scheduler.run, blocking=False))
            runs[-1].exception(WAIT)

        return Handle(
            held=(event,),
            wait=wait,
            error=lambda: runs[-1].exception(WAIT),
            cancel=functools.partial(self.scheduler.cancel, event),
        )


class EnterAbs(Enter):
    name = "scheduler.enterabs"

    def enter(self, work: Work) -> sched.Event:
        return self.scheduler.enterabs(0, 1, work)


class RunByHand(_RunInPool):
    """The program hands off by hand, to a worker that no hook sees being handed anything."""

    name = "HandOff.run"
    setting = None

    def open(self, stack: contextlib.ExitStack) -> None:
        self.pool = stack.enter_context(OwnWorker())

    def bind(self, work: Work) -> Work:
        return functools.partial(capture().run, work)

    def hand_off(self, work: Work) -> Handle:
        future = self.pool.submit(self.bind(work))
        return Handle(
            held=(future,),
            wait=functools.partial(_wait_for, future),
            error=functools.partial(future.exception, WAIT),
            result=functools.partial(future.result, WAIT),
        )


class WrapByHand(RunByHand):
    name = "wrap"

    def bind(self, work: Work) -> Work:
        return wrap(work)


class WithByHand(RunByHand):
    name = "with capture()"

    def bind(self, work: Work) -> Work:
        handoff = capture()

        def call() -> Any:
            with handoff:
                return work()

        return call


FORMS: tuple[type[Form], ...] = (
    ThreadTarget,
    ThreadRun,
    ThreadStart,
    Timer,
    TimerSubclass,
    RawThread,
    Submit,
    SubmitSubclass,
    ExecutorMap,
    DoneCallback,
    RunInDefaultExecutor,
    RunInThreadPool,
    RunInThreadPoolAlone,
    RunInThreadPerCall,
    RunInOwnWorker,
    CreateTask,
    RunCoroutineThreadsafe,
    ToThread,
    CallSoon,
    CallSoonThreadsafe,
    CallLater,
    Enter,
    EnterAbs,
    RunByHand,
    WrapByHand,
    WithByHand,
    *([BufferedMap] if sys.version_info >= (3, 14) else []),
)
