"""Twisted: the reactor's calls and threads, and the callbacks of a Deferred."""

from __future__ import annotations

import threading
from concurrent.futures import Future

import pytest
import twisted.internet.base
from opentelemetry import context, trace
from suite import IN_BOTH_ORDERS, WAIT, Calls, check_undo, outside, run_program
from twisted.internet import reactor
from twisted.internet.defer import Deferred, inlineCallbacks
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


def test_a_callback_without_context_runs_where_the_deferred_is_fired(instrument, tracer):
    """There is nothing to carry, so it is as without the library."""
    instrument()
    deferred = Deferred()
    seen = []
    deferred.addCallback(lambda _: seen.append(trace.get_current_span()))
    with tracer.start_as_current_span("firing") as span:
        deferred.callback(None)
    assert seen == [span]


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
    import gc
    import weakref

    instrument()
    with tracer.start_as_current_span("origin") as span:
        delayed = in_reactor(reactor.callLater, 3600, int)
    reference = weakref.ref(span)
    del span
    exporter.clear()
    outside(in_reactor, delayed.cancel)
    gc.collect()
    assert reference() is None


def test_undo_is_exact():
    """Every attribute that was replaced is what it was, by identity."""
    check_undo(twisted.internet.base.ReactorBase, Deferred)


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
