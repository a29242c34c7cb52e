"""What a program reads or copies from a function that the library replaces is the original's."""

from __future__ import annotations

import asyncio
import inspect
import multiprocessing
import multiprocessing.pool
import pickle
import queue
import sched
import subprocess
import sys
import threading
import types
from concurrent.futures import ThreadPoolExecutor

import pytest
from forms import WAIT
from opentelemetry.context import attach, detach, get_value, set_value

from layers import PLACES
from otel_concurrency import ConcurrencyInstrumentor
from otel_concurrency._core.function_proxies import PLAIN_FUNCTIONS, function_of

PYTHON = [place for place in PLACES if isinstance(place.function, types.FunctionType)]
"""Those whose original is written in Python."""

PLAIN = [place for place in PYTHON if str(place) in PLAIN_FUNCTIONS]
PROXIES = [place for place in PYTHON if str(place) not in PLAIN_FUNCTIONS]

every_place = pytest.mark.parametrize("place", PLACES, ids=str)
every_function = pytest.mark.parametrize("place", PYTHON, ids=str)


def _cases(places):
    """Leave out beside OpenTelemetry's own instrumentors what they replace by no function."""
    return [
        pytest.param(place, marks=[pytest.mark.alone])
        if str(place) == "threading.Thread.start"
        else place
        for place in places
    ]


every_proxy = pytest.mark.parametrize("place", _cases(PROXIES), ids=str)

PARTS = (
    "__code__",
    "__globals__",
    "__closure__",
    "__defaults__",
    "__kwdefaults__",
    "__builtins__",
)
WORDS = (
    "__name__",
    "__qualname__",
    "__module__",
    "__doc__",
    "__annotations__",
    "__type_params__",
    "__dict__",
)


@pytest.fixture
def switch():
    """Return what switches everything on."""
    yield lambda: ConcurrencyInstrumentor().instrument(subprocess="parent")
    if ConcurrencyInstrumentor().is_instrumented_by_opentelemetry:
        ConcurrencyInstrumentor().uninstrument()


def test_only_what_is_replaced_is_listed():
    """The list of functions that show that they are ours names nothing else, and says why."""
    assert {str(place) for place in PLACES} >= PLAIN_FUNCTIONS.keys()
    assert all(reason.endswith(".") for reason in PLAIN_FUNCTIONS.values())
    of_c = {str(place) for place in PLACES if place not in PYTHON}
    assert of_c - PLAIN_FUNCTIONS.keys() <= {"_thread.start_new_thread", "_thread.start_new"}


@every_proxy
def test_its_parts_are_the_originals(place, switch):
    """Code, globals, closure and defaults are the same objects: a copy is one of the original."""
    original = place.function
    parts = {name: getattr(original, name, None) for name in PARTS}
    words = {name: getattr(original, name, None) for name in WORDS}
    switch()
    replacement = getattr(place.owner, place.attribute)
    replacement = getattr(replacement, "__func__", replacement)

    assert {name: getattr(replacement, name, None) for name in PARTS} == parts
    assert replacement.__code__ is original.__code__
    assert replacement.__globals__ is original.__globals__
    assert {name: getattr(replacement, name, None) for name in WORDS} == words
    assert isinstance(replacement, types.FunctionType)
    assert repr(replacement) == repr(original)


@every_function
def test_its_source_and_signature_are_the_originals(place, switch):
    """Also where its parts are not."""
    original = place.function
    # The methods of a named tuple have been made of no file.
    source = None if place.module == "sched" and "__" in place.name else inspect.getsource(original)
    signature, file = inspect.signature(original), inspect.getsourcefile(inspect.unwrap(original))
    kinds = [inspect.iscoroutinefunction, inspect.isgeneratorfunction, inspect.isfunction]
    kind = [is_one(original) for is_one in kinds]
    switch()

    replacement = place.function
    assert source is None or inspect.getsource(replacement) == source
    assert inspect.signature(replacement) == signature
    assert inspect.getsourcefile(inspect.unwrap(replacement)) == file
    assert [is_one(replacement) for is_one in kinds] == kind


@every_function
def test_it_takes_by_keyword_what_the_original_takes(place, switch):
    """Whatever the original's signature names can be passed by that name, and in its place."""
    parameters = inspect.signature(place.function).parameters.values()
    only_by_position = [1 for one in parameters if one.kind == one.POSITIONAL_ONLY]
    either = [one.name for one in parameters if one.kind == one.POSITIONAL_OR_KEYWORD]
    only_by_name = [one.name for one in parameters if one.kind == one.KEYWORD_ONLY]
    required = [
        one.name
        for one in parameters
        if one.name in (*either, *only_by_name) and one.default is one.empty
    ]
    switch()
    ours = inspect.signature(function_of(place.function), follow_wrapped=False)

    ours.bind(*only_by_position, **dict.fromkeys((*either, *only_by_name), 1))
    ours.bind(*only_by_position, **dict.fromkeys(required, 1))
    ours.bind(*only_by_position, *either, **dict.fromkeys(only_by_name, 1))


