"""Whose context things run in that are not themselves handed off, or that have one already."""

from __future__ import annotations

import asyncio
import concurrent.futures.thread
import contextvars
import decimal
import functools
import gc
import os
import subprocess
import sys
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest
from forms import WAIT, OwnWorker, without_context
from opentelemetry import trace
from opentelemetry.context import attach, detach, get_current, get_value, set_value

from interpreters import weak_reference
from otel_concurrency import ConcurrencyInstrumentor

pytestmark = pytest.mark.usefixtures("instrumented")

since_3_14 = sys.version_info >= (3, 14)


def value():
    """Return what tells the contexts of a test apart."""
    return get_value("value")


@pytest.fixture
def in_a():
    """Run the test in a context in which :func:`value` is ``a``."""
    token = attach(set_value("value", "a"))
    yield
    detach(token)


@pytest.fixture
def worker():
    """Return an executor of somebody else's that hands nothing off, for doing things elsewhere."""
    with OwnWorker() as worker:
        yield worker


# A pool's workers


def test_an_initializer_runs_in_no_context(in_a):
    """A pool that is first used inside a span runs its initializer outside of it."""
    seen = []

    with ThreadPoolExecutor(1, initializer=lambda: seen.append(get_current())) as pool:
        assert pool.submit(value).result(WAIT) == "a"

    assert seen == [{}]


def test_a_context_variable_that_an_initializer_sets_is_seen_by_every_task(in_a):
    """Tasks run in the worker's own context variables, not in a copy of the submitter's."""
    variable = contextvars.ContextVar("variable")

    with ThreadPoolExecutor(1, initializer=variable.set, initargs=("of the worker",)) as pool:
        seen = pool.submit(lambda: (variable.get(), value())).result(WAIT)
        plain = without_context(pool.submit, variable.get).result(WAIT)

    assert seen == ("of the worker", "a")
    assert plain == "of the worker"


def test_a_context_variable_that_a_task_sets_is_seen_by_the_next(in_a):
    """A task's own context variables stay in its worker, as they do without the library."""
    variable = contextvars.ContextVar("variable")

    with ThreadPoolExecutor(1) as pool:
        pool.submit(variable.set, "of the task").result(WAIT)

        assert pool.submit(variable.get).result(WAIT) == "of the task"


def test_a_context_that_an_initializer_attaches_is_the_workers_base(in_a):
    """A context attached on purpose, for all that the worker does, is left in place."""

    def initialize():
        attach(set_value("value", "of the worker"))

    with ThreadPoolExecutor(1, initializer=initialize) as pool:
        seen = [
            without_context(pool.submit, value).result(WAIT),
            pool.submit(value).result(WAIT),
            without_context(pool.submit, value).result(WAIT),
        ]

    assert seen == ["of the worker", "a", "of the worker"]


def test_the_decimal_context_of_a_worker_is_its_own(in_a):
    """``decimal.setcontext`` in an initializer holds for every task of that worker."""
    precise = decimal.Context(prec=77)

    with ThreadPoolExecutor(1, initializer=decimal.setcontext, initargs=(precise,)) as pool:
        assert pool.submit(lambda: decimal.getcontext().prec).result(WAIT) == 77


def test_an_initializer_that_raises_breaks_the_pool_as_it_does_without(in_a, caplog):
    """The pool reports a broken initializer in the way of the standard library."""

    def initialize():
        raise ValueError("of the program")

    with (
        ThreadPoolExecutor(1, initializer=initialize) as pool,
        pytest.raises(concurrent.futures.thread.BrokenThreadPool),
    ):
        pool.submit(value).result(WAIT)

    assert [record.name for record in caplog.records] == ["concurrent.futures"]


def test_an_idle_worker_refers_to_no_context(in_a, tracer):
    """No frame of a worker that waits for work has a context in its variables."""
    with ThreadPoolExecutor(1) as pool, tracer.start_as_current_span("origin"):
        ident = pool.submit(threading.get_ident).result(WAIT)
        without_context(pool.submit, int).result(WAIT)
        frame = sys._current_frames()[ident]
        held = []
        while frame is not None:
            held += [held for held in frame.f_locals.values() if held == get_current()]
            frame = frame.f_back

    assert held == []


