"""Twisted: the reactor's calls and threads, and the callbacks of a Deferred."""

from __future__ import annotations

import gc
import threading
import weakref
from concurrent.futures import Future

import pytest
import twisted.internet.asyncioreactor
import twisted.internet.base
import twisted.internet.posixbase
import twisted.internet.selectreactor
from opentelemetry import context, trace
from suite import IN_BOTH_ORDERS, WAIT, Calls, check_undo, outside, run_program
from twisted.internet import reactor, task
from twisted.internet.defer import Deferred, DeferredLock, DeferredSemaphore, inlineCallbacks
from twisted.internet.threads import blockingCallFromThread, deferToThread


@pytest.fixture(autouse=True, scope="module")
def _running():
    """Have the reactor, of which there is one and which cannot be restarted, run meanwhile."""
    running = threading.Event()
    reactor.callWhenRunning(running.set)
    thread = threading.Thread(target=reactor.run, kwargs={"installSignalHandlers": False})
    thread.start()
    assert running.wait(WAIT)
    yield
    reactor.callFromThread(reactor.stop)
    thread.join(WAIT)


def result_of(start, work):
    """Return what ``work`` returns, or raise what it raises, when ``start`` has it called."""
    done = Future()

    def run(*_):
        try:
            done.set_result(work())
        except Exception as error:
            done.set_exception(error)

    start(run)
    return done.result(WAIT)


def in_reactor(function, *args):
    """Call ``function`` in the reactor's thread, in the context of here; return its result."""
    here = context.get_current()

    def call():
        token = context.attach(here)
        try:
            return function(*args)
        finally:
            context.detach(token)

    return outside(blockingCallFromThread, reactor, call)


class TestCallFromThread(Calls):
    setting = "threading"

    def hand_off(self, work):
        return result_of(reactor.callFromThread, work)


class TestBlockingCallFromThread(Calls):
    setting = "threading"

    def hand_off(self, work):
        return blockingCallFromThread(reactor, work)


class TestCallLater(Calls):
    setting = "threading"

    def hand_off(self, work):
        return result_of(lambda run: in_reactor(reactor.callLater, 0.001, run), work)


class TestEventTrigger(Calls):
    """What is called when the reactor starts, stops, or tells of an event of the program's own."""

    setting = "threading"

    def hand_off(self, work):
        def start(run):
            trigger = reactor.addSystemEventTrigger("before", "tests", run)
            outside(in_reactor, reactor.fireSystemEvent, "tests")
            assert trigger[0] == "tests"

        return result_of(start, work)


def test_a_trigger_can_be_removed(instrument, tracer):
    """It is not called then, and lets go of its context."""
    instrument()
    called = []

    def in_span():
        with tracer.start_as_current_span("origin") as span:
            trigger = reactor.addSystemEventTrigger("before", "tests", called.append, 1)
        reactor.removeSystemEventTrigger(trigger)
        return weakref.ref(span)

    reference = in_span()
    outside(in_reactor, reactor.fireSystemEvent, "tests")
    gc.collect()
    assert (called, reference()) == ([], None)


class TestCooperate(Calls):
    """The steps of an iterator, which run between those of all others."""

    setting = "threading"

    def hand_off(self, work):
        def steps(run):
            yield
            run()
            yield

        return result_of(lambda run: in_reactor(task.cooperate, steps(run)), work)


class _Deferreds(Calls):
    setting = "futures"

    def add(self, deferred, run):
        deferred.addCallback(run)

    def fire(self, deferred):
        deferred.callback(None)

    def hand_off(self, work):
        def start(run):
            deferred = Deferred()
            self.add(deferred, run)
            outside(in_reactor, self.fire, deferred)

        return result_of(start, work)


class TestAddCallback(_Deferreds):
    pass


class TestAddBoth(_Deferreds):
    def add(self, deferred, run):
        deferred.addBoth(run)


class TestAddErrback(_Deferreds):
    def add(self, deferred, run):
        deferred.addErrback(run)

    def fire(self, deferred):
        deferred.errback(KeyError("fired"))


class TestAddCallbacks(_Deferreds):
    def add(self, deferred, run):
        deferred.addCallbacks(callback=run, errback=run)


