"""The compiled part: chosen in one place, safe where its own steps fail, and free of leaks.

What it does for hand-offs is what the pure twin does, and is tested by the same suites: with
``OTEL_PYTHON_CONCURRENCY_PURE_PYTHON=1`` they, and most of this file, run the twin.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import contextvars
import copy
import gc
import importlib.util
import inspect
import json
import multiprocessing
import os
import pickle
import queue
import sched
import subprocess
import sys
import textwrap
import threading
import time
import types
import weakref
from collections import deque

import pytest
from opentelemetry import context as context_api
from opentelemetry import trace
from opentelemetry.context import Context, attach, detach, get_value, set_value
from opentelemetry.sdk.trace import TracerProvider

from interpreters import PYPY, measures_memory
from otel_concurrency import ConcurrencyInstrumentor
from otel_concurrency._core import compiled, handoff
from otel_concurrency._items import adoption

TRACER = TracerProvider(shutdown_on_exit=False).get_tracer(__name__)
VARIABLE = "OTEL_PYTHON_CONCURRENCY_PURE_PYTHON"
HAND_OFFS = 100_000
IMMUTABLE = 1 << 8
"""``Py_TPFLAGS_IMMUTABLETYPE``."""
PLAIN_QUEUE = queue.SimpleQueue
STREAMS = [queue.Queue, queue.LifoQueue, queue.PriorityQueue, asyncio.Queue]
METHODS = [
    *((PLAIN_QUEUE, "put"), (PLAIN_QUEUE, "get"), (asyncio.Queue, "get")),
    (concurrent.futures.Future, "add_done_callback"),
    *((kind, name) for kind in STREAMS for name in ("_put", "_get")),
]
PLAIN_METHODS = {(kind, name): vars(kind)[name] for kind, name in METHODS}
THIRD_ARGUMENT_IS_A_TASK = sys.version_info >= (3, 14)

where_it_is_in_use = pytest.mark.skipif(compiled.functions is None, reason=compiled.reason)


def python(program, **environment):
    """Run a program in an interpreter of its own; return what it printed, and what it warned of."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        env={**_environment(), **environment},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip(), done.stderr.strip()


def _environment():
    return {name: value for name, value in os.environ.items() if name != VARIABLE}


# --- which one is in use ---

SHOW = """
import json
from otel_concurrency._core import compiled
print(json.dumps([compiled.functions is not None, compiled.reason]))
"""


def chosen(**environment):
    """Return whether the compiled part is chosen, why not, and what was warned of."""
    printed, warned = python(SHOW, **environment)
    return *json.loads(printed), warned


@pytest.mark.parametrize("word", ["1", "true", " TRUE "])
def test_pure_python_is_used_where_that_is_asked_for(word):
    """The variable switches the compiled part off, and is given as the reason."""
    assert chosen(**{VARIABLE: word}) == (False, f"{VARIABLE} is set", "")


@pytest.mark.parametrize("word", ["", "0", "false"])
def test_pure_python_is_not_asked_for_by_other_words(word):
    """What is unset or false changes nothing."""
    assert chosen(**{VARIABLE: word}) == chosen()


def test_another_word_is_reported_and_ignored():
    """A value that makes no sense is reported as it was written, with those that do."""
    *choice, warned = chosen(**{VARIABLE: "perhaps"})
    assert choice == list(chosen()[:2])
    assert "'perhaps'" in warned
    assert "true or false" in warned


def test_there_is_a_reason_where_it_is_not_in_use():
    """It is in use, or a reason says why not."""
    in_use, reason, warned = chosen()
    assert in_use == (not reason)
    assert not warned
    if PYPY:
        assert reason == "the compiled part is for CPython"


BROKEN = """
import sys, types
broken = types.ModuleType("otel_concurrency._core._compiled")
broken.INTERFACE = {interface}
broken.bind = lambda namespace: 1 / 0
sys.modules[broken.__name__] = broken
"""


@pytest.mark.skipif(PYPY, reason="it looks for none there")
@pytest.mark.parametrize(
    ("interface", "reason"),
    [
        (-1, "the compiled part was built from another version"),
        (compiled.INTERFACE, "the compiled part cannot be used: division by zero"),
    ],
)
def test_a_module_that_does_not_fit_is_not_used(interface, reason):
    """A left-over of another version, or one that fails, leaves the pure twin in use."""
    printed, _ = python(
        BROKEN.format(interface=interface) + "import otel_concurrency._core.handoff" + SHOW
    )
    assert json.loads(printed) == [False, reason]


# --- hand-offs, by whichever is in use ---


class Dying:
    """Calls a function when the collector ends it."""

    def __init__(self, function):
        self.itself, self.function = self, function

    def __del__(self):
        self.function()


def in_a_collection(function):
    """Have the collector end what calls a function."""
    Dying(function)
    gc.collect(0)


@pytest.fixture
def on():
    """Switch the library on for the length of a test."""
    ConcurrencyInstrumentor().instrument()
    yield
    ConcurrencyInstrumentor().uninstrument()


def seen():
    """Return what the work can see of the context that was handed off."""
    return get_value("key")


def fail():
    """Raise what the program raises."""
    raise LookupError("of the program")