# Callbacks


@pytest.mark.parametrize("registered", ["before", "after"])
@pytest.mark.parametrize("by", ["a", None], ids=["registered in a context", "registered in none"])
def test_a_done_callback_runs_in_the_context_of_its_registration(by, registered, worker):
    """Whoever completes the future, and whether or not it is complete at registration."""
    seen = []
    future = Future()

    def register():
        if by:
            attach(set_value("value", by))
        future.add_done_callback(lambda _: seen.append(value()))

    def complete():
        attach(set_value("value", "of whoever completes"))
        future.set_result(None)

    for step in (register, complete) if registered == "before" else (complete, register):
        worker.submit(contextvars.Context().run, step).result(WAIT)

    assert seen == [by]


@pytest.mark.parametrize("by", ["a", None], ids=["registered in a context", "registered in none"])
def test_a_done_callback_that_forgets_to_detach_leaves_nothing_behind(by, worker):
    """Whoever completes a future is in the same context before and after its callbacks ran."""
    future = Future()
    token = attach(set_value("value", by)) if by else None
    future.add_done_callback(lambda _: attach(set_value("value", "left behind")))
    if token:
        detach(token)

    worker.submit(future.set_result, None).result(WAIT)

    assert worker.submit(value).result(WAIT) is None


def test_each_done_callback_of_a_future_runs_in_its_own_context(worker):
    """Callbacks of one future that were registered in different places do not see each other's."""
    seen = []
    future = Future()
    for registered in ("a", None, "b", None):
        token = attach(set_value("value", registered)) if registered else None
        future.add_done_callback(lambda _: seen.append(value()))
        if token:
            detach(token)

    worker.submit(future.set_result, None).result(WAIT)

    assert seen == ["a", None, "b", None]


def test_a_done_callback_of_a_pools_future_does_not_run_in_the_tasks_context():
    """A callback that was registered without context runs in none after a task that had one."""
    started, go_on, called = threading.Event(), threading.Event(), threading.Event()
    seen = []

    def work():
        started.set()
        go_on.wait(WAIT)
        return value()

    with ThreadPoolExecutor(1) as pool:
        token = attach(set_value("value", "a"))
        future = pool.submit(work)
        detach(token)
        assert started.wait(WAIT)
        future.add_done_callback(lambda _: (seen.append(value()), called.set()))
        go_on.set()
        assert future.result(WAIT) == "a"
        assert called.wait(WAIT)

    assert seen == [None]


def test_a_callback_of_a_cancelled_future_runs_in_the_context_of_its_registration(in_a):
    """Cancelling completes a future too."""
    seen = []
    future = Future()
    future.add_done_callback(lambda _: seen.append(value()))

    without_context(future.cancel)

    assert seen == ["a"]


def test_a_callback_that_raises_is_logged_as_it_is_without(in_a, caplog):
    """The exception of a callback goes to the standard library's log, and no further."""
    future = Future()

    def call_back(_):
        raise ValueError("of the program")

    future.add_done_callback(call_back)
    without_context(future.set_result, None)

    (record,) = caplog.records
    assert record.name == "concurrent.futures"
    assert str(record.exc_info[1]) == "of the program"


@pytest.mark.parametrize("base", [threading.Thread, threading.Timer], ids=["Thread", "Timer"])
def test_the_excepthook_sees_the_threads_context(base, in_a, monkeypatch):
    """``threading.excepthook`` reports in the context of the thread that failed."""
    seen = []
    monkeypatch.setattr(threading, "excepthook", lambda args: seen.append(value()))

    class Failing(base):
        def run(self):
            raise ValueError("of the program")

    thread = Failing(0, None) if base is threading.Timer else Failing()
    thread.start()
    without_context(thread.join, WAIT)

    assert seen == ["a"]


