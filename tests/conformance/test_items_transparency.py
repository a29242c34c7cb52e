"""What the program can see of the library in its queues, and in those of the standard library."""

from __future__ import annotations

import abc
import asyncio
import concurrent.futures
import contextlib
import contextvars
import copy
import inspect
import logging
import logging.handlers
import multiprocessing
import multiprocessing.pool
import pickle
import queue
import sys
import typing
import warnings
from collections import deque
from concurrent.futures import ThreadPoolExecutor

import pytest
from forms import WAIT, without_context
from injection import InjectedError, always_fail, fail, wherever_it_is
from item_forms import FORMS, STOCK
from opentelemetry import trace
from opentelemetry.context import attach, detach, get_current, set_value
from test_items import container, forms, handle

from interpreters import PYPY, counts_references, weak_reference
from otel_concurrency import ConcurrencyInstrumentor, _primitives
from otel_concurrency._items import known_queues
from otel_concurrency._linking import policies

PLAIN_SIMPLE_QUEUE = queue.SimpleQueue  # in C, except on PyPy

OWNERS = {
    "queue": queue,
    "queue.Queue": queue.Queue,
    "queue.LifoQueue": queue.LifoQueue,
    "queue.PriorityQueue": queue.PriorityQueue,
    "asyncio.queues": asyncio.queues,
    "asyncio.Queue": asyncio.Queue,
    "asyncio.LifoQueue": asyncio.LifoQueue,
    "asyncio.PriorityQueue": asyncio.PriorityQueue,
    "concurrent.futures.thread": concurrent.futures.thread,
    "logging.handlers": logging.handlers,
    "multiprocessing.pool": multiprocessing.pool,
}
METHODS = [
    *("__init__", "put", "put_nowait", "get", "get_nowait", "task_done", "join", "shutdown"),
    *("qsize", "empty", "full", "__class_getitem__", "_put", "_get", "_qsize", "_init"),
]
CLASSES = {
    "queue.Queue": lambda: queue.Queue,
    "queue.LifoQueue": lambda: queue.LifoQueue,
    "queue.PriorityQueue": lambda: queue.PriorityQueue,
    "queue.SimpleQueue": lambda: queue.SimpleQueue,
    "asyncio.Queue": lambda: asyncio.Queue,
    "asyncio.LifoQueue": lambda: asyncio.LifoQueue,
    "asyncio.PriorityQueue": lambda: asyncio.PriorityQueue,
}


def every_method(names):
    """Run a test for each of these methods of each class that has it."""
    return pytest.mark.parametrize(
        ("look_up", "name"),
        [
            pytest.param(look_up, name, id=f"{owner}.{name}")
            for owner, look_up in CLASSES.items()
            for name in names
            if hasattr(look_up(), name)
        ],
    )


every_class = pytest.mark.parametrize("look_up", CLASSES.values(), ids=CLASSES)


@contextlib.contextmanager
def switched_on(**settings):
    """Instrument for the length of a block."""
    ConcurrencyInstrumentor().instrument(**settings)
    try:
        yield
    finally:
        ConcurrencyInstrumentor().uninstrument()


@contextlib.contextmanager
def in_a_context():
    """Run a block where there is something to carry."""
    token = attach(set_value("value", "a"))
    try:
        yield
    finally:
        detach(token)


# Classes and methods


def described(thing):
    """Return what a program can read off a method."""
    try:
        signature = str(inspect.signature(thing))
    except ValueError as error:
        signature = repr(type(error))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # asyncio's, since 3.14
        return {
            "signature": signature,
            "doc": thing.__doc__,
            "name": thing.__name__,
            "qualname": thing.__qualname__,
            "annotations": getattr(thing, "__annotations__", None) or {},
            "is a routine": inspect.isroutine(thing),
            "is a coroutine function": inspect.iscoroutinefunction(thing),
            "is one to asyncio": asyncio.iscoroutinefunction(thing),
        }


def put_in_a_context():
    """Put to an asyncio queue: some of its methods are replaced when the first context comes."""
    with in_a_context():
        asyncio.Queue().put_nowait(None)


def assert_alike(found, plain, name):
    """Assert that two descriptions are equal, as far as a method named so can be."""
    if name == "get" and plain["is one to asyncio"] and sys.version_info < (3, 12):
        # A limit: it has to act when it is called, and only asyncio lets itself be told what it is.
        assert not found["is a coroutine function"]
        found = {**found, "is a coroutine function": True}
    assert found == plain