def interrupt():
    """Raise what is no Exception."""
    raise KeyboardInterrupt


def work_item(function, future=None):
    """Make a work item in the current context, as ``submit`` does; return it and its future."""
    future = future or concurrent.futures.Future()
    kind = concurrent.futures.thread._WorkItem
    if THIRD_ARGUMENT_IS_A_TASK:
        return kind(future, (function, (), {})), future
    return kind(future, function, (), {}), future


def run(item):
    """Run a work item as a worker does, where nothing is current."""
    token = attach(Context())
    try:
        if THIRD_ARGUMENT_IS_A_TASK:
            item.run(concurrent.futures.thread.WorkerContext(None, ()))
        else:
            item.run()
        return dict(context_api.get_current())
    finally:
        detach(token)


def running(module, plain):
    """Return what a work item runs by in C, around ``plain``."""
    return module.method("_WorkItem.run", seen, None, plain)


def in_a_work_item(function):
    """Run a function as a work item; return its outcome, and what is left on the worker."""
    item, future = work_item(function)
    left = run(item)
    return future.exception() or future.result(), left


def cancelled():
    """Cancel a work item before it is run."""
    item, future = work_item(seen)
    future.cancel()
    run(item)


def through_a_queue(items=None):
    """Put an item, and get it where nothing is current, as a worker does."""
    items = items or queue.SimpleQueue()
    items.put("item")
    token = attach(Context())
    try:
        got = items.get()
        return got, seen()
    finally:
        detach(token)


class Messages:
    """A queue to other processes through which new items go; it is known to hand work on."""

    def __init__(self, kind):
        self._kind, self._items, self._number = kind, None, 1000

    def __call__(self):
        """Put three items; have one flow get the first two, and another one the last."""
        if self._items is None:
            self._items = getattr(multiprocessing, self._kind)()
        self._number = number = self._number + 3
        for item in range(number, number + 3):
            self._items.put(item)
        flow = contextvars.Context()
        for each in (flow, flow, contextvars.Context()):
            each.run(self._items.get)
        while self._kind == "Queue" and not self._items._notempty._waiters:
            time.sleep(0)  # its thread is still about to wait, and refers to what it has sent


class Stream:
    """A queue through which new items go, one of them twice; it is known to hand work on."""

    def __init__(self, kind):
        self.items, self._number, self.last = kind(), 1000, None

    def __call__(self):
        """Put three items; return what each of the flows sees that get them."""
        self._number = number = self._number + 2
        self.put(number, number + 1, number)
        return [contextvars.Context().run(self.get) for _ in range(3)]

    def put(self, *items):
        """Put items."""
        for item in items:
            self.items.put(item)

    def get(self):
        """Get the last item; return what is seen with it."""
        self.last = self.items.get()
        return seen()

    def is_settled(self):
        """Whether nothing is noted of its items any more."""
        return bool(self.items._otel_concurrency_pairs.loans.settled)


class TaskStream(Stream):
    """A queue of asyncio's, whose coroutines have nothing to wait for."""

    def put(self, *items):
        for item in items:
            ended(self.items.put(item))

    def get(self):
        self.last = ended(self.items.get())
        return seen()


