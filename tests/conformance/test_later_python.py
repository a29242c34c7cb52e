"""A Python in which a function takes something else: programs never notice.

For every function that the library replaces, its signature is changed before the library is
switched on, and its callers with it, as a later version of CPython would do.
"""

from __future__ import annotations

import asyncio
import gc
import inspect
import itertools
import logging
import logging.handlers
import multiprocessing
import multiprocessing.managers
import multiprocessing.pool
import queue
import sched
import subprocess
import sys
import threading
import types
import warnings
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

import pytest
from forms import WAIT
from opentelemetry.context import attach, detach, set_value

from interpreters import PYPY
from layers import PLACES
from otel_concurrency import ConcurrencyInstrumentor, _instrumentor, _settings
from otel_concurrency._status import snapshot

FORK = multiprocessing.get_context("fork")


def double(number):
    """Is the work."""
    return 2 * number


def use_threads():
    """Run a thread."""
    seen = []
    thread = threading.Thread(target=lambda: seen.append(double(1)))
    thread.start()
    thread.join(WAIT)
    return seen


def use_pool():
    """Submit, cancel and call back."""
    seen = []
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(double, 1)
        future.add_done_callback(lambda done: seen.append(done.result(WAIT)))
        failed = pool.submit(double, None)
        pool.submit(double, 2).cancel()
    return seen, type(failed.exception(WAIT))


def use_queues():
    """Put and get, in all orders."""
    found = []
    for kind in (queue.Queue, queue.LifoQueue, queue.PriorityQueue, queue.SimpleQueue):
        items = kind()
        items.put(1)
        items.put_nowait(2)
        found += [items.get(), items.get_nowait()]
        if hasattr(items, "task_done"):
            items.task_done()
        if hasattr(items, "shutdown"):
            items.shutdown()
    return found


def use_asyncio_queues():
    """Put and get, in all orders."""

    async def use():
        found = []
        for kind in (asyncio.Queue, asyncio.LifoQueue, asyncio.PriorityQueue):
            items = kind()
            waiting = asyncio.create_task(items.get())
            await items.put(1)
            items.put_nowait(2)
            found += [await waiting, await items.get(), items.empty()]
            items.task_done()
            if hasattr(items, "shutdown"):
                items.shutdown()
        return found

    return asyncio.run(use())