@every_method(METHODS)
def test_a_method_looks_as_it_does_without(look_up, name):
    """Signature, names, documentation and kind are the original's, on the class."""
    plain = described(getattr(look_up(), name))
    with switched_on():
        put_in_a_context()
        assert_alike(described(getattr(look_up(), name)), plain, name)


@every_method([name for name in METHODS if name not in ("_put", "_get")])
def test_a_bound_method_looks_as_it_does_without(look_up, name):
    """And on an instance, also where that has been used in a context."""

    def bound(waiting):
        found = described(getattr(waiting, name))
        del found["doc"]  # a bound method that is a builtin has none
        return found

    plain = bound(look_up()())
    with switched_on(), in_a_context():
        waiting = look_up()()
        waiting.put_nowait((1,))
        put_in_a_context()
        assert_alike(bound(waiting), plain, name)


@every_class
def test_a_class_pickles_copies_and_takes_parameters(look_up):
    """A reference to it is the same class, and it is generic as ever."""
    with switched_on():
        kind = look_up()
        assert pickle.loads(pickle.dumps(kind)) is kind
        assert copy.deepcopy(kind) is kind
        assert typing.get_origin(kind[int]) is kind
        assert typing.get_args(kind[int]) == (int,)
        assert type(kind[int]()) is kind
        assert isinstance(kind[int](), kind)
        assert kind.__name__ == kind.__qualname__
    assert pickle.loads(pickle.dumps(look_up())) is look_up()


def test_a_simple_queue_of_before_of_now_and_of_the_standard_library_is_one():
    """``isinstance`` and ``issubclass`` do not depend on when a queue was made, or by whom."""
    plain = queue.SimpleQueue
    before = queue.SimpleQueue()
    with switched_on():
        now = queue.SimpleQueue()
        with ThreadPoolExecutor(1) as pool:
            assert isinstance(pool._work_queue, queue.SimpleQueue)
        for one in (before, now):
            assert isinstance(one, queue.SimpleQueue)
            assert isinstance(one, plain)
        assert issubclass(plain, queue.SimpleQueue)
        assert issubclass(type(now), plain)
        assert not isinstance(queue.Queue(), queue.SimpleQueue)
        assert not issubclass(queue.Queue, queue.SimpleQueue)
    assert queue.SimpleQueue is plain
    assert isinstance(now, queue.SimpleQueue)


@pytest.mark.skipif(PYPY, reason="PyPy's is written in Python: it has attributes and is copied")
def test_a_simple_queue_has_what_it_has_without():
    """It can be referred to weakly, has no attributes of its own, and does not pickle or copy."""

    def traits():
        waiting = queue.SimpleQueue()
        assert weak_reference(waiting)() is waiting
        found = [hasattr(waiting, "__dict__"), dir(waiting)]
        for use in (
            lambda: setattr(waiting, "name", 1),
            lambda: pickle.dumps(waiting),
            lambda: copy.copy(waiting),
            lambda: copy.deepcopy(waiting),
        ):
            with pytest.raises((TypeError, AttributeError)) as raised:
                use()
            found.append(raised.type)
        return found

    without = traits()
    with switched_on():
        has_dict, names, *raised = traits()
    assert [has_dict, *raised] == [without[0], *without[2:]]
    assert set(without[1]).issubset(names)


def test_a_simple_queue_can_be_derived_from_with_other_bases():
    """With an abstract base and a generic one, as without the library."""
    parameter = typing.TypeVar("parameter")

    def derive():
        class Abstract(queue.SimpleQueue, abc.ABC):
            pass

        class Generic(queue.SimpleQueue, typing.Generic[parameter]):
            pass

        for kind in (Abstract, Generic):
            waiting = kind()
            waiting.put(1)
            assert waiting.get() == 1
            assert isinstance(waiting, queue.SimpleQueue)
            assert isinstance(waiting, kind)
            assert not isinstance(queue.SimpleQueue(), kind)

    derive()
    with switched_on():
        derive()


def test_a_simple_queue_outlives_the_library(spans):
    """One that was made while it was on works when it is off, with what still waits in it."""
    with switched_on():
        waiting = queue.SimpleQueue()
        item = object()
        with spans.current("a"):
            waiting.put(item)
    waiting.put(None)
    assert waiting.qsize() == 2
    assert waiting.get() is item
    assert spans.parent() is None
    assert waiting.get_nowait() is None
    assert waiting.empty()