def ended(coroutine):
    """Run a coroutine that does not wait; return its result."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        return stop.value
    raise AssertionError


def stream_through(kind):
    """Return a stream through a queue of this kind."""
    return (TaskStream if kind is asyncio.Queue else Stream)(kind)


def from_two_producers():
    """Get the items of two producers in turn; return them, and what was current with each."""
    items = queue.SimpleQueue()
    for number in range(4):
        token = attach(set_value("producer", number % 2))
        items.put(number)
        detach(token)
    token = attach(Context())
    try:
        return [(items.get(), get_value("producer")) for _ in range(4)]
    finally:
        adoption.let_go()
        detach(token)


def got_in_a_span(span=None):
    """Get an item where a span is current; return what is current then."""
    items = queue.SimpleQueue()
    items.put("item")
    token = attach(trace.set_span_in_context(span or TRACER.start_span("busy"), Context()))
    try:
        items.get()
        return seen()
    finally:
        adoption.let_go()
        detach(token)


def found_empty(items=None):
    """Ask a queue in vain."""
    items = items or queue.SimpleQueue()
    try:
        items.get(block=False)
    except queue.Empty:
        return
    raise AssertionError


def in_a_callback(function):
    """Run a function as the callback of a future, in another flow; return what is left there."""
    future = concurrent.futures.Future()
    future.add_done_callback(lambda _: function())
    token = attach(Context())
    try:
        future.set_result(None)
        return dict(context_api.get_current())
    finally:
        detach(token)


def in_an_action(function):
    """Run a function as the action of a scheduler, in another flow; return what is left there."""
    scheduler = sched.scheduler()
    scheduler.enter(0, 1, function)
    token = attach(Context())
    try:
        scheduler.run()
        return dict(context_api.get_current())
    finally:
        detach(token)


def in_a_direct_call(function):
    """Run a function in a call of which only the caller knows; return what it raised."""
    call = handoff.DirectCall(context_api.get_current(), function)
    token = attach(Context())
    try:
        call()
    except LookupError as error:
        return repr(error), dict(context_api.get_current())
    finally:
        detach(token)


@pytest.fixture
def current():
    """Attach a context for the length of a test."""
    token = attach(set_value("key", "handed off"))
    yield
    detach(token)


@pytest.mark.usefixtures("on", "current")
def test_a_hand_off_arrives_and_leaves_nothing():
    """The work sees the context that was handed off; the worker is left with none."""
    assert in_a_work_item(seen) == ("handed off", {})
    assert through_a_queue() == ("item", "handed off")
    assert from_two_producers() == [(0, 0), (1, 1), (2, 0), (3, 1)]
    for kind in (queue.Queue, queue.LifoQueue, queue.PriorityQueue):
        assert through_a_queue(kind()) == ("item", "handed off")
    for stream in map(stream_through, STREAMS):
        assert [stream() for _ in range(20)] == [["handed off"] * 3] * 20
        assert stream.is_settled()


@pytest.mark.usefixtures("on", "current")
@pytest.mark.parametrize("run", [in_a_callback, in_an_action])
def test_a_call_sees_its_context_and_leaves_nothing(run):
    """Whatever it has attached itself, and whether or not it is called where it was made."""
    found = []

    def work():
        found.append(seen())
        attach(set_value("key", "forgotten"))

    assert run(work) == {}
    token = attach(set_value("key", "of another"))
    assert run(work) == {}
    detach(token)
    future = concurrent.futures.Future()
    future.set_result(None)
    future.add_done_callback(lambda _: work())  # it is called at once, where its context is current
    assert found == ["handed off", "of another", "handed off"]
    assert seen() == "handed off"


@pytest.mark.usefixtures("on")
def test_a_callback_without_a_context_leaves_nothing():
    """Also where there is nothing on either side, and so nothing to attach."""
    found = []

    def work():
        found.append(seen())
        attach(set_value("key", "forgotten"))

    assert in_a_callback(work) == {}
    assert found == [None]


@where_it_is_in_use
@pytest.mark.usefixtures("on", "current")
@pytest.mark.parametrize(("kind", "name"), METHODS)
def test_a_method_is_a_function_in_all_that_can_be_read(kind, name):
    """The object that calls C is pickled, copied and referred to as the function is."""
    stream_through(asyncio.Queue)()  # some is patched with the first item
    method = vars(queue.SimpleQueue if kind is PLAIN_QUEUE else kind)[name]
    plain = PLAIN_METHODS[kind, name]
    assert isinstance(method, types.FunctionType)
    assert inspect.signature(method) == inspect.signature(plain)
    assert repr(method).startswith("<function ")
    assert (
        pickle.loads(pickle.dumps(method)) is copy.copy(method) is copy.deepcopy(method) is method
    )
    assert weakref.ref(method)() is method
    method.noted = 1
    assert vars(method)["noted"] == 1


@pytest.mark.usefixtures("on", "current")
def test_a_method_takes_what_its_function_takes():
    """By position or by name; what does not fit is the same error."""
    items = queue.SimpleQueue()
    queue.SimpleQueue.put(items, 1)
    items.put(2, False)
    items.put(item=3, block=True, timeout=0)
    assert [items.get(), items.get(False), items.get(timeout=1)] == [1, 2, 3]
    with pytest.raises(TypeError, match="argument"):
        items.put()
    with pytest.raises(TypeError, match="argument"):
        items.get(True, None, 3)


@where_it_is_in_use
def test_the_class_of_methods_is_immutable():
    """An interpreter that specializes look-ups does not do so for what may change."""
    kind = compiled.functions.Method
    with pytest.raises(TypeError):
        kind.note = "changed"
    assert kind.__flags__ & IMMUTABLE


@measures_memory
def test_methods_are_freed():
    """Those of a class that is replaced by another one at each start are not kept."""
    references = []
    for _ in range(3):
        ConcurrencyInstrumentor().instrument()
        references.append(weakref.ref(vars(queue.SimpleQueue)["put"]))
        ConcurrencyInstrumentor().uninstrument()
    gc.collect()
    assert [reference() for reference in references[:-1]] == [None, None]


@measures_memory
@pytest.mark.usefixtures("on")
@pytest.mark.parametrize("has_context", [True, False], ids=["context", "no context"])
@pytest.mark.parametrize("number", [2_000, pytest.param(HAND_OFFS, marks=pytest.mark.scale)])
@pytest.mark.parametrize(
    "hand_off",
    [
        lambda: in_a_work_item(seen),
        lambda: in_a_work_item(fail),
        lambda: in_a_work_item(lambda: attach(set_value("key", "forgotten"))),
        cancelled,
        through_a_queue,
        lambda: through_a_queue(queue.Queue()),
        lambda: through_a_queue(queue.LifoQueue()),
        lambda: through_a_queue(queue.PriorityQueue()),
        Stream(queue.Queue),
        Stream(queue.LifoQueue),
        Stream(queue.PriorityQueue),
        TaskStream(asyncio.Queue),
        Messages("Queue"),
        Messages("SimpleQueue"),
        from_two_producers,
        got_in_a_span,
        found_empty,
        lambda: in_a_callback(seen),
        lambda: in_a_callback(lambda: attach(set_value("key", "forgotten"))),
        lambda: in_an_action(seen),
        lambda: in_an_action(lambda: attach(set_value("key", "forgotten"))),
        lambda: in_a_direct_call(fail),
        lambda: in_a_collection(seen),
        lambda: in_a_collection(lambda: attach(set_value("key", "forgotten"))),
    ],
    ids=[
        *("result", "error", "forgotten", "cancelled", "queue", "Queue", "LifoQueue"),
        *(
            "PriorityQueue",
            "stream",
            "stream, last first",
            "stream, sorted",
            "stream of tasks",
            "messages",
            "simple messages",
            "producers",
            "busy",
            "empty",
        ),
        *("callback", "callback forgets", "action", "action forgets", "call fails"),
        *("collection", "collection forgets"),
    ],
)
def test_hand_offs_leave_no_reference(hand_off, number, has_context):
    """After many hand-offs of a form there is not one reference more to anything."""
    watched = [Context(), Context({"key": "value"})][has_context]
    token = attach(watched)
    shared = [
        *(watched, None, True, False, Context, queue.Empty, handoff.capture, handoff.NO_CONTEXT),
        *(handoff.FRESH, handoff.SEVERAL, handoff.Call, handoff.attach, handoff.adopted),
        *handoff.seams.values(),
    ]

    def counted():
        gc.collect()
        return sys.getallocatedblocks(), [sys.getrefcount(each) for each in shared]

    try:
        for _ in range(1000):
            hand_off()
        blocks, references = counted()
        for _ in range(number):
            hand_off()
        blocks_now, references_now = counted()
    finally:
        detach(token)
    assert [now - then for now, then in zip(references_now, references, strict=True)] == [0] * len(
        shared
    )
    assert blocks_now - blocks < 100  # whatever the number


# --- whether a flow is busy ---


class Foreign(trace.NonRecordingSpan):
    """A span that is not the SDK's."""

    def __init__(self, **attributes):
        super().__init__(trace.SpanContext(1, 2, is_remote=False))
        vars(self).update(attributes)