# Contexts that the program passes itself


def test_a_context_passed_to_submit_is_not_overlaid(in_a):
    """``submit(context.run, f)`` runs ``f`` in what that context has, and nothing else."""
    other = contextvars.Context()
    other.run(attach, set_value("value", "b"))

    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(other.run, value).result(WAIT) == "b"
        assert pool.submit(contextvars.Context().run, value).result(WAIT) is None
        assert pool.submit(functools.partial(other.run, value)).result(WAIT) == "b"
        assert without_context(pool.submit, value).result(WAIT) is None


def test_a_context_passed_to_a_thread_as_its_target_is_not_overlaid(in_a):
    """``Thread(target=context.run)`` runs in what that context has."""
    other = contextvars.Context()
    other.run(attach, set_value("value", "b"))
    seen = []

    for context in (other, contextvars.Context()):
        thread = threading.Thread(target=context.run, args=(lambda: seen.append(value()),))
        thread.start()
        thread.join(WAIT)

    assert seen == ["b", None]


def test_to_thread_and_gather_keep_what_asyncio_gives_them(in_a):
    """Each task has its own context, and what it hands to a thread has that."""

    async def one(name):
        token = attach(set_value("value", name))
        await asyncio.sleep(0)
        seen = await asyncio.to_thread(value)
        inside = await asyncio.get_running_loop().run_in_executor(None, value)
        detach(token)
        return seen, inside, value()

    async def main():
        return await asyncio.gather(*(one(name) for name in "bcd"))

    assert asyncio.run(main()) == [(name, name, "a") for name in "bcd"]


