"""kivy: callbacks that are scheduled on its Clock, and loops."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref

import kivy.clock
import pytest
from kivy import _clock
from kivy.base import EventLoop, EventLoopBase
from kivy.clock import Clock, mainthread, triggered
from opentelemetry import baggage, context, trace
from suite import (
    IN_BOTH_ORDERS,
    WAIT,
    Calls,
    answer_of,
    answering,
    check_undo,
    outside,
    run_program,
)

from otel_concurrency._linking import origins

CLOCKS = [
    kivy.clock.ClockBase,
    kivy.clock.ClockBaseInterrupt,
    kivy.clock.ClockBaseFreeInterruptAll,
    kivy.clock.ClockBaseFreeInterruptOnly,
]


@pytest.fixture(autouse=True)
def frames_at_once():
    """Have the clock wait for nothing between two frames."""
    before, Clock._max_fps = Clock._max_fps, 0
    yield
    Clock._max_fps = before
    for event in Clock.get_events():
        event.cancel()


def tick_until(is_done, clock=Clock):
    """Run frames, in whatever is current, until all is done."""
    while not is_done():
        clock.tick()
        clock.tick_draw()


class _Callbacks(Calls):
    setting = "sched"

    def post(self, callback):
        """Have ``callback`` be called; return what the program may keep."""
        raise NotImplementedError

    def tick(self, is_done):
        tick_until(is_done)

    def hand_off(self, work):
        answers = []

        self.kept = [*getattr(self, "kept", ()), self.post(answering(work, answers))]
        outside(self.tick, lambda: answers)
        return answer_of(answers)


class TestScheduledOnce(_Callbacks):
    def post(self, callback):
        return Clock.schedule_once(callback)


class TestScheduledBeforeTheNextFrame(_Callbacks):
    def post(self, callback):
        return Clock.schedule_once(callback, -1)


class TestMethod(_Callbacks):
    """Its object is kept weakly by the clock, so the program keeps it."""

    def post(self, callback):
        thing = Thing(callback)
        return Clock.schedule_once(thing.method, 0.001), thing


class TestTrigger(_Callbacks):
    def post(self, callback):
        trigger = outside(Clock.create_trigger, callback)
        trigger()
        return trigger


class TestTriggerOfAMethod(_Callbacks):
    def post(self, callback):
        thing = Thing(callback)
        trigger = outside(Clock.create_trigger, thing.method)
        trigger()
        trigger()  # it counts once
        return trigger, thing


class TestTriggerThatKeepsItsCallback(_Callbacks):
    def post(self, callback):
        trigger = outside(lambda: Clock.create_trigger(Thing(callback).method, release_ref=False))
        trigger()
        return trigger


class TestLifecycleAwareTrigger(_Callbacks):
    def post(self, callback):
        trigger = outside(Clock.create_lifecycle_aware_trigger, callback, print)
        trigger()
        return trigger


class TestOtherThread(_Callbacks):
    """A thread that works for the user interface, and has it show what came of that."""

    def post(self, callback):
        thread = threading.Thread(target=Clock.schedule_once, args=(callback,))
        thread.start()
        thread.join(WAIT)
        return thread


class TestMainThread(_Callbacks):
    def post(self, callback):
        mainthread(callback)()


class TestTriggered(_Callbacks):
    def post(self, callback):
        function = outside(triggered(0.001), callback)
        function()
        return function


class TestLoop(_Callbacks):
    """What the loop does between two frames is in no context, but callbacks are in theirs."""

    def post(self, callback):
        return Clock.schedule_once(callback)

    def tick(self, is_done):
        while not is_done():
            EventLoop.idle()


class TestAsynchronousLoop(TestLoop):
    def tick(self, is_done):
        async def run():
            while not is_done():
                await EventLoop.async_idle()

        asyncio.run(run())


class _OtherClock(_Callbacks):
    kind = None

    @pytest.fixture(autouse=True)
    def clock(self):
        self.clock = self.kind()
        self.clock._max_fps = 0

    def post(self, callback):
        return self.clock.schedule_once(callback)

    def tick(self, is_done):
        tick_until(is_done, self.clock)


class TestInterruptClock(_OtherClock):
    kind = kivy.clock.ClockBaseInterrupt


class TestFreeClock(_OtherClock):
    kind = kivy.clock.ClockBaseFreeInterruptAll


class TestFreeEvents(_OtherClock):
    kind = kivy.clock.ClockBaseFreeInterruptOnly

    def post(self, callback):
        return self.clock.schedule_once_free(callback)


class TestFreeTrigger(TestFreeEvents):
    def post(self, callback):
        trigger = outside(self.clock.create_trigger_free, callback)
        trigger()
        return trigger


class Thing:
    def __init__(self, function):
        self.function = function

    def method(self, *_):
        return self.function()


@pytest.mark.parametrize("kind", CLOCKS)
@pytest.mark.parametrize("way", ["interval", "trigger", "method"])
def test_each_round_of_an_interval_is_a_trace(kind, way, instrument, tracer):
    """It is linked to where it was scheduled, and has the baggage of there, under ``parent`` too.

    The interval ends when it returns False, as without the library.
    """
    instrument()
    clock, rounds, tenants = kind(), [], []
    clock._max_fps = 0

    def each(*_):
        rounds.append(tracer.start_span("round"))
        tenants.append(baggage.get_baggage("tenant"))
        context.attach(context.set_value("forgotten", 1))
        return None if len(rounds) < 3 else False

    thing = Thing(each)
    token = context.attach(baggage.set_baggage("tenant", "acme"))
    with tracer.start_as_current_span("origin") as origin:
        if way == "trigger":
            clock.create_trigger(each, interval=True)()
        else:
            clock.schedule_interval(each if way == "interval" else thing.method, 0)
    context.detach(token)
    gc.collect()
    with tracer.start_as_current_span("loop") as loop:
        tick_until(lambda: not clock.get_events(), clock)
        assert trace.get_current_span() is loop
    assert [span.parent for span in rounds] == [None] * 3
    links = [(link.context, link.attributes) for span in rounds for link in span.links]
    attributes = {origins.REASON: "periodic", origins.PRIMITIVE: "sched"}
    assert links == [(origin.get_span_context(), attributes)] * 3
    assert tenants == ["acme"] * 3


def test_an_interval_that_is_scheduled_in_no_context_has_none(instrument, tracer):
    """Whoever runs the clock, and whatever a round has forgotten to detach."""
    instrument()
    seen = []

    def each(_):
        seen.append(dict(context.get_current()))
        context.attach(context.set_value("forgotten", 1))
        return len(seen) < 3

    outside(Clock.schedule_interval, each, 0)
    with tracer.start_as_current_span("loop"):
        tick_until(lambda: len(seen) == 3)
    assert seen == [{}] * 3


@pytest.mark.parametrize("way", ["schedule_once", "trigger"])
def test_a_callback_that_schedules_itself_again_is_a_trace_each_time(way, instrument, tracer):
    """The first round is a child; each other is linked to the one before."""
    instrument()
    spans = []

    class Counter:
        def method(self, _):
            spans.append(tracer.start_span("round"))
            if len(spans) < 4:
                self.again()

        def again(self):
            Clock.schedule_once(self.method)

    counter = Counter()
    if way == "trigger":
        counter.again = Clock.create_trigger(counter.method)
    with tracer.start_as_current_span("origin") as origin:
        counter.again()
    tick_until(lambda: len(spans) == 4)
    first, *others = spans
    assert first.parent == origin.get_span_context()
    assert [span.parent for span in others] == [None] * 3
    links = [link.context for span in others for link in span.links]
    assert links == [span.get_span_context() for span in spans[:-1]]


def test_a_trigger_is_called_in_the_context_of_its_call(instrument, tracer):
    """In one request after another, and in none after these."""
    instrument()
    seen, spans = [], []
    trigger = Clock.create_trigger(lambda _: seen.append(trace.get_current_span()))
    for _ in range(2):
        with tracer.start_as_current_span("request") as span:
            spans.append(span)
            trigger()
        tick_until(lambda: len(seen) == len(spans))
    outside(trigger)
    tick_until(lambda: len(seen) == 3)
    assert seen == [*spans, trace.INVALID_SPAN]


@pytest.mark.parametrize("way", ["schedule_once", "schedule_interval"])
def test_an_event_that_is_scheduled_again_leaves_the_context_of_before(way, instrument, tracer):
    """It was cancelled, and is called in the request that schedules it last."""
    instrument()
    spans = []
    with tracer.start_as_current_span("cancelled"):
        event = getattr(Clock, way)(lambda _: spans.append(tracer.start_span("work")), 60)
    Clock.tick()
    event.cancel()
    event.timeout = 0
    with tracer.start_as_current_span("request") as request:
        event()
        event()
    tick_until(lambda: spans)
    (span,) = spans
    origin = span.links[0].context if way == "schedule_interval" else span.parent
    assert origin == request.get_span_context()


def life_of_a_method(way, frames):
    """Schedule a method, drop its object after some frames, and return what becomes of it."""
    thing, called = Thing(lambda: called.append(1)), []
    reference = weakref.ref(thing)
    event = getattr(Clock, way)(thing.method, 60)
    if way == "create_trigger":
        event()
    for _ in range(frames):
        Clock.tick()
    del thing
    gc.collect()
    found = [reference() is not None, event.get_callback() is not None]
    Clock.tick()
    gc.collect()
    found += [reference() is not None, event.get_callback() is not None]
    event.timeout = 0
    tick_until(lambda: not event.is_triggered)
    return [*found, called]


@pytest.mark.parametrize("way", ["schedule_once", "schedule_interval", "create_trigger"])
@pytest.mark.parametrize("frames", [0, 2])
def test_a_method_keeps_its_object_no_longer_than_without_the_library(way, frames, instrument):
    """It is kept until the next frame at most, and is not called once its object is gone."""
    before = life_of_a_method(way, frames)
    instrument()
    token = context.attach(context.set_value("key", "value"))
    assert life_of_a_method(way, frames) == before
    context.detach(token)
    kept = way != "create_trigger" and not frames
    assert before == [kept, kept, False, False, []]


@pytest.mark.parametrize("way", ["schedule_once", "schedule_interval", "create_trigger"])
@pytest.mark.parametrize("frames", [0, 2])
def test_a_callback_is_unscheduled_by_what_it_is(way, frames, instrument, tracer):
    """As a function and as a method; it is shown as what it is, and no other is removed."""
    instrument()
    thing, other = Thing(list), Thing(list)

    def function(_):
        raise AssertionError

    for callback in (function, thing.method):
        with tracer.start_as_current_span("origin"):
            event, stays = getattr(Clock, way)(callback, 5), Clock.schedule_once(other.method, 5)
            if way == "create_trigger":
                event()
        for _ in range(frames):
            Clock.tick()
        assert event.get_callback() == callback
        assert repr(event) == f"<ClockEvent (5.0) callback={callback!r}>"
        Clock.unschedule(callback)
        assert not event.is_triggered
        assert stays.is_triggered
        Clock.unschedule(stays.get_callback(), all=False)
        assert not stays.is_triggered


def test_a_callback_that_raises_is_handled_by_the_clock(instrument, tracer, monkeypatch):
    """Its event is cancelled, and the clock goes on; the context is left."""
    instrument()
    handled = []
    monkeypatch.setattr(kivy.clock.ClockBase, "handle_exception", lambda _, e: handled.append(e))
    error = ValueError("the program's")

    def fail(_):
        raise error

    with tracer.start_as_current_span("origin"):
        event = Clock.schedule_interval(fail, 0)
    tick_until(lambda: not event.is_triggered)
    assert handled == [error]
    assert not context.get_current()


def test_what_is_no_callable_is_refused(instrument):
    """As without the library."""
    instrument()
    for schedule in (Clock.schedule_once, Clock.schedule_interval):
        with pytest.raises(ValueError, match="no function"):
            schedule("no function", 0)


def test_what_was_scheduled_before_is_called_as_ever(instrument, tracer):
    """Events from before ``instrument()``, and after ``uninstrument()`` those from before that."""
    seen = []

    def each(_):
        seen.append(bool(context.get_current()))

    thing = Thing(lambda: each(0))
    events = [Clock.schedule_interval(each, 0), Clock.schedule_interval(thing.method, 0)]
    trigger = Clock.create_trigger(each)
    instrument()
    tick_until(lambda: len(seen) == 4)
    with tracer.start_as_current_span("origin"):
        trigger()
        events += [Clock.schedule_interval(each, 0), Clock.schedule_interval(thing.method, 0)]
    seen.clear()
    tick_until(lambda: seen)
    assert seen == [False, False, True, True, True]
    with tracer.start_as_current_span("origin"):
        events.append(Clock.schedule_interval(each, 0))
    instrument.__self__.uninstrument()
    seen.clear()
    tick_until(lambda: seen)
    assert seen == [False] * 5
    trigger()
    seen.clear()
    tick_until(lambda: seen)
    assert seen == [False] * 6


@pytest.mark.parametrize("repeats", [False, True])
@pytest.mark.parametrize("way", ["schedule_{}", "schedule_{}_free"])
def test_a_frame_may_begin_as_soon_as_a_thread_has_scheduled(
    repeats, way, instrument, tracer, monkeypatch
):
    """The clock hears of an event only after it may have called it. Nothing is left to it then."""
    instrument()
    clock = kivy.clock.ClockBaseFreeInterruptOnly()
    clock._max_fps = 0
    hears, spans = clock.on_schedule, []

    def on_schedule(_, event):
        outside(tick_until, lambda: spans, clock)
        event.cancel()
        hears(event)

    monkeypatch.setattr(type(clock), "on_schedule", on_schedule)
    schedule = getattr(clock, way.format("interval" if repeats else "once"))

    def schedule_in_a_span():
        with tracer.start_as_current_span("origin") as span:
            event = schedule(lambda _: spans.append(tracer.start_span("work")), 0)
        return event, span.get_span_context(), weakref.ref(span)

    event, origin, reference = schedule_in_a_span()
    (span,) = spans
    assert (span.links[0].context if repeats else span.parent) == origin
    gc.collect()
    assert event.get_callback()
    assert reference() is None


LOOPS = """
import asyncio
from types import SimpleNamespace
from kivy.base import EventLoop
from kivy.clock import Clock
from opentelemetry import context

def show(name):
    print(name, context.get_value("key"))

class Provider:
    def start(self): pass
    def stop(self): pass
    def update(self, dispatch_fn): show("input")

def leave():
    show("window")
    EventLoop.quit = True

EventLoop.window = SimpleNamespace(mainloop=leave, canvas=SimpleNamespace(needs_redraw=False))
EventLoop.add_event_listener(Provider())
EventLoop.add_input_provider(Provider())
EventLoop.start()
context.attach(context.set_value("key", "value"))
Clock.schedule_once(lambda _: show("callback"))
EventLoop.mainloop()
EventLoop.quit = False
EventLoop.idle()
asyncio.run(EventLoop.async_idle())
asyncio.run(EventLoop.async_mainloop())
show("program")
"""


@IN_BOTH_ORDERS
def test_imported_before_or_after(first):
    """The order of imports does not matter; a loop runs in no context."""
    printed = run_program(first.format(module="kivy.base") + LOOPS).splitlines()
    assert printed == [
        *("callback value", "input None", "window None"),
        *("input None", "input None", "input None", "window None", "program value"),
    ]


def test_undo_is_exact():
    """Every attribute that was replaced is what it was, by identity."""
    check_undo(_clock, *CLOCKS, EventLoopBase)