def ended_span():
    """Return a span that has ended."""
    span = TRACER.start_span("ended")
    span.end()
    return span


@pytest.mark.usefixtures("on", "current")
@pytest.mark.parametrize(
    ("span", "sees"),
    [
        (TRACER.start_span, None),
        (lambda _: ended_span(), "handed off"),
        (lambda _: trace.INVALID_SPAN, "handed off"),
        (lambda _: Foreign(), None),
        (lambda _: Foreign(end_time=None), None),
        (lambda _: Foreign(end_time=1), "handed off"),
        (lambda _: Foreign(_end_time=1), "handed off"),
        (lambda _: Foreign(_end_time=None), None),
    ],
    ids=[
        *("in progress", "ended", "invalid", "foreign", "foreign, in progress"),
        *("foreign, ended", "alike, ended", "alike, in progress"),
    ],
)
def test_an_item_is_adopted_unless_a_span_is_in_progress(span, sees):
    """Whatever kind of span that is."""
    assert got_in_a_span(span("busy")) == sees


@pytest.mark.usefixtures("on", "current")
def test_an_item_is_adopted_in_work_that_was_handed_off_with_its_span():
    """The span in progress is that of the producer of the work, not of the flow."""
    context = trace.set_span_in_context(TRACER.start_span("producer"), Context())
    token = attach(context)
    handoff.bodies[threading.get_ident()] = context
    items = queue.SimpleQueue()
    try:
        contextvars.copy_context().run(
            lambda: (attach(set_value("key", "handed off", Context())), items.put("item"))
        )
        items.get()
        assert seen() == "handed off"
    finally:
        del handoff.bodies[threading.get_ident()]
        adoption.let_go()
        detach(token)


# --- the hooks of queues ---


def settled(kind):
    """Return a stream through a queue that is known to hand work on."""
    stream = stream_through(kind)
    for _ in range(20):
        stream()
    assert stream.is_settled()
    return stream


@contextlib.contextmanager
def noting_functions():
    """Yield a list of the library's functions in Python that this thread calls meanwhile."""
    called = []

    def note(frame, event, _):
        if event == "call" and f"{os.sep}otel_concurrency{os.sep}" in frame.f_code.co_filename:
            called.append(frame.f_code.co_name)

    sys.setprofile(note)
    try:
        yield called
    finally:
        sys.setprofile(None)


@where_it_is_in_use
@pytest.mark.usefixtures("on")
@pytest.mark.parametrize("kind", STREAMS)
@pytest.mark.parametrize("has_context", [True, False], ids=["context", "no context"])
def test_an_item_calls_no_function_in_python(kind, has_context):
    """It is put, and got by two flows: one that has had an item before it, and one that has not."""
    token = attach(Context({"key": "handed off"} if has_context else {}))
    try:
        stream = settled(kind) if has_context else stream_through(kind)
        with noting_functions() as called:
            stream.put(1, 2)
            found = contextvars.Context().run(lambda: [stream.get(), stream.get()])
    finally:
        detach(token)
    assert found == ["handed off" if has_context else None] * 2
    # What tells a consumer whether it has to wait stays a function: it looks at its callers.
    assert set(called) <= {"_qsize", "empty"}