class TestDeferToThread(Calls):
    """What runs in a thread of the reactor's pool needs no adapter."""

    setting = "threading"
    needs_adapter = False

    def hand_off(self, work):
        return blockingCallFromThread(reactor, deferToThread, work)

    @pytest.mark.parametrize("how", ["adapter", "policy"])
    def test_switched_off_it_carries_nothing(self, how, instrument, tracer):
        """Twisted's own pool carries; that the reactor is reached in context is ours."""
        instrument(**({"adapters": "-*"} if how == "adapter" else {"threading": "off"}))
        with tracer.start_as_current_span("origin") as origin:
            assert in_reactor(trace.get_current_span) is origin

    def test_under_link_the_work_is_a_trace_of_its_own(self, instrument, tracer):
        """As whatever called the reactor is."""
        super().test_under_link_the_work_is_a_trace_of_its_own(instrument, tracer)


def test_a_callback_without_context_runs_without_one(instrument, tracer):
    """Whoever fires the Deferred has nothing to do with it."""
    instrument()
    deferred = Deferred()
    seen = []
    deferred.addCallback(lambda _: seen.append(context.get_current()))
    with tracer.start_as_current_span("firing"):
        deferred.callback(None)
    assert seen == [{}]


@pytest.mark.parametrize("lock", [DeferredLock, lambda: DeferredSemaphore(1)])
def test_a_job_that_waits_for_a_lock_is_not_the_holders(lock, instrument, tracer):
    """Queued outside any span it is a root, queued inside one a child of that."""
    instrument()
    lock = lock()
    parents = {}

    def job(name):
        with tracer.start_as_current_span(name) as span:
            parents[name] = span.parent and span.parent.span_id

    with tracer.start_as_current_span("holder"):
        lock.acquire()
    lock.run(job, "queued outside")
    with tracer.start_as_current_span("origin") as origin:
        lock.run(job, "queued inside")
    with tracer.start_as_current_span("holder"):
        lock.release()
    assert parents == {
        "queued outside": None,
        "queued inside": origin.get_span_context().span_id,
    }


def test_a_chain_of_callbacks_passes_results_on(instrument, tracer):
    """What a callback returns, and what it raises, goes to the next one."""
    instrument()
    with tracer.start_as_current_span("origin"):
        deferred = Deferred()
        deferred.addCallback(lambda number: number + 1)
        deferred.addCallback(lambda number: 1 / (number - 2))
        deferred.addErrback(lambda failure: failure.type)
        deferred.callback(1)
    assert deferred.result is ZeroDivisionError


def test_inline_callbacks_are_as_they_were(instrument, tracer):
    """They carry their own context, over whatever fires what they wait for."""
    instrument()
    waited = Deferred()

    @inlineCallbacks
    def work():
        with tracer.start_as_current_span("work") as span:
            yield waited
            return trace.get_current_span() is span

    done = work()
    outside(waited.callback, None)
    assert done.result is True


def test_a_delayed_call_that_is_cancelled_lets_go(instrument, tracer, exporter):
    """Neither it nor the reactor keeps the span."""
    instrument()
    with tracer.start_as_current_span("origin") as span:
        delayed = in_reactor(reactor.callLater, 3600, int)
    reference = weakref.ref(span)
    del span
    exporter.clear()
    outside(in_reactor, delayed.cancel)
    gc.collect()
    assert reference() is None


def steps(count, seen):
    """Yield ``count`` times; note the value that is seen in each step."""
    for _ in range(count):
        seen.append(context.get_value("request"))
        yield


def cooperate_in(request, cooperator, iterator):
    """Have ``iterator`` stepped by ``cooperator`` in the context of ``request``."""
    token = context.attach(context.set_value("request", request))
    try:
        return cooperator.cooperate(iterator)
    finally:
        context.detach(token)


def test_cooperative_tasks_share_a_delayed_call_and_not_a_context(instrument):
    """Each is stepped in its own, whoever has scheduled the next tick or resumes it."""
    instrument()
    scheduled = []
    cooperator = task.Cooperator(
        terminationPredicateFactory=lambda: lambda: False, scheduler=scheduled.append
    )
    seen = {"a": [], "b": [], None: []}
    tasks = [cooperate_in(name, cooperator, steps(2, seen[name])) for name in seen]
    tasks[1].pause()
    token = context.attach(context.set_value("request", "another"))
    tasks[1].resume()
    for tick in scheduled:
        tick()
    context.detach(token)
    assert seen == {"a": ["a", "a"], "b": ["b", "b"], None: [None, None]}


