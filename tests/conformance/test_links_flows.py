"""A flow that lives on in a context loses its baggage; work that was picked up late keeps it."""

from __future__ import annotations

import asyncio
import queue
import sched
import threading
from concurrent.futures import Future, ThreadPoolExecutor

import pytest
from forms import WAIT, without_context
from links import MINUTE, assert_linked, named
from opentelemetry import baggage
from opentelemetry.context import attach, get_current, set_value

LATE = MINUTE + 1_000_000


class Request:
    """A request of a tenant's, in whose span something is handed off; its span has ended then."""

    def __init__(self, tracer, exporter, clock):
        self.tracer, self.exporter, self.clock = tracer, exporter, clock
        self.seen = {}
        self.span = None

    def make(self, function, *args):
        """Call ``function`` in the request; return what it returned."""

        def request():
            attach(baggage.set_baggage("tenant", "acme"))
            with self.tracer.start_as_current_span("request") as self.span:
                return function(*args)

        return without_context(request)

    def work(self, name="work"):
        """Make a span, and note the baggage inside it."""
        with self.tracer.start_as_current_span(name):
            self.seen[name] = baggage.get_baggage("tenant")

    def is_linked(self, name="work"):
        """Assert that a span is the root of a trace that is linked to the request."""
        assert_linked(named(self.exporter)[name], self.span, reason="ended")

    def is_alone(self, name):
        """Assert that a span is the root of a trace, without any link."""
        span = named(self.exporter)[name]
        assert (span.parent, span.links) == (None, ())


@pytest.fixture
def request_(instrument, tracer, exporter, clock):
    """Return a request to hand something off in, with the library on."""
    instrument()
    return Request(tracer, exporter, clock)


# Flows that were quiet since they were started: their first span of all comes late.


def test_a_thread_that_lives_on_loses_the_baggage_with_its_first_span(request_):
    """That span has the link; the one after it has nothing. What it attached itself, it keeps."""
    gate = threading.Event()

    def loop():
        attach(set_value("own", 1))
        gate.wait(WAIT)
        for name in ("first", "second"):
            request_.work(name)
        request_.seen["left"] = dict(get_current())

    thread = request_.make(threading.Thread, None, loop)
    request_.make(thread.start)
    request_.clock(LATE)
    gate.set()
    thread.join(WAIT)
    request_.is_linked("first")
    request_.is_alone("second")
    assert request_.seen == {"first": None, "second": None, "left": {"own": 1}}


@pytest.mark.parametrize("in_pool", [False, True])
def test_a_task_that_lives_on_loses_the_baggage_with_its_first_span(in_pool, request_):
    """Wherever its loop runs: a loop that a pool runs in no context is no late work of the pool."""

    async def main():
        gate = asyncio.Event()

        async def reader():
            await gate.wait()
            for name in ("first", "second"):
                request_.work(name)

        def start():
            return asyncio.get_running_loop().create_task(reader())

        task = request_.make(start)
        request_.clock(LATE)
        gate.set()
        await task

    if in_pool:
        with ThreadPoolExecutor(1) as pool:
            pool.submit(asyncio.run, main()).result(WAIT)
    else:
        asyncio.run(main())
    request_.is_linked("first")
    request_.is_alone("second")
    assert request_.seen == {"first": None, "second": None}


# Work that is picked up late.


def late_call_of_a_pool(request_, work):
    """Submit to a pool that is busy until then."""
    gate = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        without_context(pool.submit, gate.wait, WAIT)
        future = request_.make(pool.submit, work)
        request_.clock(LATE)
        gate.set()
        future.result(WAIT)


def late_action_of_a_scheduler(request_, work):
    """Enter an action that is due then."""
    scheduler = sched.scheduler()
    request_.make(scheduler.enter, 0, 1, work)
    request_.clock(LATE)
    without_context(scheduler.run)


def late_action_in_a_task(request_, work):
    """Run a scheduler then in a task, which outlives nothing itself."""
    scheduler = sched.scheduler()
    request_.make(scheduler.enter, 0, 1, work)
    request_.clock(LATE)

    async def main():
        scheduler.run()

    asyncio.run(main())


def late_callback_of_a_future(request_, work, kind=Future):
    """Complete a future then, in a task, which outlives nothing itself."""
    future = kind()
    request_.make(future.add_done_callback, lambda _: work())
    request_.clock(LATE)

    async def main():
        future.set_result(None)

    asyncio.run(main())


class OwnFuture(Future):
    """A future that calls its callbacks in its own way."""

    def _invoke_callbacks(self):
        for each in self._done_callbacks:
            each(self)


def late_callback_of_an_own_future(request_, work):
    """Complete a future of a program's own class then."""
    late_callback_of_a_future(request_, work, OwnFuture)


def late_timer(request_, work):
    """Start a timer that is due then."""
    gate = threading.Event()

    class Timer(threading.Timer):
        def __init__(self):
            super().__init__(0, work)
            self.finished = Gate()

    class Gate(threading.Event):
        def wait(self, timeout=None):
            return not gate.wait(WAIT)

    timer = Timer()
    request_.make(timer.start)
    request_.clock(LATE)
    gate.set()
    timer.join(WAIT)