@pytest.mark.usefixtures("on", "current")
@pytest.mark.parametrize("kind", STREAMS)
@pytest.mark.parametrize("change", ["more", "less", "another item", "another order"])
def test_a_container_that_was_changed_directly_has_no_contexts(kind, change):
    """A missing parent is better than a wrong one; the items that are put later have theirs."""
    stream = settled(kind)
    first, second, third = 1001, 1002, 1003
    stream.put(first, second, third)
    items = stream.items
    container = getattr(items, "queue", None) or items._queue
    if change == "more":
        container.append(1004)
    elif change == "less":
        del container[1]
    elif change == "another item":
        container[0], container[-1] = 2001, 2003
    else:
        container[0], container[-1] = container[-1], container[0]
    by_identity = kind is queue.PriorityQueue and change == "another order"
    found = [contextvars.Context().run(stream.get) for _ in range(len(container))]
    assert found == ["handed off" if by_identity else None] * len(found)
    assert stream() == ["handed off"] * 3


@pytest.mark.usefixtures("on", "current")
@pytest.mark.parametrize("kind", STREAMS)
def test_a_container_of_another_class_is_used_as_it_is(kind):
    """What it does with an item is its own; the hooks in Python see to it."""

    class Own(list if kind in (queue.LifoQueue, queue.PriorityQueue) else deque):
        def __len__(self):
            return super().__len__()

    stream = settled(kind)
    name = "_queue" if kind is asyncio.Queue else "queue"
    setattr(stream.items, name, Own(getattr(stream.items, name)))
    assert stream() == ["handed off"] * 3


@pytest.mark.usefixtures("on", "current")
@pytest.mark.parametrize("kind", STREAMS)
def test_an_item_without_a_context_is_handled_in_none_once_a_queue_is_settled(kind):
    """A flow that has handled another one before it goes on with nothing."""
    stream = settled(kind)
    stream.put(1001)
    contextvars.Context().run(stream.put, 1002)

    def consume():
        return dict((stream.get(), stream.last)[::-1] for _ in range(2))

    found = contextvars.Context().run(consume)
    assert found == {1001: "handed off", 1002: None}


@pytest.mark.usefixtures("on", "current")
@pytest.mark.parametrize("kind", STREAMS)
def test_an_item_that_is_got_in_a_span_stays_outside_it(kind):
    """A flow with a span of its own adopts nothing."""
    stream = settled(kind)
    stream.put(1001, 1002)

    def consume():
        with trace.use_span(TRACER.start_span("busy")):
            return [stream.get(), stream.get()]

    assert contextvars.Context().run(consume) == [None, None]


@pytest.mark.usefixtures("on", "current")
@pytest.mark.parametrize("kind", [*STREAMS, PLAIN_QUEUE])
def test_most_items_that_are_got_in_spans_are_counted_and_not_noted(kind):
    """A queue of which much was got so hands work on; knowing that takes no function in Python."""
    stream = stream_through(kind if kind is not PLAIN_QUEUE else queue.SimpleQueue)

    def consume(number):
        with trace.use_span(TRACER.start_span("busy")), noting_functions() as called:
            for _ in range(number):
                stream.get()
        return set(called) - {"_qsize", "empty"}

    stream.put(*range(1000, 1300))
    contextvars.Context().run(consume, 300)
    pairs = getattr(stream.items, "_otel_concurrency_pairs", None)
    loans = pairs.loans if pairs is not None else stream.items._otel_concurrency_settled
    left = loans.to_pass
    assert left > 3
    stream.put(1000, 1001, 1002)
    contextvars.Context().run(stream.get)  # an idle flow, which adopts it
    called = contextvars.Context().run(consume, 2)
    assert loans.to_pass == left - 2
    assert compiled.functions is None or called == set()


@where_it_is_in_use
@pytest.mark.usefixtures("on", "current")
@pytest.mark.parametrize("kind", STREAMS)
@pytest.mark.parametrize("where", ["get_current", "attach"])
def test_an_interrupt_in_a_hook_reaches_the_program(kind, where, replace):
    """It is never swallowed; the items that come later have their contexts."""
    stream = settled(kind)
    plain, strikes = getattr(handoff, where), []

    def function(*arguments):
        if strikes:
            strikes.pop()
            raise KeyboardInterrupt
        return plain(*arguments)

    replace([where], function)

    def consume():
        strikes.append(1)
        return stream.get()

    stream.put(1001, 1002)
    with pytest.raises(KeyboardInterrupt):
        contextvars.Context().run(consume)
    assert not strikes
    stream.items = type(stream.items)()
    stream.put(1003)
    assert contextvars.Context().run(stream.get) == "handed off"


@pytest.mark.usefixtures("on", "current")
@pytest.mark.parametrize("kind", STREAMS)
def test_a_queue_that_is_empty_raises_as_the_plain_one(kind):
    """The container's own error comes out of the hook."""
    with pytest.raises(IndexError):
        settled(kind).items._get()


# --- faults ---

STEPS = ("get_current", "attach", "detach", "get_ident", "report_raised")
"""Functions of ``handoff`` that the compiled part calls."""


class InjectedError(Exception):
    """A fault of the library's own."""


@pytest.fixture
def replace(monkeypatch):
    """Return what replaces functions of ``handoff``, by the compiled part's twin and by itself."""

    def replace(names, function):
        for name in names:
            monkeypatch.setattr(handoff, name, function)
        compiled.bind(vars(handoff))

    yield replace
    monkeypatch.undo()
    compiled.bind(vars(handoff))


