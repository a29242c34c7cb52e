"""What is expected of the hooks in classes of queues that programs write, patch, copy and mix."""

from __future__ import annotations

import abc
import asyncio
import contextlib
import contextvars
import copy
import dataclasses
import functools
import gc
import inspect
import logging
import logging.handlers
import multiprocessing
import os
import queue
import subprocess
import sys
import threading
import typing
from concurrent.futures import Executor, Future
from unittest import mock

import pytest
import wrapt
from forms import WAIT, without_context
from injection import when, wherever_it_is
from item_forms import drive, eventually
from opentelemetry import trace
from opentelemetry.context import Context, attach, detach, set_value

from interpreters import counts_references, weak_reference
from otel_concurrency import ConcurrencyInstrumentor
from otel_concurrency._core import handoff
from otel_concurrency._items import adoption
from otel_concurrency._items.pairing import KEY

KINDS = [queue.Queue, asyncio.Queue]
LOOK_UPS = {
    "Queue": lambda: queue.Queue,
    "SimpleQueue": lambda: queue.SimpleQueue,
    "asyncio": lambda: asyncio.Queue,
}
EMPTY = (queue.Empty, asyncio.QueueEmpty)

pytestmark = pytest.mark.usefixtures("instrumented")
every_kind = pytest.mark.parametrize("kind", KINDS, ids=["queue", "asyncio"])


class Job:
    """An item that can be referred to weakly."""


def put(spans, queue, item, name):
    """Put in the root span ``name``, which does not end, in a flow of its own."""

    def inside():
        attach(trace.set_span_in_context(spans.start(name), Context()))
        queue.put_nowait(item)

    without_context(inside)


def put_value(queue, item):
    """Put in a context of its own; return a weak reference to what that holds."""
    value = Job()

    def inside():
        attach(set_value("value", value))
        queue.put_nowait(item)

    without_context(inside)
    return weak_reference(value)


def ask_in_vain(queue):
    """Ask an empty queue for an item."""
    with pytest.raises(EMPTY):
        queue.get_nowait()


# Classes that derive from several, and what they inherit