def use_loop():
    """Run in an executor, and talk to a server."""

    async def answer(reader, writer):
        writer.write(await reader.readline())
        await writer.drain()
        writer.close()

    async def use():
        loop = asyncio.get_running_loop()
        found = [await loop.run_in_executor(None, double, 1)]
        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        host = server.sockets[0].getsockname()
        reader, writer = await asyncio.open_connection(*host)
        writer.transport.pause_reading()
        writer.write(b"line\n")
        writer.transport.resume_reading()
        found.append(await reader.read())
        writer.close()
        await writer.wait_closed()
        server.close()
        await server.wait_closed()
        transport, _ = await loop.create_datagram_endpoint(
            asyncio.DatagramProtocol, ("127.0.0.1", 0)
        )
        transport.close()
        child = await asyncio.create_subprocess_exec(
            sys.executable, "-c", "print(input())", stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        found.append((await child.communicate(b"line\n"))[0])
        return found

    return asyncio.run(use())


def use_scheduler():
    """Enter, cancel and run."""
    seen = []
    scheduler = sched.scheduler()
    scheduler.enter(0, 1, seen.append, (1,))
    scheduler.cancel(scheduler.enter(0, 1, seen.append, (2,)))
    scheduler.run()
    return seen


def use_logging():
    """Log through a queue."""
    found = []
    handler = logging.Handler()
    handler.emit = lambda record: found.append(record.getMessage())
    records = queue.Queue()
    listener = logging.handlers.QueueListener(records, handler)
    listener.start()
    logging.handlers.QueueHandler(records).handle(
        logging.makeLogRecord({"msg": "message", "levelno": logging.WARNING})
    )
    listener.stop()
    return found


def use_manager():
    """Call a server."""
    with FORK.Manager() as manager:
        items = manager.list()
        items.append(1)
        return list(items)


def put(items, number):
    """Is the work of a process."""
    items.put(number)


def use_process():
    """Have a process put to queues."""
    found = []
    for items in (FORK.Queue(), FORK.SimpleQueue(), FORK.JoinableQueue()):
        process = FORK.Process(target=put, args=(items, 1))
        process.start()
        found.append(items.get())
        process.join(WAIT)
        found.append(process.exitcode)
        items.put(2)
        found.append(items.get())
        if hasattr(items, "task_done"):
            items.task_done()
        items.close()
    return found


def use_process_pools():
    """Have pools of processes, and of threads, compute."""
    with ProcessPoolExecutor(1, mp_context=FORK) as pool:
        found = [pool.submit(double, 1).result(WAIT), *pool.map(double, [1, 2])]
    for make in (FORK.Pool, multiprocessing.pool.ThreadPool):
        with make(1) as pool:
            found += [pool.apply_async(double, (1,)).get(WAIT), pool.map(double, [1, 2])]
            found.append(list(pool.imap(double, [1, 2])))
    return found


def use_subprocess():
    """Run a command."""
    return subprocess.run(
        [sys.executable, "-c", "print(1)"], stdout=subprocess.PIPE, check=True
    ).stdout


USES = {
    "threading": use_threads,
    "concurrent.futures._base": use_pool,
    "concurrent.futures.thread": use_pool,
    "asyncio.queues": use_asyncio_queues,
    "queue": use_queues,
    "sched": use_scheduler,
    "logging.handlers": use_logging,
    "multiprocessing.managers": use_manager,
    "multiprocessing.process": use_process,
    "multiprocessing.queues": use_process,
    "concurrent.futures.process": use_process_pools,
    "multiprocessing.pool": use_process_pools,
    "subprocess": use_subprocess,
}
"""By patched module; of asyncio's others it is the event loop."""


def use_of(place):
    """Return what uses the function, in a context, with the warnings about forks silenced."""

    def use():
        token = attach(set_value("value", "a"))
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)
                return USES.get(place.patched, use_loop)()
        finally:
            detach(token)

    return use


# What a later version does


def with_parameter(original, kind):
    """Return the function with one more parameter, and what calls it by that."""
    signature = inspect.signature(original)
    parameters = list(signature.parameters.values())
    more = inspect.Parameter("later", kind, default=None)
    place = next(
        (
            index
            for index, one in enumerate(parameters)
            if one.kind > kind or (one.kind == kind == one.KEYWORD_ONLY)
        ),
        len(parameters),
    )
    parameters.insert(place, more)

    def body(values):
        assert values.pop("later") == 1
        return values

    return (
        _function(original, parameters, signature, body),
        lambda function: lambda *args, **kwargs: function(*args, later=1, **kwargs),
    )


def without_parameter(original):
    """Return the function without its last parameter, and what calls it like that."""
    signature = inspect.signature(original)
    parameters = list(signature.parameters.values())
    (*_, last) = [one for one in parameters if one.kind == one.POSITIONAL_OR_KEYWORD]
    parameters.remove(last)
    kept = threading.local()

    def body(values):
        if hasattr(kept, "value"):
            values[last.name] = kept.value
            del kept.value
        return values

    def callers(function):
        def call(*args, **kwargs):
            bound = signature.bind(*args, **kwargs)
            if last.name in bound.arguments:
                kept.value = bound.arguments.pop(last.name)
            return function(*bound.args, **bound.kwargs)

        return call

    return _function(original, parameters, signature, body), callers


def _function(original, parameters, signature, body):
    """Return a function of such parameters that calls the original with what ``body`` makes."""
    defaults = {
        f"default_{one.name}": one.default for one in parameters if one.default is not one.empty
    }
    spelled = [
        one.replace(
            annotation=one.empty,
            default=_Name(f"default_{one.name}") if one.default is not one.empty else one.empty,
        )
        for one in parameters
    ]
    header = str(inspect.Signature(spelled))

    def call(values):
        values = body(values)
        bound = signature.bind_partial()
        bound.arguments.update(
            (name, values[name]) for name in signature.parameters if name in values
        )
        return original(*bound.args, **bound.kwargs)

    scope = {"call": call, **defaults}
    exec(f"def {original.__name__}{header}:\n    return call(dict(locals()))", scope)
    made = scope[original.__name__]
    made.__module__, made.__qualname__ = original.__module__, original.__qualname__
    return made