def raising(error):
    """Return a function that raises in the place of another one."""

    def raises(*_arguments):
        raise error

    return raises


@pytest.mark.usefixtures("on", "current")
@pytest.mark.parametrize("work", [int, fail], ids=["result", "error"])
@pytest.mark.parametrize("names", [[name] for name in STEPS] + [[*STEPS]], ids=str)
def test_a_fault_in_a_step_of_the_library_changes_no_result(names, work, replace):
    """Whatever fails of what the library does itself, the program gets what it gets."""
    kinds = queue.SimpleQueue, queue.Queue, queue.LifoQueue, queue.PriorityQueue
    streams = [Stream(kind) for kind in kinds]
    for stream in streams[1:] * 20:
        stream()
    several = [stream.items for stream in streams]
    plain, _ = in_a_work_item(work)
    plain_call = in_a_direct_call(work)
    called = []
    replace(names, raising(InjectedError()))
    found, _ = in_a_work_item(work)
    for items in several:
        items.put("item")
    got = [items.get() for items in several]
    in_a_callback(lambda: called.append("callback"))
    in_an_action(lambda: called.append("action"))
    found_call = in_a_direct_call(work)
    assert repr(found) == repr(plain)
    assert got == ["item"] * 4
    assert called == ["callback", "action"]
    assert (found_call or [None])[0] == (plain_call or [None])[0]
    handoff.bodies.clear()  # where the thread has no number, its work cannot be noted


@pytest.mark.usefixtures("on", "current")
def test_a_seam_that_fails_changes_no_result(monkeypatch):
    """A fault in capturing means that the work runs in no context."""
    for name in ("futures", "queue"):
        monkeypatch.setattr(handoff.seams[name], "capture", raising(InjectedError()))
        monkeypatch.setattr(handoff.seams[name], "current", raising(InjectedError()))
    assert in_a_work_item(seen) == (None, {})
    assert through_a_queue() == ("item", None)


@pytest.mark.usefixtures("on", "current")
def test_an_item_without_a_future_fails_as_the_plain_one():
    """What the program has broken itself is the program's error."""
    item, _ = work_item(seen)
    del item.future
    with pytest.raises(AttributeError, match="future"):
        run(item)
    assert seen() == "handed off"


@where_it_is_in_use
@pytest.mark.usefixtures("on", "current")
@pytest.mark.parametrize("name", ["get_current", "attach", "detach", "get_ident"])
@pytest.mark.parametrize("work", [seen, fail], ids=["result", "error"])
def test_an_interrupt_in_a_step_of_the_library_is_the_programs(name, work, replace):
    """It is raised, and the context is detached all the same."""
    item, _ = work_item(work)
    token = attach(Context())
    try:
        replace([name], raising(KeyboardInterrupt()))
        with pytest.raises(KeyboardInterrupt):
            running(compiled.functions, raising(LookupError()))(item)
        if name != "detach":
            assert seen() is None
        if name != "get_ident":
            with pytest.raises(KeyboardInterrupt):
                handoff.DirectCall(set_value("key", "call"), work)()
        if name != "detach":
            assert seen() is None
    finally:
        detach(token)
    handoff.bodies.clear()


@pytest.mark.usefixtures("on", "current")
def test_an_interrupt_of_the_work_passes():
    """What the work raises reaches whoever runs it, and the context is detached."""
    item, future = work_item(interrupt)
    left = run(item)
    assert isinstance(future.exception(), KeyboardInterrupt)
    assert left == {}


# --- making a work item ---


def arguments(future, function):
    """Return the names and the values of what a work item is made of, without itself."""
    if THIRD_ARGUMENT_IS_A_TASK:
        return {"future": future, "task": (function, (), {})}
    return {"future": future, "fn": function, "args": (), "kwargs": {}}


@pytest.fixture
def kind():
    """Return the class of work items; what a test sets in it is taken out again."""
    kind = concurrent.futures.thread._WorkItem
    init = vars(kind)["__init__"]
    yield kind
    kind.__init__ = init


def carried(item):
    """Whether an item has the current context."""
    return item.future._result is context_api.get_current()


@pytest.mark.usefixtures("on", "current")
def test_a_work_item_is_made_with_names(kind):
    """It carries the context as well."""
    parts = arguments(concurrent.futures.Future(), seen)
    names = [*inspect.signature(kind).parameters]
    assert names == [*parts]
    for by_position in range(len(parts) + 1):
        given = [parts[name] for name in names[:by_position]]
        named = {name: parts[name] for name in names[by_position:]}
        item = kind(*given, **named)
        assert type(item) is kind
        assert carried(item)
        item.future._result = None


@pytest.mark.usefixtures("on", "current")
def test_a_work_item_that_cannot_be_made(kind):
    """The error is that of the plain class."""
    parts = [*arguments(concurrent.futures.Future(), seen).values()]
    for given in ([], parts[:1], [*parts, 1], [*parts, 1, 2, 3]):
        with pytest.raises(TypeError, match="__init__"):
            kind(*given)
    with pytest.raises(TypeError, match="unexpected keyword argument 'other'"):
        kind(*parts, other=1)
    assert parts[0]._result is None