WRONG_CALLS = {
    "put without item": lambda q: q.put(),
    "put with too much": lambda q: q.put(1, False, 1, 1),
    "put by an unknown keyword": lambda q: q.put(1, nowait=True),
    "put with a negative timeout": lambda q: q.put(1, timeout=-1),
    "put with a timeout of a word": lambda q: q.put(1, timeout="soon"),
    "get with a negative timeout": lambda q: q.get(timeout=-1),
    "get with a timeout of a word": lambda q: q.get(timeout="soon"),
    "get with too much": lambda q: q.get(True, None, 1),
    "get by an unknown keyword": lambda q: q.get(nowait=True),
    "get from an empty queue": lambda q: q.get_nowait(),
    "get from an empty queue, by flag": lambda q: q.get(False),
    "get from an empty queue, in time": lambda q: q.get(timeout=0.001),
    "put_nowait without item": lambda q: q.put_nowait(),
    "put_nowait with too much": lambda q: q.put_nowait(1, 2),
    "get_nowait with too much": lambda q: q.get_nowait(1),
    "task_done too often": lambda q: q.task_done(),
    "task_done with an argument": lambda q: q.task_done(1),
    "two that do not sort": lambda q: (q.put_nowait(1), q.put_nowait("1")),
    "not initialized": lambda q: type(q).put_nowait(type(q).__new__(type(q)), 1),
    "an unknown method": lambda q: q.peek(),
    "a wrong maxsize": lambda q: type(q)("1").put_nowait(1),
    "too many arguments": lambda q: type(q)(1, 2),
}


@pytest.mark.parametrize("call", WRONG_CALLS.values(), ids=WRONG_CALLS)
@every_class
@pytest.mark.parametrize("inside", [in_a_context, contextlib.nullcontext], ids=["in a", "in none"])
def test_a_wrong_call_raises_what_it_raises_without(look_up, call, inside):
    """The exception has the interpreter's own type, in a context and in none.

    And its own words, but for ``SimpleQueue``, where those of C and of Python differ.
    """

    def raised():
        waiting = look_up()()
        with inside():
            try:
                result = call(waiting)
                if inspect.iscoroutine(result):
                    result.close()
            except Exception as error:
                words = None if look_up is CLASSES["queue.SimpleQueue"] else str(error)
                return type(error), words
        return None

    plain = raised()
    with switched_on():
        assert raised() == plain
    assert get_current() == {}


@forms([form for form in STOCK if form.bounded])
def test_a_copy_of_a_queue_works_as_without(form, spans):
    """``copy.copy`` shares what the original holds, and outlives it."""

    def program():
        original = form.make()
        form.put_under(spans, "a", original, (1,))
        copied = copy.copy(original)
        form.put_under(spans, "b", copied, (2,))
        sizes = [original.qsize(), copied.qsize(), container(copied) is container(original)]
        del original
        form.put_under(spans, "c", copied, (3,))
        return sizes, [without_context(form.get, copied) for _ in range(3)]

    plain = program()
    with switched_on():
        assert program() == plain


class Picklable(queue.Queue):
    """A queue that programs send to other processes: what cannot be pickled is left out."""

    _LEFT_OUT = ("mutex", "not_empty", "not_full", "all_tasks_done")

    def __getstate__(self):
        return {name: value for name, value in vars(self).items() if name not in self._LEFT_OUT}

    def __setstate__(self, state):
        self.__init__()
        self.__dict__.update(state)


QUEUES_THAT_PICKLE = {
    "Picklable": Picklable,
    "asyncio.Queue": asyncio.Queue,
    "asyncio.LifoQueue": asyncio.LifoQueue,
    "asyncio.PriorityQueue": asyncio.PriorityQueue,
}


@pytest.mark.parametrize("kind", QUEUES_THAT_PICKLE.values(), ids=QUEUES_THAT_PICKLE)
@pytest.mark.parametrize(
    "copied",
    [lambda q: pickle.loads(pickle.dumps(q)), copy.deepcopy],
    ids=["pickle", "deepcopy"],
)
def test_a_queue_that_can_be_pickled_still_can(kind, copied, spans):
    """Its items arrive, contexts do not, and the copy is a queue of its own."""

    def program():
        original = kind()
        with spans.current("a"):
            original.put_nowait((1,))
            original.put_nowait((2,))
        other = copied(original)
        with spans.current("b"):
            original.put_nowait((3,))
            other.put_nowait((4,))
        items = [[q.get_nowait() for _ in range(3)] for q in (original, other)]
        return items, original.qsize(), other.qsize()

    plain = program()
    with switched_on():
        assert without_context(program) == plain