@pytest.mark.parametrize("end", ["stop", "fail", "finish"])
def test_a_cooperative_task_that_is_over_keeps_no_span(end, instrument, tracer):
    """Stopped, failed or finished; the task itself may be kept."""
    instrument()
    scheduled = []
    cooperator = task.Cooperator(scheduler=scheduled.append)

    def work():
        yield
        if end == "fail":
            raise ValueError

    with tracer.start_as_current_span("origin") as span:
        kept = cooperator.cooperate(work())
        done = kept.whenDone()
    done.addErrback(lambda _: None)
    reference = weakref.ref(span)
    del span
    if end == "stop":
        kept.stop()
    else:
        for tick in scheduled:
            tick()
    gc.collect()
    assert done.called
    assert reference() is None


def test_a_cooperative_task_outlives_the_library(instrument):
    """Switched off in the middle, it goes on to its end, and there is nothing left in the tick."""
    instrument()
    scheduled = []
    cooperator = task.Cooperator(
        terminationPredicateFactory=lambda: lambda: True, scheduler=scheduled.append
    )
    seen = []
    kept = cooperate_in("a", cooperator, steps(2, seen))
    scheduled.pop()()
    instrument.__self__.uninstrument()
    while scheduled:
        scheduled.pop()()
    assert seen == ["a", None]
    assert kept.whenDone().called
    assert not context.get_current()


def test_undo_is_exact():
    """Every attribute that was replaced is what it was, by identity."""
    check_undo(
        twisted.internet.base.ReactorBase,
        twisted.internet.asyncioreactor.AsyncioSelectorReactor,
        twisted.internet.posixbase._ContinuousPolling,
        twisted.internet.posixbase._PollLikeMixin,
        twisted.internet.selectreactor.SelectReactor,
        task.Cooperator,
        task.CooperativeTask,
        Deferred,
    )


@IN_BOTH_ORDERS
@pytest.mark.parametrize("kind", ["", "asyncioreactor", "pollreactor"])
def test_it_does_not_matter_which_is_first(first, kind):
    """Imported before the library is switched on, or after it; whichever the reactor is."""
    install = f"from twisted.internet import {kind}\n{kind}.install()\n" if kind else ""
    program = """
import threading
from opentelemetry import context
from twisted.internet import reactor

def seen():
    print(context.get_value("key"))
def thread():
    context.attach(context.set_value("key", "carried"))
    reactor.callFromThread(seen)
    reactor.callFromThread(reactor.callLater, 0.01, seen)
    reactor.callFromThread(reactor.callLater, 0.1, reactor.stop)
reactor.callWhenRunning(lambda: threading.Thread(target=thread).start())
reactor.run()
"""
    first = first.format(module="twisted.internet.base, twisted.internet.defer")
    assert run_program(first + install + program) == "carried\n" * 2


@pytest.mark.parametrize("kind", ["asyncioreactor", "epollreactor", "pollreactor", "selectreactor"])
def test_an_item_of_one_event_is_not_the_next_ones(kind):
    """A protocol that gets an item when data arrives is not in its context when more arrives."""
    program = f"""
from otel_concurrency import ConcurrencyInstrumentor
ConcurrencyInstrumentor().instrument()
from twisted.internet import {kind}
{kind}.install()
import queue
from opentelemetry import context
from twisted.internet import protocol, reactor

items = queue.Queue()

class Server(protocol.Protocol):
    def dataReceived(self, data):
        before = context.get_value("key")
        if data == b"g":
            items.get_nowait()
        print(before, context.get_value("key"))
        self.transport.write(b".")

class Client(protocol.Protocol):
    events = [b"o", b"g", b"o", b"g", b"g", b"o"]
    def connectionMade(self):
        self.transport.write(self.events.pop(0))
    def dataReceived(self, data):
        self.connectionMade() if self.events else reactor.stop()

def start():
    for _ in range(3):
        token = context.attach(context.set_value("key", "item"))
        items.put(1)
        context.detach(token)
    port = reactor.listenTCP(0, protocol.Factory.forProtocol(Server), interface="127.0.0.1")
    client = protocol.ClientFactory.forProtocol(Client)
    reactor.connectTCP("127.0.0.1", port.getHost().port, client)

reactor.callWhenRunning(start)
reactor.run()
"""
    other, got = "None None\n", "None item\n"
    assert run_program(program) == other + got + other + got + got + other