@pytest.mark.usefixtures("on", "current")
def test_a_subclass_of_work_items_is_made_as_it_says(kind):
    """It carries the context if it calls what it overrides."""

    class Inherits(kind):
        pass

    class Overrides(kind):
        def __init__(self, *parts):
            super().__init__(*parts)
            self.own = parts

    class Leaves(kind):
        def __init__(self, *parts):
            self.future = parts[0]

    for derived, carries in ((Inherits, True), (Overrides, True), (Leaves, False)):
        item = derived(*arguments(concurrent.futures.Future(), seen).values())
        assert type(item) is derived
        assert carried(item) is carries
    assert item.future._result is None


@pytest.mark.usefixtures("on", "current")
def test_what_is_set_in_the_class_of_work_items_is_used(kind):
    """Another ``__init__`` is called, as in any class."""
    future = concurrent.futures.Future()
    kind.__init__ = lambda self, *parts: setattr(self, "parts", parts)
    assert kind(future).parts == (future,)
    kind.__init__ = lambda self: 1
    with pytest.raises(TypeError, match="should return None"):
        kind()
    del kind.__init__
    assert not hasattr(kind(*arguments(future, seen).values()), "parts")
    assert future._result is None


@where_it_is_in_use
@pytest.mark.parametrize("kind", [1, object, handoff.DirectCall, handoff.__class__])
def test_only_a_class_in_python_is_made_directly(kind):
    """Any other object is refused."""
    with pytest.raises(TypeError, match="a class that was written in Python"):
        compiled.functions.make_directly(kind)


@where_it_is_in_use
@measures_memory
def test_a_class_that_is_made_directly_is_freed():
    """It keeps nothing alive, and is found by a collection."""

    class Plain:
        def __init__(self, future, work, *rest):
            self.future = future

    def twin(self, *parts):
        raise AssertionError

    def make(directly):
        seam = handoff.Seam("made directly")
        init = compiled.functions.method("_WorkItem.__init__", twin, seam, Plain.__init__)
        kind = type("Kind", (), {"__init__": init})
        if directly:
            compiled.functions.make_directly(kind)
            with pytest.raises(TypeError, match="a class that was written in Python"):
                compiled.functions.make_directly(kind)
        future = concurrent.futures.Future()
        for _ in range(10):
            assert kind(*arguments(future, seen).values()).future is future
        return weakref.ref(kind)

    def grown(count, directly):
        gc.collect()
        blocks = sys.getallocatedblocks()
        made = [make(directly) for _ in range(count)]
        gc.collect()
        assert [reference() for reference in made] == [None] * count
        del made
        return sys.getallocatedblocks() - blocks

    for directly in (False, True):
        grown(100, directly)
    before = sys.getrefcount(compiled.functions)
    assert grown(1000, directly=True) < grown(1000, directly=False) + 500
    after = sys.getrefcount(compiled.functions)
    assert after == before
    handoff.seams.pop("made directly")


@where_it_is_in_use
@pytest.mark.parametrize("count", range(9))
def test_a_class_that_is_made_directly_may_have_a_new(count):
    """It is called with what the class is called with, and what it returns is returned."""
    kind = type("Kind", (), {})
    compiled.functions.make_directly(kind)
    assert type(kind()) is kind
    for made in (1, 2):
        kind.__new__ = lambda kind, *parts, made=made, **named: (kind, made, parts, named)
        parts = tuple(range(count))
        assert kind(*parts) == (kind, made, parts, {})
        assert kind(*parts, five=5) == (kind, made, parts, {"five": 5})
    kind.__new__ = raising(LookupError())
    with pytest.raises(LookupError):
        kind(*parts)


@where_it_is_in_use
@pytest.mark.parametrize("place", ["the class", "its base"])
def test_a_class_that_is_made_directly_may_have_both(place):
    """``__init__`` is called with what ``__new__`` has made, if that is an instance."""

    class Base:
        pass

    class Kind(Base):
        def __new__(cls, *parts):
            return object.__new__(cls) if parts else parts

    compiled.functions.make_directly(Kind)
    assert vars(Kind(1)) == {}
    owner = {"the class": Kind, "its base": Base}[place]
    owner.__init__ = lambda self, *parts: setattr(self, "parts", parts)
    assert Kind(1, 2).parts == (1, 2)
    assert Kind() == ()


# --- the module ---


def another_module():
    """Return a second instance of the compiled module, which nothing has bound."""
    spec = importlib.util.find_spec("otel_concurrency._core._compiled")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


FUNCTIONS = (
    *("method", "begin_collection", "end_collection"),
    *("begins", "arrived", "known_trailer"),
)


@where_it_is_in_use
@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("count", range(7))
def test_wrong_arguments_are_an_error(name, count):
    """A call with anything else raises, before and after the module is bound."""
    module = another_module()
    with pytest.raises(RuntimeError, match="was not called"):
        getattr(module, name)(*[None] * count)
    if (name, count) != ("begins", 3):
        with pytest.raises(TypeError):
            getattr(compiled.functions, name)(*[None] * count)