@every_proxy
def test_a_copy_with_other_globals_does_what_it_finds_there(place, switch):
    """As ansible-core copies one: its code calls nothing of ours."""
    switch()
    function = place.function
    copy = types.FunctionType(
        function.__code__,
        {**function.__globals__, "another": 1},
        function.__name__,
        function.__defaults__,
        function.__closure__,
    )

    assert copy.__code__.co_filename == inspect.getsourcefile(copy)
    assert "otel_concurrency" not in copy.__code__.co_filename
    cells = [cell.cell_contents for cell in copy.__closure__ or ()]
    assert not [one for one in cells if "otel_concurrency" in getattr(one, "__module__", "")]


NAMED = [
    place
    for place in PLACES
    # Its class is pickled under the name that it has in multiprocessing.reduction, so not at all.
    if "__" not in place.attribute
    and "_ForkingPickler" not in place.name
    and place.name != "TimerHandle._run"  # inherited: it pickles as `Handle._run`
]


@pytest.mark.parametrize("place", _cases(NAMED), ids=str)
@pytest.mark.parametrize("protocol", [0, pickle.HIGHEST_PROTOCOL])
def test_it_pickles_by_name(place, protocol, switch):
    """What is unpickled is what is found under that name."""
    plain = getattr(place.owner, place.attribute)
    try:
        pickled = pickle.dumps(plain, protocol)
    except Exception as error:
        expected = type(error)  # as of a static method of another name
    else:
        expected = None
        assert pickle.loads(pickled) == plain
    switch()
    replacement = getattr(place.owner, place.attribute)
    if expected is None:
        # What is C's is pickled under the name of a module of C's.
        assert place not in PYTHON or pickle.dumps(replacement, protocol) == pickled
        assert pickle.loads(pickle.dumps(replacement, protocol)) == replacement
    else:
        with pytest.raises(expected):
            pickle.dumps(replacement, protocol)


METHODS = [place for place in PYTHON if "." in place.name and type(place.raw) is types.FunctionType]


@pytest.mark.parametrize("place", METHODS, ids=str)
def test_a_subclass_reaches_it_by_super(place, switch):
    """What ``super()`` returns is bound to the instance, and is that very function."""
    switch()
    # It has not been initialized, and cannot be cleaned up.
    derived = type("Derived", (place.owner,), {"__del__": lambda self: None})
    instance = object.__new__(derived) if derived.__base__ is not sched.Event else None
    if instance is None:
        return_value = super(derived, derived).__new__
        assert return_value is place.function
        return
    bound = getattr(super(derived, instance), place.attribute)

    assert type(bound) is types.MethodType
    assert bound.__self__ is instance
    assert bound.__func__ is place.raw
    assert bound.__code__ is place.raw.__code__
    assert getattr(instance, place.attribute) == bound


# What shows that it is ours


def value():
    """Return what tells the contexts of a test apart."""
    return get_value("value")


def use_queue(kind):
    """Put in a context and get without one; return what is got, and in which context."""
    items = kind()
    token = attach(set_value("value", "a"))
    items.put((1, "item"))
    detach(token)
    found = items.get(), value()
    if hasattr(items, "task_done"):
        items.task_done()
    return found, value()


def use_asyncio_queue(kind):
    """Do the same in an event loop."""

    async def use():
        items = kind()
        token = attach(set_value("value", "a"))
        await items.put((1, "item"))
        detach(token)
        found = items.empty(), await items.get(), value()
        items.task_done()
        return found, value(), items.empty()

    return asyncio.run(use())


def use_pool():
    """Submit in a context; have a callback registered in another one."""
    seen = []
    with ThreadPoolExecutor(1) as pool:
        token = attach(set_value("value", "a"))
        future = pool.submit(value)
        detach(token)
        result = future.result(WAIT)
        future.add_done_callback(lambda done: seen.append((done.result(), value())))
    return result, seen


def use_pool_of_threads():
    """Hand a call and a ``map`` over in a context, with a callback."""
    seen = []
    with multiprocessing.pool.ThreadPool(1) as pool:
        token = attach(set_value("value", "a"))
        called = pool.apply_async(value, callback=lambda got: seen.append((got, value())))
        mapped = pool.map(lambda _: value(), range(2))
        detach(token)
        return called.get(WAIT), mapped, seen


def use_threads():
    """Start one in a context, one without, and a timer that starts another one."""
    seen = []

    def again():
        seen.append(value())
        if len(seen) < 4:
            run(threading.Timer(0, again))

    def run(thread):
        thread.start()
        thread.join(WAIT)

    run(threading.Thread(target=lambda: seen.append(value())))
    token = attach(set_value("value", "a"))
    run(threading.Thread(target=lambda: seen.append(value())))
    run(threading.Timer(0, again))
    detach(token)
    return seen, value()