class _Name:
    """Is spelled as a name in a signature."""

    def __init__(self, name):
        self.name = name

    def __repr__(self):
        return self.name


CHANGES = {
    "one more": lambda f: with_parameter(f, inspect.Parameter.POSITIONAL_OR_KEYWORD),
    "one more by keyword": lambda f: with_parameter(f, inspect.Parameter.KEYWORD_ONLY),
    "one fewer": without_parameter,
}


def can_change(place, change):
    """Whether there is such a function."""
    kinds = [one.kind for one in inspect.signature(place.function).parameters.values()]
    plain = kinds.count(inspect.Parameter.POSITIONAL_OR_KEYWORD)
    if change == "one more by keyword":
        return True
    takes_more = inspect.Parameter.VAR_POSITIONAL in kinds
    return not takes_more and (change == "one more" or plain > ("." in place.name))


PYTHON = [
    place
    for place in PLACES
    if isinstance(place.function, types.FunctionType)
    and place.module != "signal"  # the time limit of the test itself is set by it
]
THEIRS = ("threading.Thread.start",)
"""What OpenTelemetry's own instrumentor replaces by an object that is bound in another way."""
CASES = [
    pytest.param(
        place,
        change,
        id=f"{place}, {change}",
        marks=[pytest.mark.alone] if str(place) in THEIRS else [],
    )
    for place, change in itertools.product(PYTHON, CHANGES)
    if can_change(place, change)
]


outcomes = {}


def without_the_library(module, use):
    """Return the outcome of the use of a patched module, which is the same every time."""
    if module not in outcomes:
        outcomes[module] = use()
    return outcomes[module]


@pytest.fixture
def switch():
    """Return what switches everything on."""
    yield lambda: ConcurrencyInstrumentor().instrument(subprocess="parent")
    ConcurrencyInstrumentor().uninstrument()


@pytest.mark.parametrize(("place", "change"), CASES)
def test_a_changed_signature_is_never_noticed(place, change, switch, monkeypatch, caplog):
    """What cannot take it is left alone, with one line of log, and ``status`` says so."""
    if PYPY and str(place) == "queue.SimpleQueue.__new__":
        pytest.skip("PyPy's class is written in Python, and takes its arguments by __init__")
    use, raw = use_of(place), place.raw
    expected = without_the_library(place.patched, use)
    if place.patched.startswith("multiprocessing"):
        gc.collect()  # the finalizers of what other tests have left would call what is changed here
    changed, callers = CHANGES[change](place.function)
    monkeypatch.setattr(place.owner, place.attribute, _as(raw, changed))
    with caplog.at_level(logging.WARNING, "otel_concurrency"):
        switch()
        with monkeypatch.context() as patch:
            found = vars(place.owner).get(place.attribute)
            top = getattr(found, "__func__", found)
            if top is not None:
                patch.setattr(place.owner, place.attribute, _as(raw, callers(top)))
            assert use() == expected

    failures = _instrumentor.primitives_in_use[place.setting].failures
    lines = [one.getMessage() for one in caplog.records if one.name.startswith("otel_concurrency")]
    assert len(failures) <= len(lines) <= 1, lines
    if failures:  # otherwise what replaces it passes on what it is given
        assert failures.keys() == {place.patched}
        assert "UnknownSignatureError" in failures[place.patched]
        assert place.patched in lines[0]
        told = snapshot.state_of_primitive(place.setting, _settings.in_force)
        assert told["failures"] == failures
        assert place.patched not in told["patched"]


def _as(raw, function):
    """Return a function as a class has it: as a static or a class method, where it is one."""
    return type(raw)(function) if type(raw) in (classmethod, staticmethod) else function