@where_it_is_in_use
@pytest.mark.parametrize("count", [0, 1, 3])
def test_a_direct_call_is_made_of_two_parts(count):
    """Anything else is an error, and so is a call of one that has none."""
    with pytest.raises(TypeError, match="expected a context and a function"):
        handoff.DirectCall(*[None] * count)
    with pytest.raises(TypeError, match="expected a context and a function"):
        handoff.DirectCall(Context(), function=seen)
    with pytest.raises(TypeError):
        object.__new__(handoff.DirectCall)()
    call = handoff.DirectCall(Context(), seen)
    del call._context, call._function
    with pytest.raises(TypeError, match="not callable"):
        call()


@where_it_is_in_use
@measures_memory
def test_a_direct_call_is_freed_with_what_refers_to_it():
    """A cycle through one is found by a collection, as a cycle through one in Python is."""

    class Work:
        def __call__(self):
            raise AssertionError

    work = Work()
    work.call = handoff.DirectCall(Context({"work": work}), work)
    gone = weakref.ref(work)
    del work
    gc.collect()
    assert gone() is None


@where_it_is_in_use
@pytest.mark.parametrize("other", [object, 1, type("Call", (), {"__slots__": ("_context",)})])
def test_another_class_of_calls_is_refused(other):
    """The compiled class knows where its base has what it reads."""
    with pytest.raises(TypeError, match="something else was expected of Call"):
        another_module().bind({**vars(handoff), "Call": other})


@where_it_is_in_use
@pytest.mark.parametrize("namespace", [None, {}, {"adopted": 1}])
def test_a_namespace_that_does_not_fit_is_refused(namespace):
    """Without what it needs the module is not bound."""
    module = another_module()
    with pytest.raises((TypeError, NameError)):
        module.bind(namespace)
    with pytest.raises(RuntimeError):
        module.adopt(Context())


@where_it_is_in_use
@pytest.mark.parametrize("gone", ["adopted", "bodies", "ages", "Context"])
def test_each_part_of_a_namespace_is_looked_at(gone):
    """An object of another type than the known one is refused."""
    with pytest.raises(TypeError, match="something else was expected"):
        another_module().bind({**vars(handoff), gone: 1})


@where_it_is_in_use
@measures_memory
def test_modules_are_freed():
    """A module that nothing refers to is freed, though its namespace refers to it."""

    def make():
        namespace = {**vars(handoff)}
        namespace["module"] = another_module()
        namespace["module"].bind(namespace)
        return weakref.ref(namespace["module"])

    def grown(count):
        gc.collect()
        blocks = sys.getallocatedblocks()
        made = [make() for _ in range(count)]
        gc.collect()
        assert [reference() for reference in made] == [None] * count
        del made
        return sys.getallocatedblocks() - blocks

    grown(1000)  # the interpreter keeps something of the first ones
    assert grown(1000) < 500  # less than one block of each


@where_it_is_in_use
@pytest.mark.usefixtures("current")
def test_another_runtime_context_is_used_as_it_is(monkeypatch):
    """Where the context is not kept in a context variable, its own functions are called."""
    called = []
    namespace = {**vars(handoff)}
    for name in ("get_current", "attach", "detach"):

        def function(*arguments, name=name):
            called.append(name)
            return getattr(context_api, name)(*arguments)

        namespace[name] = function
    module = another_module()
    module.bind(namespace)
    item, future = work_item(seen)
    future._result = context_api.get_current()
    token = attach(Context())
    try:
        assert running(module, lambda item: seen())(item) == "handed off"
        assert seen() is None
    finally:
        detach(token)
    assert called == ["get_current", "attach", "detach"]


@where_it_is_in_use
@pytest.mark.skipif(
    sys.version_info < (3, 13),
    reason="interpreters share the GIL up to 3.11, and crash in 3.12.1, without the library too",
)
def test_interpreters_with_a_gil_of_their_own_run_it():
    """Each interpreter has a module of its own, and hands off by it at the same time."""
    printed, _ = python(
        """
        import sys, textwrap, threading
        try:
            import _interpreters as interpreters
        except ImportError:
            import _xxsubinterpreters as interpreters
        WORK = textwrap.dedent('''
            import queue
            from concurrent.futures import ThreadPoolExecutor
            from opentelemetry.context import attach, get_value, set_value
            from otel_concurrency import ConcurrencyInstrumentor
            from otel_concurrency._core import compiled
            assert compiled.functions is not None, compiled.reason
            ConcurrencyInstrumentor().instrument()
            attach(set_value("key", "value"))
            items = queue.SimpleQueue()
            with ThreadPoolExecutor(2) as pool:
                for number in range(300):
                    assert pool.submit(get_value, "key").result(20) == "value"
                    items.put(number)
                    assert items.get() == number
        ''')
        def run():
            interpreter = interpreters.create()
            raised = interpreters.run_string(interpreter, WORK)
            interpreters.destroy(interpreter)
            if raised is not None:
                raise SystemExit(raised)
            done.append(interpreter)
        done = []
        threads = [threading.Thread(target=run) for _ in range(3)]
        for thread in threads:
            thread.start()
            if sys.version_info < (3, 14):  # without the library several crash, too
                thread.join(60)
        for thread in threads:
            thread.join(60)
        print(len(done))
        """
    )
    assert printed == "3"