def late_callback_of_a_loop(request_, work):
    """Have a loop call it then."""

    async def main():
        done = asyncio.Event()

        def late():
            work()
            done.set()

        request_.make(asyncio.get_running_loop().call_later, 0.001, late)
        request_.clock(LATE)
        await asyncio.wait_for(done.wait(), WAIT)

    asyncio.run(main())


def late_item(request_, work):
    """Put an item that is got then."""
    items = queue.Queue()
    request_.make(items.put, 1)
    request_.clock(LATE)

    def consume():
        items.get()
        work()

    without_context(consume)


def late_item_of_tasks(request_, work):
    """Put an item that a task gets then, and handles in a task of its own."""

    async def main():
        items = asyncio.Queue()
        request_.make(items.put_nowait, 1)
        request_.clock(LATE)

        async def handle():
            work()

        await items.get()
        await asyncio.create_task(handle())

    asyncio.run(main())


def late_call_of_a_pool_with_tasks(request_, work):
    """Submit a call that runs an event loop then."""

    async def handle():
        work()

    late_call_of_a_pool(request_, lambda: asyncio.run(handle()))


LATE_WORK = [
    late_call_of_a_pool,
    late_action_of_a_scheduler,
    late_action_in_a_task,
    late_callback_of_a_future,
    late_callback_of_an_own_future,
    late_timer,
    late_callback_of_a_loop,
    late_item,
    late_item_of_tasks,
    late_call_of_a_pool_with_tasks,
]


@pytest.mark.parametrize("late", LATE_WORK, ids=lambda late: late.__name__)
def test_work_that_is_picked_up_late_keeps_the_baggage(late, request_):
    """Hours later the tenant is still the tenant, however long the work takes then."""

    def work():
        request_.work("first")
        request_.clock(LATE)
        request_.work("second")

    late(request_, work)
    request_.is_linked("first")
    request_.is_linked("second")
    assert request_.seen == {"first": "acme", "second": "acme"}


def test_what_locals_has_returned_stays_as_it_is(request_):
    """Also in a function that is called like one of those that call handed-off work."""

    def run(action):
        mine = locals()
        action()
        return mine

    seen = []
    late_callback_of_a_future(request_, lambda: seen.append(run(request_.work)))
    assert seen[0]["action"] == request_.work


def test_a_callback_that_is_called_at_once_is_a_part_of_its_task(request_):
    """What a task does later, when the callback has returned, is no late work."""

    async def main():
        gate = asyncio.Event()

        async def reader():
            future = Future()
            future.set_result(None)
            future.add_done_callback(lambda _: None)
            await gate.wait()
            for name in ("first", "second"):
                request_.work(name)

        task = request_.make(lambda: asyncio.get_running_loop().create_task(reader()))
        await asyncio.sleep(0)
        request_.clock(LATE)
        gate.set()
        await task

    asyncio.run(main())
    request_.is_linked("first")
    request_.is_alone("second")


@pytest.mark.parametrize("waits", [True, False], ids=["until it is due", "after the action"])
def test_the_delay_function_of_a_scheduler_is_no_action(waits, request_):
    """A thread of the request runs it for as long as the program runs: it outlives the request."""
    gate = threading.Event()

    def delay(_):
        gate.wait(WAIT)
        for name in ("first", "second"):
            request_.work(name)
        now.append(2)

    def loop():
        scheduler = sched.scheduler(lambda: now[-1], delay)
        scheduler.enterabs(1 if waits else 0, 1, lambda: None)
        scheduler.run(blocking=True)

    now = [0]
    thread = request_.make(threading.Thread, None, loop)
    request_.make(thread.start)
    request_.clock(LATE)
    gate.set()
    thread.join(WAIT)
    assert request_.seen == {"first": None, "second": None}


def test_a_task_that_late_work_starts_keeps_the_baggage(request_):
    """It is a part of that work, which has shown itself to be late."""

    def late():
        request_.work("first")

        async def handle():
            request_.work("second")

        tasks.append(asyncio.get_running_loop().create_task(handle()))

    tasks = []

    async def main():
        request_.make(asyncio.get_running_loop().call_later, 0.001, late)
        request_.clock(LATE)
        while not tasks:
            await asyncio.sleep(0)
        await tasks[0]

    asyncio.run(main())
    assert request_.seen == {"first": "acme", "second": "acme"}


def test_what_the_program_attached_itself_stands(request_):
    """A flow that picks up its own hand-off, by hand, keeps what it has attached."""
    context = request_.make(get_current)
    request_.clock(LATE)

    def handle():
        attach(context)
        request_.work("first")
        request_.work("second")
        assert get_current() is context

    without_context(handle)
    request_.is_linked("first")
    request_.is_linked("second")
    assert request_.seen == {"first": "acme", "second": "acme"}


def test_an_explicit_context_changes_nothing_of_the_flow(request_):
    """It is the caller's word; the flow goes on in its own."""
    gate, seen = threading.Event(), []

    def loop():
        gate.wait(WAIT)
        context = get_current()
        request_.tracer.start_span("explicit", context=context).end()
        seen.append(get_current() is context)

    thread = threading.Thread(target=loop)
    request_.make(thread.start)
    request_.clock(LATE)
    gate.set()
    thread.join(WAIT)
    assert seen == [True]
    parent = named(request_.exporter)["explicit"].parent
    assert parent == request_.span.get_span_context()