@forms([form for form in FORMS if form.bounded])
def test_a_queue_that_never_saw_a_context_is_left_as_it_is(form, spans):
    """It has no attribute that it does not have without, also where its consumer is in a span."""

    def program():
        waiting = form.make()
        form.put(waiting, (1,))
        with spans.current("consumer"):
            form.get(waiting)
        form.put(waiting, (1,))
        form.get(waiting)
        return {name: type(value) for name, value in vars(waiting).items()}

    plain = program()
    with switched_on():
        assert program() == plain


@forms([form for form in STOCK if form.bounded])
def test_code_that_holds_the_mutex_and_reads_the_container(form, spans):
    """Such code sees its own items, and no method of ours waits for a lock that it holds."""
    with switched_on():
        waiting = form.make()
        items = [(n,) for n in range(3)]
        lock = getattr(waiting, "mutex", contextlib.nullcontext())
        for item in items:
            form.put_under(spans, "a", waiting, item)
            with lock:
                assert container(waiting)[-1] is item
                assert type(container(waiting)) is (deque if form.order == "first" else list)
        with spans.current("b"), lock:
            assert sorted(map(id, container(waiting))) == sorted(map(id, items))
        assert len(without_context(handle, form, waiting, spans)) == 3


class Putting:
    """An item whose finalizer puts to the queue that it came from."""

    def __init__(self, waiting):
        self.waiting = waiting

    def __del__(self):
        self.waiting.put("from the finalizer")


@counts_references
def test_a_simple_queue_is_reentrant(spans):
    """A finalizer that puts to the queue in the middle of a ``get`` is carried like any other."""
    with switched_on():
        waiting = queue.SimpleQueue()
        with spans.current("a"):
            waiting.put(Putting(waiting))

        def consume():
            waiting.get()  # what it returns dies at once
            seen = [spans.parent(), waiting.get(), spans.parent()]
            with pytest.raises(queue.Empty):
                waiting.get_nowait()
            return seen

        assert without_context(consume) == ["a", "from the finalizer", "a"]


# The standard library's own queues


def test_a_pools_work_queue_is_plain():
    """An executor that is made in a context gets the C class, and works."""
    with switched_on(), in_a_context(), ThreadPoolExecutor(1) as pool:
        assert type(pool._work_queue) is PLAIN_SIMPLE_QUEUE
        assert pool.submit(get_current).result(WAIT) == get_current()


def test_the_pools_of_multiprocessing_work(spans):
    """A ``ThreadPool``'s own queues are plain, and its workers are in no context of its tasks."""
    with switched_on(), spans.current("a"):
        with multiprocessing.pool.ThreadPool(2) as pool:
            own = (pool._taskqueue, pool._inqueue, pool._outqueue)
            assert {type(one) for one in own} == {PLAIN_SIMPLE_QUEUE}
            assert pool.map(abs, range(-3, 3)) == [3, 2, 1, 0, 1, 2]
            assert pool.apply_async(abs, (-1,)).get(WAIT) == 1
        assert spans.parent() == "a"


def test_a_process_pool_works(spans):
    """Its queues and threads hold no context of a submitter."""
    with switched_on():
        method = multiprocessing.get_context("spawn")
        with concurrent.futures.ProcessPoolExecutor(1, mp_context=method) as pool:
            with spans.current("a"):
                future = pool.submit(abs, -1)
            assert future.result(WAIT * 3) == 1
            assert pool._work_ids._otel_concurrency_pairs.owners == (None, None)
    assert spans.parent() is None


def test_a_queue_of_logging_that_the_program_reads_itself(spans):
    """A test that reads its records off the queue is not moved to where they were logged."""
    with switched_on():
        records = queue.Queue()
        logger = logging.Logger("records")
        logger.addHandler(logging.handlers.QueueHandler(records))
        with spans.current("request"):
            logger.warning("a record")
        assert records.get().getMessage() == "a record"
        assert spans.parent() is None


# Undo