if since_3_14:

    @pytest.mark.parametrize("given", ["b", None], ids=["with a context", "empty"])
    def test_the_context_argument_of_a_thread_wins(given, in_a, monkeypatch):
        """``Thread(context=...)`` is the program's word, also where that context is empty."""
        seen = []
        monkeypatch.setattr(threading, "excepthook", lambda args: None)
        context = contextvars.Context()
        if given:
            context.run(attach, set_value("value", given))

        def work():
            seen.append(value())
            raise ValueError

        thread = threading.Thread(target=work, context=context)
        thread.start()
        thread.join(WAIT)

        assert seen == [given]
        assert context.run(value) == given

    def test_a_context_argument_that_is_the_current_one_is_not_touched(in_a):
        """A thread that runs in a copy of the submitter's context has it from that copy."""
        seen = []
        context = contextvars.copy_context()

        def work():
            seen.append(value())
            attach(set_value("value", "of the thread"))

        thread = threading.Thread(target=work, context=context)
        thread.start()
        thread.join(WAIT)

        assert seen == ["a"]
        assert context.run(value) == "of the thread"

    @pytest.mark.parametrize("how", ["flag", "variable"])
    def test_inherited_context_gives_no_worker_a_base(how):
        """Where CPython itself starts threads in a copied context, all of this holds as well."""
        flags = ["-X", "thread_inherit_context=1"] if how == "flag" else []
        variables = {"PYTHON_THREAD_INHERIT_CONTEXT": "1"} if how == "variable" else {}
        run = subprocess.run(
            [sys.executable, *flags, "-c", _INHERITING],
            env={**os.environ, **variables},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

        assert run.stderr == ""
        assert run.stdout.split() == _INHERITING_EXPECTED

    @pytest.mark.scale  # on each version the gate's jobs for inherited context run it, and the rest
    def test_everything_travels_and_ends_where_context_is_inherited():
        """The whole suite of hand-offs holds there too, CPython's own copies notwithstanding."""
        run = subprocess.run(
            [
                *(sys.executable, "-X", "thread_inherit_context=1"),
                *("-m", "pytest", "-q", "-p", "no:cacheprovider", "-x"),
                str(Path(__file__).with_name("test_calls.py")),
            ],
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )

        assert run.returncode == 0, run.stdout

    def test_an_idle_worker_keeps_no_inherited_context():
        """The copy that CPython gives a pool's worker does not hold its first submitter's span."""
        run = subprocess.run(
            [sys.executable, "-X", "thread_inherit_context=1", "-c", _IDLE],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

        assert (run.stdout.strip(), run.stderr) == ("gone", "")

    _IDLE = """
import threading, weakref
from concurrent.futures import ThreadPoolExecutor
from contextvars import Context
from opentelemetry.context import attach, set_value
from otel_concurrency import ConcurrencyInstrumentor

class Held:
    pass

ConcurrencyInstrumentor().instrument()
gone = threading.Event()
pool = ThreadPoolExecutor(1)

def use():
    held = Held()
    weakref.finalize(held, gone.set).atexit = False
    attach(set_value("held", held))
    pool.submit(int).result()

Context().run(use)
Context().run(pool.submit, int).result()
print("gone" if gone.wait(5) else "kept")
pool.shutdown()
"""

    _INHERITING = """
import logging.handlers, queue, sys, threading
from concurrent.futures import ThreadPoolExecutor
from contextvars import Context
from opentelemetry.context import attach, detach, get_value, set_value
from otel_concurrency import ConcurrencyInstrumentor

assert sys.flags.thread_inherit_context
ConcurrencyInstrumentor().instrument()

def value():
    return get_value("value")

def in_thread(**arguments):
    seen = []
    thread = threading.Thread(target=lambda: seen.append(value()), **arguments)
    thread.start()
    thread.join()
    return seen[0]

token = attach(set_value("value", "a"))
initialized = []
pool = ThreadPoolExecutor(1, initializer=lambda: initialized.append(value()))
print(pool.submit(value).result(), initialized[0])
print(in_thread(), in_thread(context=Context()))
seen = []
class Handler(logging.Handler):
    def emit(self, record):
        seen.append(value())
records = queue.Queue()
listener = logging.handlers.QueueListener(records, Handler())
listener.start()
records.put(logging.makeLogRecord({}))
listener.stop()
print(seen[0])
detach(token)
print(pool.submit(value).result(), in_thread())
pool.shutdown()
"""
    _INHERITING_EXPECTED = ["a", "None", "a", "None", "None", "None", "None"]


# Ends of workers


def test_a_worker_that_was_started_before_the_library_was_switched_on(instrumented, tracer):
    """It is as clean as any other, and the work that it picks up has its context."""
    instrumented.uninstrument()
    with ThreadPoolExecutor(1) as pool:
        pool.submit(int).result(WAIT)
        ConcurrencyInstrumentor().instrument()
        with tracer.start_as_current_span("origin") as origin:
            seen = pool.submit(trace.get_current_span).result(WAIT)
        assert seen is origin
        assert pool.submit(get_current).result(WAIT) == {}


def test_a_future_that_completes_while_submit_returns_is_not_disturbed(in_a):
    """A pool whose workers are faster than its submitter completes every future."""

    class Eager(ThreadPoolExecutor):
        def submit(self, fn, /, *args, **kwargs):
            return super().submit(fn, *args, **kwargs)

    with Eager(4) as pool:
        futures = [pool.submit(value) for _ in range(2000)]
        assert {future.result(WAIT) for future in futures} == {"a"}
        assert [future for future in futures if len(vars(future)) != len(vars(Future()))] == []


def test_a_failed_task_is_freed_with_its_future_without_gc():
    """A pool's future that holds an exception is in no reference cycle, as without the library."""

    class Argument:
        pass

    def fail(_argument):
        raise LookupError

    gc.disable()
    try:
        with ThreadPoolExecutor(1) as pool:
            for context in (None, set_value("key", "value")):
                argument = Argument()
                token = None if context is None else attach(context)
                future = pool.submit(fail, argument)
                if token is not None:
                    detach(token)
                assert isinstance(future.exception(WAIT), LookupError)
                pool.submit(int).result(WAIT)  # the worker is done with the one before
                freed = [weak_reference(argument), weak_reference(future)]
                del argument, future
                assert [reference() for reference in freed] == [None, None]
    finally:
        gc.enable()
