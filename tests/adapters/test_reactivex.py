"""reactivex: its schedulers, and the operators that hand on by them."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from datetime import timedelta

import pytest
import reactivex
from opentelemetry import trace
from reactivex import operators
from reactivex.observer import ScheduledObserver
from reactivex.scheduler import (
    EventLoopScheduler,
    NewThreadScheduler,
    ScheduledItem,
    ThreadPoolScheduler,
    TimeoutScheduler,
    TrampolineScheduler,
)
from reactivex.scheduler.eventloop import AsyncIOScheduler
from reactivex.subject import ReplaySubject, Subject
from suite import IN_BOTH_ORDERS, WAIT, Calls, check_undo, outside, run_program


class TestEventLoop(Calls):
    setting = "sched"

    def make(self):
        return EventLoopScheduler()

    @pytest.fixture(autouse=True)
    def worker(self):
        self.scheduler = self.make()
        yield
        getattr(self.scheduler, "dispose", int)()

    def schedule(self, action):
        self.scheduler.schedule(action)

    def hand_off(self, work):
        done = threading.Event()
        outcome = []

        def action(*_):
            try:
                outcome.append((work(), None))
            except Exception as error:
                outcome.append((None, error))
            finally:
                done.set()

        self.schedule(action)
        assert done.wait(WAIT)
        result, error = outcome.pop()
        if error is not None:
            raise error
        return result


class TestEventLoopLater(TestEventLoop):
    def schedule(self, action):
        self.scheduler.schedule_relative(timedelta(milliseconds=1), action)


class TestNewThread(TestEventLoop):
    """It is an event loop for each action, on a thread that is started for it."""

    def make(self):
        return NewThreadScheduler()


class TestTimeout(TestEventLoopLater):
    setting = "threading"
    needs_adapter = False

    def make(self):
        return TimeoutScheduler()


def test_what_a_trampoline_keeps_runs_in_the_context_that_it_was_scheduled_in(instrument, tracer):
    """Though it runs when the span has ended that it was scheduled in."""
    instrument()
    scheduler = TrampolineScheduler()
    seen = []

    def inner(*_):
        seen.append(trace.get_current_span())

    def outer(*_):
        with tracer.start_as_current_span("inner") as span:
            scheduler.schedule(inner)
            seen.append(span)
        assert len(seen) == 1

    with tracer.start_as_current_span("outer"):
        scheduler.schedule(outer)
    assert seen[0] is seen[1]


MAKES = pytest.mark.parametrize(
    "make", [EventLoopScheduler, NewThreadScheduler, ThreadPoolScheduler]
)


@MAKES
@pytest.mark.parametrize("is_replayed", [False, True], ids=["observed on", "replayed"])
def test_values_that_come_while_one_is_observed_keep_their_emitters_context(
    make, is_replayed, instrument, tracer
):
    """Each value, whoever subscribed and whoever came first."""
    instrument()
    scheduler, seen, first, done = make(), [], threading.Event(), threading.Event()
    subject = ReplaySubject(scheduler=scheduler) if is_replayed else Subject()

    def observe(value):
        seen.append((value, trace.get_current_span()))
        assert first.wait(WAIT)

    with tracer.start_as_current_span("subscriber"):
        subject.pipe(
            *([] if is_replayed else [operators.observe_on(scheduler)]),
        ).subscribe(observe, on_completed=done.set)
    spans = []
    for number in range(3):
        with tracer.start_as_current_span("emitter") as span:
            subject.on_next(number)
            spans.append((number, span))
    outside(subject.on_next, 3)
    spans.append((3, trace.INVALID_SPAN))
    first.set()
    outside(subject.on_completed)
    assert done.wait(WAIT)
    getattr(scheduler, "dispose", int)()
    assert seen == spans


def test_values_of_several_tasks_keep_their_emitters_context(instrument, tracer):
    """On an event loop that carries context itself, but an earlier value's."""
    instrument()
    seen, spans = [], []

    async def emit(subject, number):
        with tracer.start_as_current_span("emitter") as span:
            spans.append((number, span))
            subject.on_next(number)

    async def main():
        subject, done = Subject(), asyncio.Event()
        subject.pipe(
            operators.observe_on(AsyncIOScheduler(asyncio.get_running_loop())),
            operators.map(lambda value: (value, trace.get_current_span())),
        ).subscribe(seen.append, on_completed=done.set)
        await asyncio.gather(*[emit(subject, number) for number in range(3)])
        subject.on_completed()
        await asyncio.wait_for(done.wait(), WAIT)

    asyncio.run(main())
    assert seen == spans


def test_values_that_a_disposed_observer_keeps_let_go(instrument, tracer):
    """Their spans die, though the one who subscribed keeps what it disposes of."""
    instrument()
    scheduler, subject = EventLoopScheduler(), Subject()
    observing, goes_on, idle = threading.Event(), threading.Event(), threading.Event()

    def observe(value):
        observing.set()
        assert goes_on.wait(WAIT)

    subscription = subject.pipe(operators.observe_on(scheduler)).subscribe(observe)

    def in_span():
        with tracer.start_as_current_span("origin") as span:
            subject.on_next(0)
            assert observing.wait(WAIT)
            subject.on_next(1)
            return weakref.ref(span)

    reference = in_span()
    subscription.dispose()
    goes_on.set()
    scheduler.schedule_relative(0.01, lambda *_: idle.set())
    assert idle.wait(WAIT)
    gc.collect()
    assert reference() is None
    scheduler.dispose()


def test_an_interval_goes_on_in_the_context_of_its_subscription(instrument, tracer):
    """On an event loop's thread that somebody else has started."""
    instrument()
    scheduler, seen, done = EventLoopScheduler(), [], threading.Event()
    with tracer.start_as_current_span("another"):
        scheduler.schedule(lambda *_: None)
    with tracer.start_as_current_span("origin") as origin:
        reactivex.interval(0.001, scheduler=scheduler).pipe(
            operators.take(3), operators.map(lambda _: trace.get_current_span())
        ).subscribe(seen.append, on_completed=done.set)
        assert done.wait(WAIT)
    scheduler.dispose()
    assert seen == [origin] * 3


def test_an_action_that_is_disposed_of_lets_go(instrument, tracer):
    """Its span dies, though the scheduler keeps the item until it is due."""
    instrument()
    scheduler = EventLoopScheduler()

    def in_span():
        with tracer.start_as_current_span("origin") as span:
            scheduler.schedule_relative(3600, lambda *_: None).dispose()
            return weakref.ref(span)

    reference = in_span()
    gc.collect()
    assert reference() is None
    scheduler.dispose()


@IN_BOTH_ORDERS
def test_imported_before_or_after(first):
    """The order of imports does not matter."""
    program = (
        first.format(module="reactivex.scheduler")
        + """
import threading
from opentelemetry import context
scheduler, done = reactivex.scheduler.EventLoopScheduler(), threading.Event()
scheduler.schedule(lambda *_: None)
context.attach(context.set_value("key", "value"))
scheduler.schedule(lambda *_: (print(context.get_value("key")), done.set()))
done.wait(20)
scheduler.dispose()
"""
    )
    assert run_program(program) == "value\n"


def test_undo_is_exact():
    """Every attribute that was replaced is what it was, by identity."""
    check_undo(ScheduledItem, ScheduledObserver)