@every_kind
@pytest.mark.parametrize("method", ["_put", "_get", "_init"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_class_that_overrides_one_method_leaves_the_others_to_its_bases(
    kind, method, when, spans
):
    """In a diamond each method is the next class's by the order of bases, with hooks as without."""

    def classes():
        def through(self, *args):
            return getattr(super(first, self), method)(*args)

        first = type("First", (kind,), {method: through})
        first()
        return type("Both", (first, sys.modules[kind.__module__].PriorityQueue), {})

    if when == "before":
        ConcurrencyInstrumentor().uninstrument()
        both = classes()
        ConcurrencyInstrumentor().instrument()
    else:
        both = classes()
    heap = both()
    for name in "cadb":
        put(spans, heap, name, name)

    def consume():
        return [(heap.get_nowait(), spans.parent()) for _ in range(4)]

    assert without_context(consume) == [(name, name) for name in "abcd"]


@every_kind
@pytest.mark.parametrize("on_at_the_end", [True, False])
def test_a_class_that_a_program_drops_dies(kind, on_at_the_end, spans):
    """The library keeps no class of queues alive, nor what its methods refer to."""

    def use():
        class Local(kind):
            def _put(self, item):
                super()._put(item)

        queue = Local()
        put(spans, queue, "item", "producer")
        assert without_context(lambda: (queue.get_nowait(), spans.parent())) == ("item", "producer")
        return weak_reference(Local)

    dropped = use()
    if not on_at_the_end:
        ConcurrencyInstrumentor().uninstrument()
    gc.collect()
    assert dropped() is None


@every_kind
def test_every_override_in_a_diamond_is_called_once(kind, spans):
    """Two classes that override a method each, cooperatively, both see each item once."""
    calls = []

    class Putting(kind):
        def _put(self, item):
            calls.append("put")
            super()._put(item)

    class Getting(kind):
        def _get(self):
            calls.append("get")
            return super()._get()

    class Asking:
        def _qsize(self):
            return super()._qsize()

        def empty(self):
            return super().empty()

    class All(Asking, Putting, Getting):
        pass

    for one in Putting, Getting:
        one()
    several = All()
    put(spans, several, 1, "a")

    def consume():
        several.get_nowait()
        inside = spans.parent()
        ask_in_vain(several)
        return inside, spans.parent()

    assert without_context(consume) == ("a", None)
    assert calls == ["put", "get"]


@every_kind
@pytest.mark.parametrize("where", ["stock", "mixin"])
def test_a_patch_of_a_method_that_a_class_inherits_takes_effect(kind, where, spans):
    """What a test or another library patches in a base after us is what its subclasses call."""

    class Mixin:
        def _get(self):
            return super()._get()

    class Derived(*((Mixin, kind) if where == "mixin" else (kind,))):
        def _put(self, item):
            super()._put(item)

    derived = Derived()
    put(spans, derived, 1, "a")
    patched = Mixin if where == "mixin" else kind
    with mock.patch.object(patched, "_get", return_value="patched"):
        assert without_context(derived.get_nowait) == "patched"


def test_classes_of_all_sorts_carry(spans):
    """Slots, a generic alias, a data class, an abstract base: each item is its producer's."""

    class Slotted(queue.Queue):
        __slots__ = ("extra",)

        def _put(self, item):
            super()._put(item)

    class Abstract(queue.Queue, abc.ABC):
        @abc.abstractmethod
        def _get(self): ...

    class Concrete(Abstract):
        def _get(self):
            return self.queue.popleft()

    @dataclasses.dataclass
    class Data(queue.Queue):
        maxsize: int = 0

        def __post_init__(self):
            super().__init__(self.maxsize)

        def _put(self, item):
            super()._put(item)

    made = [queue.Queue[int](), queue.SimpleQueue[int](), Slotted(), Concrete(), Data(3)]
    for one in made:
        put(spans, one, 1, "a")
        assert without_context(lambda one=one: (one.get(), spans.parent())) == (1, "a")
    with pytest.raises(TypeError, match="abstract"):
        Abstract()


# Signatures of methods that are the program's own


def descriptors():
    """Return what may stand in a class for ``_put``, and is not a function."""

    def first(self, item):
        self.queue.appendleft(item)

    class Descriptor:
        def __get__(self, instance, owner=None):
            return self if instance is None else functools.partial(first, instance)

    def at(self, place, item):
        self.queue.insert(place, item)

    return {
        "partialmethod": functools.partialmethod(at, 0),
        "property": property(lambda self: functools.partial(first, self)),
        "descriptor": Descriptor(),
        "wrapt": wrapt.FunctionWrapper(first, lambda wrapped, _, args, kw: wrapped(*args, **kw)),
    }


@pytest.mark.parametrize("name", descriptors())
def test_a_method_need_not_be_a_function(name, spans):
    """Whatever binds in the program's class is bound as attribute access does it."""
    own = type("Own", (queue.Queue,), {"_put": descriptors()[name]})()
    put(spans, own, 1, "a")
    put(spans, own, 2, "b")

    def consume():
        return [(own.get(), spans.parent()) for _ in range(2)]

    assert without_context(consume) == [(2, "b"), (1, "a")]


@pytest.mark.parametrize("switched_on", [True, False])
def test_a_class_keeps_the_parameters_of_its_methods(switched_on, spans):
    """Parameters that stock methods do not have can be passed, by any name, also after undo."""

    class Own(queue.Queue):
        def _put(self, entry, *, front=False):
            (self.queue.appendleft if front else self.queue.append)(entry)

        def _get(self, last=False):
            return self.queue.pop() if last else self.queue.popleft()

        def _qsize(self, len=len):  # as the standard library had it
            return len(self.queue)

    own = Own()
    for name in "abc":
        put(spans, own, name, name)
    if not switched_on:
        ConcurrencyInstrumentor().uninstrument()

    def use():
        own.get()
        with own.mutex:
            own._put(entry="front", front=True)
            return own._get(last=True), own._get(), own._qsize(lambda items: 7), own._qsize()

    assert without_context(use) == ("c", "front", 7, 1)


def test_the_hooks_of_a_class_look_like_its_methods():
    """Signature, hints, kind and names are those of the program's methods, covered or not."""

    def described(kind):
        return [
            (
                inspect.signature(method),
                typing.get_type_hints(method),
                method.__qualname__,
                method.__module__,
                method.__doc__,
                inspect.iscoroutinefunction(method),
            )
            for method in (kind._put, kind._get, kind._qsize, kind.get, kind.__init__)
        ]

    class Own(queue.Queue):
        def _put(self, item: Job, at: int = 0) -> None:
            """Put it."""

        def _get(self) -> Job:
            """Get it."""

    ConcurrencyInstrumentor().uninstrument()
    before = described(Own)
    ConcurrencyInstrumentor().instrument()
    Own()
    assert described(Own) == before


# When somebody else patches, too


@every_kind
@pytest.mark.parametrize("first", ["they", "we"])
def test_a_consumer_lets_go_whoever_else_has_patched(kind, first, spans):
    """A wrapper around each of our hooks, before or after, changes nothing of the rule."""

    def wrapper(wrapped, instance, args, kwargs):
        return wrapped(*args, **kwargs)

    names = ["_put", "_get", "_qsize" if kind is queue.Queue else "empty", "get"]
    if first == "they":
        ConcurrencyInstrumentor().uninstrument()
    with contextlib.ExitStack() as patches:
        for name in names:
            theirs = wrapt.FunctionWrapper(vars(kind)[name], wrapper)
            patches.enter_context(mock.patch.object(kind, name, theirs))
        if first == "they":
            ConcurrencyInstrumentor().instrument()
        one = kind()
        put(spans, one, 1, "a")

        def consume():
            one.get_nowait()
            inside = spans.parent()
            ask_in_vain(one)
            return inside, spans.parent()

        assert without_context(consume) == ("a", None)
        ConcurrencyInstrumentor().uninstrument()
    ConcurrencyInstrumentor().instrument()


def test_a_patch_without_a_trace_of_what_it_wraps_changes_nothing(spans, monkeypatch):
    """A function that calls ``get`` and does not say so was there before us."""
    ConcurrencyInstrumentor().uninstrument()
    original = queue.Queue.get
    monkeypatch.setattr(queue.Queue, "get", lambda self, *args: original(self, *args))
    ConcurrencyInstrumentor().instrument()
    one = queue.Queue()
    put(spans, one, 1, "a")

    def consume():
        one.get()
        inside = spans.parent()
        with pytest.raises(queue.Empty):
            one.get(False)
        return inside, spans.parent()

    assert without_context(consume) == ("a", None)
    ConcurrencyInstrumentor().uninstrument()


def test_a_hook_that_outlives_us_under_a_mock_is_revived(spans):
    """A mock puts our hook back when we are gone: it passes through, and works again with us."""
    with mock.patch.object(queue.Queue, "_get", lambda self: self.queue.popleft()):
        ConcurrencyInstrumentor().uninstrument()
    one = queue.Queue()
    put(spans, one, 1, "a")
    assert without_context(lambda: (one.get(), spans.parent())) == (1, None)
    ConcurrencyInstrumentor().instrument()
    put(spans, one, 2, "b")
    assert without_context(lambda: (one.get(), spans.parent())) == (2, "b")


def test_an_autospec_of_a_queue_works():
    """What stands in for a queue has its methods and refuses others."""
    made = mock.create_autospec(queue.Queue, instance=True)
    made.put(1, timeout=2)
    made._put(1)
    with pytest.raises(TypeError):
        made._put()


# Flows in which something else attaches and detaches meanwhile


@pytest.mark.parametrize("look_up", LOOK_UPS.values(), ids=LOOK_UPS)
def test_a_callback_that_gets_an_item_inside_an_items_work(look_up, spans):
    """It has its item to itself; the consumer goes on where it was, and with the next item."""
    mine, other, future = look_up()(), look_up()(), Future()
    seen = []
    without_context(
        future.add_done_callback, lambda _: seen.append((other.get_nowait(), spans.parent()))
    )
    put(spans, mine, 1, "a")
    put(spans, other, 2, "b")
    put(spans, mine, 3, "c")

    def consume():
        mine.get_nowait()
        future.set_result(None)
        yield spans.parent()
        mine.get_nowait()
        yield spans.parent()
        ask_in_vain(mine)
        yield spans.parent()

    assert without_context(lambda: list(consume())) == ["a", "c", None]
    assert seen == [(2, "b")]


@pytest.mark.parametrize("look_up", LOOK_UPS.values(), ids=LOOK_UPS)
def test_an_item_that_is_got_in_a_context_of_the_works_own(look_up, spans):
    """What is attached around ``get`` and detached after it does not keep the first item alive."""
    one = look_up()()
    for name in "abc":
        put(spans, one, name, name)

    def consume():
        one.get_nowait()
        token = attach(Context())
        one.get_nowait()
        detach(token)
        one.get_nowait()
        yield spans.parent()
        ask_in_vain(one)
        yield spans.parent()

    assert without_context(lambda: list(consume())) in (["c", None], [None, None])


def run_in_place(function):
    """Do what an executor may do that runs what it is given at once."""
    from concurrent.futures import thread

    future = Future()
    if sys.version_info >= (3, 14):

        class Worker:
            def run(self, task):
                return task[0]()

        thread._WorkItem(future, (function, (), {})).run(Worker())
    else:
        thread._WorkItem(future, function, (), {}).run()
    return future.result(WAIT)


def submit_in_place(function):
    """Do the same by way of the event loop, with an executor of the program's own."""

    class InPlace(Executor):
        def submit(self, function, *args):
            future = Future()
            future.set_result(function(*args))
            return future

    async def main():
        return await asyncio.get_running_loop().run_in_executor(InPlace(), function)

    return asyncio.run(main())


in_place = pytest.mark.parametrize("run", [run_in_place, submit_in_place])


@in_place
@pytest.mark.parametrize("gets", [False, True])
def test_work_of_an_executor_that_is_run_in_place_leaves_the_consumer_its_item(run, gets, spans):
    """It may get an item itself: the consumer is in its own before and after, and then in none."""
    one, other = queue.Queue(), queue.Queue()
    put(spans, one, 1, "a")
    put(spans, one, 2, "b")
    put(spans, other, 3, "c")

    def work():
        if gets:
            other.get()
        return spans.parent()

    def consume():
        one.get()
        yield run(work)
        yield spans.parent()
        one.get()
        yield spans.parent()
        ask_in_vain(one)
        yield spans.parent()

    inside = "c" if gets else "a"
    assert without_context(lambda: list(consume())) == [inside, "a", "b", None]


@in_place
def test_a_consumer_thread_still_adopts_after_work_that_was_run_in_place(run, spans):
    """The span that it was started in lives on, and still is nothing of its own."""
    one, seen = queue.Queue(), []
    put(spans, one, 1, "a")
    put(spans, one, 2, "b")

    def consume():
        one.get()
        run(lambda: None)
        one.task_done()
        one.get()
        seen.append(spans.parent())

    def start():
        attach(trace.set_span_in_context(spans.start("starter"), Context()))
        thread = threading.Thread(target=consume)
        thread.start()
        thread.join(WAIT)

    without_context(start)
    assert seen == ["b"]


def test_a_thread_that_inherits_its_starters_context_lets_go_to_its_own():
    """It goes back to where it was started, and not to where its starter will go back to."""
    program = """
import queue, threading
from opentelemetry import trace
from opentelemetry.context import attach, detach, get_value, set_value, Context
from otel_concurrency import ConcurrencyInstrumentor

ConcurrencyInstrumentor().instrument()
items, seen = queue.Queue(), []

def inner():
    try:
        queue.Queue().get_nowait()
    except queue.Empty:
        seen.append(get_value("name"))

def consumer():
    items.get()
    thread = threading.Thread(target=inner)
    thread.start()
    thread.join()

token = attach(set_value("name", "starter"))
thread = threading.Thread(target=consumer)
thread.start()
detach(token)
token = attach(set_value("name", "item"))
items.put(1)
detach(token)
thread.join()
assert seen == ["item"], seen
"""
    inherits(program)


@counts_references
def test_a_thread_that_inherits_its_starters_context_holds_no_item():
    """A thread that was started clean, in an item's work, outlives that without its context."""
    program = """
import gc, queue, threading, weakref
from opentelemetry.context import Context, attach, detach, set_value
from otel_concurrency import ConcurrencyInstrumentor

class Value:
    pass

gc.disable()
ConcurrencyInstrumentor().instrument()
items, end, value = queue.Queue(), threading.Event(), Value()
dead = weakref.ref(value)
token = attach(set_value("value", value))
items.put(1)
detach(token)
del token, value
items.get()
token = attach(Context())
thread = threading.Thread(target=end.wait)
thread.start()
detach(token)
del token
items.task_done()
gone = dead() is None
end.set()
thread.join()
assert gone
"""
    inherits(program)


def inherits(program):
    """Run a program whose threads start in a copy of their starter's context, since 3.14."""
    subprocess.run(
        [sys.executable, "-X", "thread_inherit_context=1", "-c", program], check=True, timeout=60
    )


# Subclasses with a `get`, `put` or transformation of their own


def test_a_get_of_the_classs_own_lets_go_when_there_is_nothing(spans):
    """A class may ask, and raise or wait, in a ``get`` that it has written itself."""

    class Own(queue.Queue):
        def get(self, block=True, timeout=None):
            with self.not_empty:
                if not self._qsize():
                    raise queue.Empty
                return self._get()

    own = Own()
    put(spans, own, 1, "a")

    def consume():
        own.get()
        inside = spans.parent()
        with pytest.raises(queue.Empty):
            own.get()
        return inside, spans.parent()

    assert without_context(consume) == ("a", None)


@every_kind
def test_a_put_that_makes_room_is_no_consumer(kind, spans):
    """A ``put_nowait`` that drops the oldest item neither adopts it nor puts under it."""

    class Latest(kind):
        def put_nowait(self, item):
            if self.full():
                self.get_nowait()
            super().put_nowait(item)

    latest = Latest(1)
    put(spans, latest, 1, "a")

    def produce():
        latest.put_nowait(2)
        return spans.parent()

    assert without_context(produce) is None
    assert without_context(lambda: (latest.get_nowait(), spans.parent())) == (2, None)


@pytest.mark.parametrize("by", ["super", "itself"])
def test_an_item_that_becomes_another_which_was_put_too(by, spans):
    """A class that maps its items to few objects: nobody's item is handled under another's."""

    class Parity(queue.Queue):
        def _put(self, item):
            if by == "super":
                super()._put(item % 2)
            else:
                self.queue.append(item % 2)

    parity = Parity()
    put(spans, parity, 3, "three")
    put(spans, parity, 1, "one")

    def consume():
        parity.get()
        yield spans.parent()
        parity.get()
        yield spans.parent()

    first, second = without_context(lambda: list(consume()))
    assert first in ("three", None)
    assert second in ("one", None)


def test_a_get_that_raises_after_it_has_taken_an_item_lets_go(spans):
    """What the program does about the error is not done for the item before."""

    class Own(queue.Queue):
        def _get(self):
            item = super()._get()
            if item == "bad":
                raise ValueError(item)
            return item

    own = Own()
    put(spans, own, "good", "a")
    put(spans, own, "bad", "b")

    def consume():
        own.get()
        with pytest.raises(ValueError, match="bad"):
            own.get()
        return spans.parent()

    assert without_context(consume) in ("b", None)


@pytest.mark.parametrize("kind", [queue.Queue, queue.LifoQueue, queue.PriorityQueue, asyncio.Queue])
def test_a_fault_in_getting_an_item_leaves_the_consumer_without_a_context(kind, spans, caplog):
    """Not in that of the item before: nothing is known of the new one."""
    one = kind()
    with spans.current("a"):
        one.put_nowait(1)
        one.put_nowait(2)

    def consume():
        one.get_nowait()
        assert spans.parent() == "a"
        setattr(one, KEY, object())  # no pairs
        one.get_nowait()
        return spans.parent()

    assert without_context(consume) is None
    assert len(caplog.records) == 1


def test_a_fault_in_getting_an_item_of_a_simple_queue(spans, caplog, monkeypatch):
    """As one of another queue."""

    def fail(_context):
        raise ValueError

    one = queue.SimpleQueue()
    with spans.current("a"):
        one.put(1)
        one.put(2)

    def consume():
        one.get()
        assert spans.parent() == "a"
        monkeypatch.setattr(handoff.seams["queue"], "change", fail)
        return one.get(), spans.parent()

    assert without_context(consume) == (2, None)
    assert len(caplog.records) == 1


@pytest.mark.parametrize("kind", [queue.PriorityQueue, asyncio.PriorityQueue])
@pytest.mark.parametrize("count", [1, 100], ids=["at once", "when it is known to hand work on"])
def test_an_object_in_the_place_of_a_removed_item_has_no_context(kind, count, spans):
    """Though the program has exchanged them in the container itself, and it has the other's id."""
    one = kind()
    container = one.queue if kind is queue.PriorityQueue else one._queue
    for _ in range(count):
        put(spans, one, Job(), "a")
        without_context(one.get_nowait)
    put(spans, one, Job(), "a")
    removed = id(container[0])
    container.clear()
    others = [Job()]
    while len(others) < 1000 and id(others[-1]) != removed:
        others.append(Job())
    container.append(others[-1])

    def consume():
        return one.get_nowait() is others[-1], spans.parent()

    assert without_context(consume) == (True, None)


# Switching off


def test_a_consumer_that_is_switched_off_inside_an_item_is_idle_when_it_asks(spans):
    """Of the same queue or another, and whether or not there is something to get."""
    for asked in "the same", "another", "another one with an item":
        ConcurrencyInstrumentor().instrument()
        one = queue.Queue()
        other = one if asked == "the same" else queue.Queue()
        if asked == "another one with an item":
            other.put(2)
        put(spans, one, 1, "a")

        def consume(one=one, other=other):
            one.get()
            assert spans.parent() == "a"
            ConcurrencyInstrumentor().uninstrument()
            if other.empty():
                ask_in_vain(other)
            else:
                other.get()
            return spans.parent()

        assert without_context(consume) is None, asked


@contextlib.contextmanager
def managed():
    """Yield a queue of a manager's."""
    with multiprocessing.Manager() as manager:
        yield manager.Queue()


def released(make):
    """Return a function that yields a queue of several processes, and frees it at the end."""

    @contextlib.contextmanager
    def make_and_release():
        one = make()
        yield one
        one.close()

    return make_and_release


QUEUES = {
    "Queue": lambda: contextlib.nullcontext(queue.Queue()),
    "LifoQueue": lambda: contextlib.nullcontext(queue.LifoQueue()),
    "PriorityQueue": lambda: contextlib.nullcontext(queue.PriorityQueue()),
    "SimpleQueue": lambda: contextlib.nullcontext(queue.SimpleQueue()),
    "asyncio": lambda: contextlib.nullcontext(asyncio.Queue()),
    "multiprocessing": released(multiprocessing.Queue),
    "multiprocessing, simple": released(multiprocessing.SimpleQueue),
    "managed": managed,
}


@pytest.mark.parametrize("make", QUEUES.values(), ids=QUEUES)
def test_a_consumer_that_asks_for_nothing_between_two_undos_is_idle_after_them(make, spans):
    """It was switched on again in between, and off, in another thread, while it handled an item."""

    def put(item):
        getattr(one, "put_nowait" if isinstance(one, asyncio.Queue) else "put")(item)

    def get():
        return one.get_nowait() if isinstance(one, asyncio.Queue) else one.get()

    def consume():
        assert (get(), spans.parent()) == (1, "a")
        for switch in ("uninstrument", "instrument", "uninstrument"):
            without_context(getattr(ConcurrencyInstrumentor(), switch))
        without_context(put, 2)
        return get(), spans.parent()

    with make() as one:
        with spans.current("a"):
            put(1)
        assert without_context(consume) == (2, None)


@pytest.mark.parametrize("name", ["multiprocessing", "multiprocessing, simple", "managed"])
def test_a_fault_in_getting_an_item_of_another_process(name, spans, caplog, monkeypatch):
    """As one of another queue, also where the last item and this one could be one batch."""

    def fail(*_):
        raise ValueError

    with QUEUES[name]() as one:
        with spans.current("a"):
            one.put(1)
            one.put(2)

        def consume():
            one.get()
            assert trace.get_current_span().get_span_context().is_valid
            assert eventually(lambda: not one.empty())
            monkeypatch.setattr(adoption, "arrive", fail)
            monkeypatch.setattr(adoption, "adopt", fail)
            return one.get(), spans.parent()

        assert without_context(consume) == (2, None)
    assert len(caplog.records) == 1


@pytest.mark.parametrize("make", QUEUES.values(), ids=QUEUES)
@pytest.mark.parametrize("starts_spans", [True, False], ids=["a span for each", "no span"])
def test_where_a_context_cannot_be_attached_the_item_before_is_over(
    make, starts_spans, spans, caplog, monkeypatch
):
    """The flow is idle for this item, and has the context of the next one."""
    failures = []
    wherever_it_is("attach", when(failures))(monkeypatch.setattr)
    ConcurrencyInstrumentor().instrument()

    def put(item):
        getattr(one, "put_nowait" if isinstance(one, asyncio.Queue) else "put")(item)

    def get(starts_span=starts_spans):
        item = one.get_nowait() if isinstance(one, asyncio.Queue) else one.get()
        return item, spans.parent() if starts_span else item

    def consume():
        yield from (get(), get())
        failures.append("to attach")
        yield from (get(starts_span=True), get(starts_span=True))

    with make() as one:
        for item in "abcd":
            with spans.current(item):
                put(item)
        assert eventually(lambda: not one.empty())
        found = without_context(lambda: list(consume()))
    assert not failures
    assert sorted(item for item, _ in found) == [*"abcd"]
    item, parent = found.pop(2)
    assert parent in (None, item)
    assert all(parent == item for item, parent in found)
    assert len(caplog.records) == 1


def eventually_soon(condition):
    """Wait for a short while until ``condition()`` holds; return whether it did."""
    with mock.patch("item_forms.WAIT", 1):
        return eventually(condition)


def test_a_queue_that_was_never_asked_after_undo_dies(spans, no_collector):
    """With the items that it holds."""
    one, job = queue.Queue(), Job()
    put(spans, one, job, "a")
    ConcurrencyInstrumentor().uninstrument()
    dead = weak_reference(job)
    del one, job
    assert dead() is None


def test_a_copy_after_undo_is_a_queue_of_its_own(spans):
    """It gives its own items and leaves those of the original alone."""

    class Copied(asyncio.Queue):
        def __copy__(self):
            made = self.__class__.__new__(self.__class__)
            vars(made).update(vars(self))
            made._queue = self._queue.copy()
            return made

    original = Copied()
    put(spans, original, 1, "a")
    put(spans, original, 2, "b")
    ConcurrencyInstrumentor().uninstrument()
    made = copy.copy(original)
    assert made.get_nowait() == 1
    assert (list(original._queue), list(made._queue)) == ([1, 2], [2])


def test_a_queue_that_refuses_attributes_keeps_nobody_from_switching_off(spans, caplog):
    """Its own ``__setattr__`` is not asked, and other queues' contexts are gone with ours."""

    class Frozen(queue.Queue):
        def __setattr__(self, name, value):
            if "is_frozen" in vars(self) and name != "unfinished_tasks":
                raise AttributeError(name)
            super().__setattr__(name, value)

    frozen = Frozen()
    frozen.is_frozen = True
    put(spans, frozen, 1, "a")
    other = queue.Queue()
    value = put_value(other, 2)
    ConcurrencyInstrumentor().uninstrument()
    assert not caplog.records
    assert value() is None
    assert without_context(lambda: (frozen.get(), spans.parent())) == (1, None)


def test_a_race_of_switching_with_producers_and_consumers(spans, tracer):
    """Items keep coming, in order, under their own producer or under nobody."""
    one, wrong, handled = queue.Queue(), [], []
    done = threading.Event()

    def produce(name):
        for number in range(300):
            with spans.current(f"{name}{number}"):
                one.put(f"{name}{number}")
        one.put(None)

    def consume():
        for item in iter(one.get, None):
            parent = spans.parent()
            if parent not in (item, None):
                wrong.append((item, parent))
            handled.append(item)

    def switch():
        while not done.wait(0.002):
            ConcurrencyInstrumentor().uninstrument()
            ConcurrencyInstrumentor().instrument()

    switcher = threading.Thread(target=switch)
    threads = [threading.Thread(target=without_context, args=(produce, name)) for name in "abc"]
    threads += [threading.Thread(target=consume) for _ in range(3)]
    for thread in [switcher, *threads]:
        thread.start()
    for thread in threads:
        thread.join(WAIT)
    done.set()
    switcher.join(WAIT)
    assert not any(thread.is_alive() for thread in [switcher, *threads])
    assert not wrong
    assert len(set(handled)) == 900


# What must not live on


def test_a_callback_that_gets_an_item_leaves_nothing_in_its_thread(no_collector):
    """Whoever completes the future holds no context of an item that a callback got."""
    one, future = queue.Queue(), Future()

    def get(_):
        one.get()

    value = put_value(one, 1)

    def complete():
        future.add_done_callback(get)
        future.set_result(None)
        return value() is None

    assert without_context(complete)


def test_an_executors_thread_that_ran_a_consumer_holds_nothing(no_collector):
    """An executor of the program's own runs, for the event loop, what gets an item."""
    go, done = threading.Semaphore(0), threading.Event()
    tasks = []

    class Own(Executor):
        def submit(self, function, *args):
            future = Future()
            tasks.append((future, function, args))
            go.release()
            return future

    def work():
        go.acquire(timeout=WAIT)
        future, function, args = tasks.pop()
        future.set_result(function(*args))
        del future, function, args
        done.wait(WAIT)

    one = queue.Queue()
    value = put_value(one, 1)

    def get():
        one.get()

    async def main():
        token = attach(set_value("base", 1))
        await asyncio.get_running_loop().run_in_executor(Own(), get)
        detach(token)

    worker = threading.Thread(target=work)
    worker.start()
    asyncio.run(main())
    gone = eventually_soon(lambda: value() is None)
    done.set()
    worker.join(WAIT)
    assert gone


def test_a_flow_that_lets_another_task_get_holds_nothing(no_collector, spans):
    """``create_task(queue.get())`` is the end of the last item's work, also in its record."""

    async def main():
        one = asyncio.Queue()
        value = put_value(one, 1)
        put_value(one, 2)
        await one.get()
        assert spans.parent() is None
        await asyncio.create_task(one.get())
        await asyncio.sleep(0)
        return value() is None

    assert asyncio.run(main())


@every_kind
def test_a_waiting_consumer_in_a_context_around_get_holds_nothing(kind, no_collector):
    """A loop that attaches something around each ``get`` keeps no context of the last item."""
    one = kind()
    value = put_value(one, 1)

    def consume():
        token = attach(set_value("suppress", True))
        one.get_nowait()
        detach(token)
        attach(set_value("suppress", True))
        ask_in_vain(one)
        return value() is None

    assert without_context(consume)


@every_kind
def test_a_container_that_was_cleared_by_hand_holds_nothing_once_it_is_asked(kind, no_collector):
    """A consumer that finds nothing, or a look at the size, is the end of it."""
    one = kind()
    value = put_value(one, 1)
    (one.queue if kind is queue.Queue else one._queue).clear()
    without_context(ask_in_vain, one)
    assert value() is None


def test_an_error_of_the_classs_own_methods_passes_and_holds_nothing(no_collector):
    """It is the very error, and who keeps it keeps no context."""
    error, kept = ValueError("mine"), []

    class Own(queue.Queue):
        def _put(self, item):
            if item == "bad":
                raise error
            super()._put(item)

    own = Own()

    def produce():
        value = Job()
        dead = weak_reference(value)
        token = attach(set_value("value", value))
        del value
        try:
            own.put("bad")
        except ValueError as caught:
            kept.append(caught)
        detach(token)
        del token
        return dead

    dead = without_context(produce)
    assert kept[0] is error
    assert dead() is None


# Asynchronous consumers, and processes


def test_workers_that_wait_together_are_each_in_their_own_items_context(spans):
    """Three tasks wait in ``get`` of one queue, and switch in the middle of their items."""

    async def main():
        one, seen = asyncio.Queue(), []

        async def work():
            while True:
                item = await one.get()
                await asyncio.sleep(0)
                seen.append((item, spans.parent()))
                one.task_done()

        workers = [asyncio.create_task(work()) for _ in range(3)]
        await asyncio.sleep(0)
        for name in "abcdef":
            put(spans, one, name, name)
        await one.join()
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)
        return sorted(seen)

    assert asyncio.run(main()) == [(name, name) for name in "abcdef"]


def test_a_get_that_was_bound_before_us(spans):
    """It adopts and lets go like any other."""
    ConcurrencyInstrumentor().uninstrument()
    for kind in KINDS:
        one = kind()
        get, get_nowait = one.get, one.get_nowait
        ConcurrencyInstrumentor().instrument()
        put(spans, one, 1, "a")

        def consume(get=get, get_nowait=get_nowait):
            got = get()
            if inspect.isawaitable(got):
                drive(got)
            inside = spans.parent()
            with pytest.raises(EMPTY):
                get_nowait()
            return inside, spans.parent()

        assert without_context(consume) == ("a", None)
        ConcurrencyInstrumentor().uninstrument()


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_goes_on_with_queues_and_new_classes(spans):
    """Items of before the fork keep their contexts, and a class of after it is covered."""
    one = queue.Queue()
    put(spans, one, 1, "a")
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        try:

            class Late(queue.Queue):
                def _put(self, item):
                    super()._put(item)

            def consume(queue):
                queue.get()
                return spans.parent()

            late = Late()
            put(spans, late, 1, "b")
            seen = contextvars.Context().run(consume, one), contextvars.Context().run(consume, late)
            os.write(writing, repr(seen).encode())
        finally:
            os._exit(0)
    os.close(writing)
    os.waitpid(child, 0)
    with os.fdopen(reading) as pipe:
        assert pipe.read() == "('a', 'b')"


# What the hooks keep in mind of an item


def test_a_queue_of_logging_keeps_no_record(spans):
    """What goes through the standard library's own queues dies as without us."""
    one = queue.Queue()
    handler = logging.handlers.QueueHandler(one)

    def log():
        attach(set_value("value", 1))
        record = logging.LogRecord("name", logging.INFO, "path", 1, "message", (), None)
        handler.enqueue(record)
        return weak_reference(record)

    dead = without_context(log)
    one.get()
    assert dead() is None


def test_an_item_whose_put_fails_in_the_end_dies():
    """A class takes it back and raises: nothing of ours keeps it."""

    class Own(queue.Queue):
        def _put(self, item):
            super()._put(item)
            self.queue.pop()
            raise ValueError("no")

    own, jobs = Own(), [Job()]

    def produce():
        attach(set_value("value", 1))
        with pytest.raises(ValueError, match="no"):
            own.put(jobs[0])

    without_context(produce)
    dead = weak_reference(jobs.pop())
    gc.collect()
    assert dead() is None


def test_a_copy_outlives_its_original_after_undo(spans):
    """A shallow copy shares the container, and works when the original is gone."""
    original = asyncio.Queue()
    put(spans, original, 1, "a")
    ConcurrencyInstrumentor().uninstrument()
    made = copy.copy(original)
    del original
    gc.collect()
    assert made.get_nowait() == 1


def test_a_look_whether_there_is_more_does_not_end_the_items_work(spans):
    """Only who asks for an item lets go, whatever the function is called."""

    class Own(asyncio.Queue):
        async def get(self):
            item = await super().get()
            return item, self.empty()

    own = Own()
    put(spans, own, 1, "a")
    assert without_context(lambda: (drive(own.get()), spans.parent())) == ((1, True), "a")


@pytest.mark.parametrize("look_up", LOOK_UPS.values(), ids=LOOK_UPS)
def test_asking_in_vain_in_a_context_of_the_works_own(look_up, spans):
    """The item that this context was attached over is let go by the next question."""
    one = look_up()()
    put(spans, one, 1, "a")
    put(spans, other := look_up()(), 2, "b")

    def consume():
        one.get_nowait()
        assert spans.parent() == "a"
        token = attach(Context())
        ask_in_vain(one)
        detach(token)
        other.get_nowait()
        yield spans.parent()
        ask_in_vain(one)
        yield spans.parent()

    assert without_context(lambda: list(consume())) == ["b", None]