def use_scheduler():
    """Enter in a context, run without one."""
    seen = []
    scheduler = sched.scheduler()
    token = attach(set_value("value", "a"))
    scheduler.enter(0, 1, lambda: seen.append(value()))
    detach(token)
    scheduler.run()
    return seen


def use_loop():
    """Run something in an executor and something later, which arms itself again, in a context."""

    async def use():
        loop, seen = asyncio.get_running_loop(), []
        done = loop.create_future()

        def tick():
            seen.append(value())
            loop.call_later(0, *((tick,) if len(seen) < 3 else (done.set_result, None)))

        token = attach(set_value("value", "a"))
        loop.call_later(0, tick)
        seen.append(await loop.run_in_executor(None, value))
        detach(token)
        await done
        return seen

    return asyncio.run(use())


def use_process_queue(kind):
    """Put and get."""
    items = getattr(multiprocessing.get_context("spawn"), kind)()
    items.put(1)
    got = items.get()
    items.close()
    return got


def use_joinable():
    """Put and get, and say that it is done."""
    items = multiprocessing.get_context("spawn").JoinableQueue()
    items.put(1)
    got = items.get(timeout=WAIT)
    items.task_done()
    items.join()
    items.close()
    items.join_thread()
    return got


USES = {
    "asyncio.base_events.BaseEventLoop": use_loop,
    "asyncio.events.TimerHandle": use_loop,
    "asyncio.queues.Queue": lambda: use_asyncio_queue(asyncio.Queue),
    "asyncio.queues.LifoQueue": lambda: use_asyncio_queue(asyncio.LifoQueue),
    "asyncio.queues.PriorityQueue": lambda: use_asyncio_queue(asyncio.PriorityQueue),
    "queue.Queue": lambda: use_queue(queue.Queue),
    "queue.LifoQueue": lambda: use_queue(queue.LifoQueue),
    "queue.PriorityQueue": lambda: use_queue(queue.PriorityQueue),
    "concurrent.futures.thread._WorkItem": use_pool,
    "concurrent.futures._base.Future": use_pool,
    "threading.Thread": use_threads,
    "sched.scheduler": use_scheduler,
    "sched.Event": use_scheduler,
    "multiprocessing.pool.ApplyResult": use_pool_of_threads,
    "multiprocessing.pool.MapResult": use_pool_of_threads,
    "multiprocessing.pool.Pool": use_pool_of_threads,
    "multiprocessing.queues.JoinableQueue": use_joinable,
    "multiprocessing.queues.Queue": lambda: use_process_queue("Queue"),
    "multiprocessing.queues.SimpleQueue": lambda: use_process_queue("SimpleQueue"),
    "multiprocessing.queues._ForkingPickler": use_joinable,
}


@pytest.mark.parametrize("place", PLAIN, ids=str)
def test_a_copy_of_what_is_listed_does_what_that_does(place, switch, monkeypatch):
    """With more in its globals, and with what it closes over, as such copies are made."""
    use = USES[str(place).rpartition(".")[0]]
    switch()
    expected = use()
    function = place.function
    copy = types.FunctionType(
        function.__code__,
        {**function.__globals__, "another": 1},
        function.__name__,
        function.__defaults__,
        function.__closure__,
    )
    copy.__kwdefaults__ = function.__kwdefaults__
    raw = place.raw
    is_plain = isinstance(raw, types.FunctionType)  # or what calls C, and is one to the program
    monkeypatch.setattr(place.owner, place.attribute, copy if is_plain else type(raw)(copy))

    assert use() == expected


# What ansible-core does

DAEMONS = """
import sys, threading, types
from concurrent.futures import ThreadPoolExecutor
from otel_concurrency import ConcurrencyInstrumentor

ConcurrencyInstrumentor().instrument(threading=sys.argv[1])

class Daemon(threading.Thread):
    def __init__(self, *args, daemon=None, **kwargs):
        super().__init__(*args, daemon=True, **kwargs)

    def join(self, timeout=None):
        pass

own = types.ModuleType("own")
own.Thread = Daemon
base = ThreadPoolExecutor._adjust_thread_count

class Pool(ThreadPoolExecutor):
    _adjust_thread_count = types.FunctionType(
        base.__code__, {**base.__globals__, "threading": own}, base.__name__, base.__defaults__,
        base.__closure__,
    )

started = threading.Event()
Pool().submit(lambda: (started.set(), threading.Event().wait()))
assert started.wait(20)
print([thread.daemon for thread in threading.enumerate()])
"""


@pytest.mark.parametrize("threading", ["parent", "off"])
def test_a_pool_of_daemons_that_is_made_of_a_copy_lets_the_program_end(threading):
    """Its threads are of the program's own class, also where nothing but pools is patched."""
    run = subprocess.run(
        [sys.executable, "-c", DAEMONS, threading],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (run.returncode, run.stderr) == (0, "")
    assert run.stdout == "[False, True]\n"