def test_undo_is_exact(spans):
    """Every class and module has the very attributes that it had, after work of all kinds."""
    before = {name: dict(vars(owner)) for name, owner in OWNERS.items()}
    for _ in range(2):
        with switched_on():
            assert vars(queue)["SimpleQueue"] is not before["queue"]["SimpleQueue"]
            assert vars(queue.Queue) != before["queue.Queue"]
            assert vars(asyncio.Queue) != before["asyncio.Queue"]
            for form in FORMS:
                waiting = form.make()
                form.put_under(spans, "a", waiting, (1,))
                without_context(handle, form, waiting, spans)
        for name, owner in OWNERS.items():
            now = dict(vars(owner))
            assert [*now] == [*before[name]] or set(now) == set(before[name])
            assert {key for key in now if now[key] is not before[name][key]} == set(), name


@forms([form for form in FORMS if form.exact])
def test_somebody_elses_patch_on_top_stays_and_works(form, spans, monkeypatch):
    """Ours below it becomes a pass-through, and carries again when it is switched on again."""
    calls = []

    def patched(owner, name):
        ours = getattr(owner, name)

        def theirs(*args, **kwargs):
            calls.append(name)
            return ours(*args, **kwargs)

        monkeypatch.setattr(owner, name, theirs)

    def round_trip(waiting):
        form.put_under(spans, "a", waiting, (1,))
        return without_context(handle, form, waiting, spans)

    with switched_on():
        patched(queue.Queue, "put")
        patched(queue.Queue, "get")
        patched(asyncio.Queue, "put_nowait")
        patched(asyncio.Queue, "get_nowait")
        assert round_trip(form.make()) == [((1,), "a")]
    assert round_trip(form.make()) == [((1,), None)]
    with switched_on():
        assert round_trip(form.make()) == [((1,), "a")]
    assert round_trip(form.make()) == [((1,), None)]
    assert bool(calls) is form.bounded
    monkeypatch.undo()


# Faults


FAULTS = {
    "get_current raises": wherever_it_is("get_current"),
    "attach raises": wherever_it_is("attach"),
    "the policy raises": lambda patch: patch(policies, "capture_for", always_fail),
    "asking for the caller raises": lambda patch: patch(known_queues, "is_plumbing", fail),
}


@forms(FORMS)
@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
@pytest.mark.parametrize("strikes", ["before", "between put and get", "while an item is handled"])
def test_a_fault_costs_the_program_nothing(form, fault, strikes, monkeypatch, caplog):
    """Every item arrives, in order, and each cause is in the log at most once."""
    if strikes == "before":
        fault(monkeypatch.setattr)
    settings = {name: "off" for name in _primitives.NAMES if name not in ("queue", "asyncio")}
    with switched_on(**settings):
        waiting, items = form.make(), [(n,) for n in range(3)]

        def produce():
            attach(set_value("value", "a"))
            for item in items:
                form.put(waiting, item)

        def consume():
            attach(set_value("value", "of the consumer"))
            got = []
            while not waiting.empty():
                got.append(form.get(waiting))
                if strikes == "while an item is handled":
                    fault(monkeypatch.setattr)
            with pytest.raises(form.empty):
                waiting.get_nowait()
            if form.bounded:
                waiting.task_done()
            return got

        without_context(produce)
        if strikes == "between put and get":
            fault(monkeypatch.setattr)
        got = without_context(consume)

    assert sorted(map(id, got)) == sorted(map(id, items))
    told = [record for record in caplog.records if record.name.startswith("otel_concurrency")]
    assert len(told) == len({record.getMessage() for record in told})
    assert all("InjectedError" in record.getMessage() for record in told)


@forms(STOCK)
def test_a_fault_in_get_current_is_reported(form, monkeypatch, caplog):
    """Three items under one fault are one warning for each step, not three."""
    wherever_it_is("get_current")(monkeypatch.setattr)
    with switched_on():
        waiting = form.make()
        for n in range(3):
            form.put(waiting, (n,))
            form.get(waiting)

    told = [record for record in caplog.records if record.name.startswith("otel_concurrency")]
    assert told
    assert len(told) == len({record.getMessage() for record in told}) <= 3


def test_a_span_that_raises_when_it_is_asked_is_kept_or_replaced_quietly(caplog):
    """A span of somebody else's whose ``end_time`` cannot be read does not reach the program."""

    class Broken(trace.NonRecordingSpan):
        @property
        def end_time(self):
            raise InjectedError

    with switched_on():
        waiting = queue.Queue()

        def produce():
            attach(set_value("value", "a"))
            waiting.put(1)

        def consume():
            attach(trace.set_span_in_context(Broken(trace.SpanContext(1, 2, is_remote=False))))
            return waiting.get()

        without_context(produce)
        assert contextvars.Context().run(consume) == 1
    assert len(caplog.records) <= 1
