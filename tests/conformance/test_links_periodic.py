"""Work that re-arms itself: each round is a trace, linked to the round before."""

from __future__ import annotations

import asyncio
import functools
import gc
import sched
import threading
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import pytest
from forms import WAIT, without_context
from links import (
    assert_linked,
    named,
)
from opentelemetry import baggage, trace
from opentelemetry.context import attach
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags

from interpreters import weak_reference
from otel_concurrency import ConcurrencyInstrumentor
from otel_concurrency._linking import rounds as _rounds
from otel_concurrency._primitives import _sched


class Periodic:
    """A job of so many rounds, armed again by itself through some helper's frames."""

    def __init__(self, tracer, rounds, *, arm_first, inside_span):
        self.tracer = tracer
        self.left = rounds
        self.arm_first = arm_first
        self.inside_span = inside_span
        self.seen = []
        self.ended = threading.Event()
        self.one_at_a_time = threading.Lock()  # a timer of no time at all overtakes its own round

    def arm(self):
        raise NotImplementedError

    def helper(self):
        self.arm()

    def arm_again(self):
        self.left -= 1
        if self.left:
            self.helper()
        else:
            self.ended.set()

    def run(self):
        with self.one_at_a_time:
            self.work()

    def work(self):
        self.seen.append(baggage.get_baggage("tenant"))
        if self.arm_first:
            self.arm_again()
        with self.tracer.start_as_current_span("round"):
            self.tracer.start_span("child").end()
            if self.inside_span and not self.arm_first:
                self.arm_again()
        if not self.inside_span and not self.arm_first:
            self.arm_again()


def join_timers():
    """Wait for all timers that are about to end."""
    for thread in threading.enumerate():
        if isinstance(thread, threading.Timer):
            thread.join(WAIT)


class Timers(Periodic):
    primitive = "threading"

    def arm(self):
        threading.Timer(0, self.run).start()

    def go(self):
        assert self.ended.wait(60)
        join_timers()


class NewTimers(Timers):
    """What is called is made anew for every round."""

    def arm(self):
        threading.Timer(0, functools.partial(lambda _: self.run(), len(self.seen))).start()


class Actions(Periodic):
    primitive = "sched"

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.scheduler = sched.scheduler(delayfunc=lambda _: None)

    def arm(self):
        self.scheduler.enter(0, 1, self.run)

    def go(self):
        self.scheduler.run()
        assert self.ended.is_set()


class Callbacks(Periodic):
    """Callbacks of an event loop, which keeps the context of each by itself."""

    primitive = "asyncio"

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.loop = asyncio.new_event_loop()

    def arm(self):
        self.loop.call_later(0, self.run)

    def go(self):
        self.loop.run_until_complete(self.until_it_ends())
        self.loop.close()

    async def until_it_ends(self):
        while not self.ended.is_set():
            await asyncio.sleep(0)


PERIODIC = (Timers, NewTimers, Actions, Callbacks)
STYLES = {
    "arms first": {"arm_first": True, "inside_span": False},
    "arms last": {"arm_first": False, "inside_span": False},
    "arms inside its span": {"arm_first": False, "inside_span": True},
}


def rounds_of(exporter):
    """Return the spans of the rounds, in their order, after a look at their children."""
    spans = exporter.get_finished_spans()
    rounds = sorted((s for s in spans if s.name == "round"), key=lambda s: s.start_time)
    children = sorted((s for s in spans if s.name == "child"), key=lambda s: s.start_time)
    assert [span.parent for span in children] == [span.context for span in rounds]
    return rounds


@pytest.mark.parametrize("policy", ["parent", "link"])
@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("kind", PERIODIC)
def test_each_round_is_a_trace_that_is_linked_to_the_one_before(
    kind, style, policy, instrument, tracer, exporter
):
    """Fifty rounds: fifty traces, forty-nine links, and the baggage of who armed the first."""
    instrument(policy=policy)
    job = kind(tracer, 50, **STYLES[style])

    def program():
        attach(baggage.set_baggage("tenant", "acme"))
        job.arm()

    without_context(program)
    without_context(job.go)

    rounds = rounds_of(exporter)
    assert job.seen == ["acme"] * 50
    assert len({span.context.trace_id for span in rounds}) == 50
    assert not rounds[0].links
    for before, span in pairwise(rounds):
        assert_linked(span, before, reason="periodic", primitive=kind.primitive)


@pytest.mark.parametrize("kind", PERIODIC)
@pytest.mark.parametrize("style", STYLES)
def test_rounds_are_linked_without_any_context(kind, style, instrument, tracer, exporter):
    """Nothing was current when the first was armed, or when the others were."""
    instrument()
    job = kind(tracer, 3, **STYLES[style])
    without_context(job.arm)
    without_context(job.go)
    rounds = rounds_of(exporter)
    assert [len(span.links) for span in rounds] == [0, 1, 1]
    for before, span in pairwise(rounds):
        assert_linked(span, before, reason="periodic", primitive=kind.primitive)


@pytest.mark.parametrize("kind", PERIODIC)
@pytest.mark.parametrize("style", STYLES)
def test_the_first_round_belongs_to_who_armed_it(kind, style, instrument, tracer, exporter):
    """It is a child of the request; from the second on each is a trace of its own."""
    instrument()
    job = kind(tracer, 3, **STYLES[style])

    def request():
        with tracer.start_as_current_span("request") as span:
            job.arm()
        return span

    origin = without_context(request)
    without_context(job.go)
    first, second, third = rounds_of(exporter)
    assert first.parent == origin.get_span_context()
    assert_linked(second, first, reason="periodic", primitive=kind.primitive)
    assert_linked(third, second, reason="periodic", primitive=kind.primitive)


@pytest.mark.parametrize("context", [True, False])
@pytest.mark.parametrize("style", STYLES)
def test_the_first_round_of_a_process_is_linked_to(style, context, instrument, tracer, exporter):
    """Schedulers note their events from the first span on that is started in an action."""
    instrument()
    _sched._asked.clear()
    job = Actions(tracer, 3, **STYLES[style])

    def program():
        if context:
            attach(baggage.set_baggage("tenant", "acme"))
        job.arm()

    without_context(program)
    without_context(job.go)
    first, second, third = rounds_of(exporter)
    assert not first.links
    assert_linked(second, first, reason="periodic", primitive="sched")
    assert_linked(third, second, reason="periodic", primitive="sched")
    assert _sched._asked


@pytest.mark.parametrize("kind", PERIODIC)
def test_rounds_without_a_span_are_passed_over(kind, instrument, tracer, exporter):
    """The next one that makes a span is linked to the last one that did."""
    instrument()

    class Sparse(kind):
        def work(self):
            if self.left % 5 == 0:
                super().work()
            else:
                self.arm_again()

    job = Sparse(tracer, 15, arm_first=False, inside_span=True)
    without_context(job.arm)
    without_context(job.go)
    first, second, third = rounds_of(exporter)
    assert not first.links
    assert_linked(second, first, reason="periodic", primitive=kind.primitive)
    assert_linked(third, second, reason="periodic", primitive=kind.primitive)


@pytest.mark.parametrize("kind", PERIODIC)
@pytest.mark.parametrize("spans", [True, False])
def test_rounds_leave_nothing_behind(kind, spans, instrument, tracer):
    """However many there were, with spans and without: two more at most, and no cycle."""
    instrument()

    class Job(kind):
        def work(self):
            counts.append(sum(isinstance(one, _rounds.Round) for one in gc.get_objects()))
            if spans:
                super().work()
            else:
                self.arm_again()

    counts = []
    job = Job(tracer, 15, arm_first=False, inside_span=True)
    gc.collect()
    gc.disable()
    try:
        without_context(job.arm)
        without_context(job.go)
    finally:
        gc.enable()
    assert max(counts) <= 3
    assert not _rounds.running


@pytest.mark.parametrize("kind", [Timers, NewTimers])
def test_rounds_that_overlap_are_no_chain(kind, instrument, tracer, no_collector):
    """Each arms the next before it works, and works longer than the next one waits."""
    instrument()
    counts = []

    class Job(kind):
        def run(self):
            with self.one_at_a_time:
                self.arm_again()
                counts.append(sum(isinstance(one, _rounds.Round) for one in gc.get_objects()))
            self.tracer.start_span("round").end()

    job = Job(tracer, 15, **STYLES["arms first"])
    without_context(job.arm)
    without_context(job.go)
    for thread in threading.enumerate():
        if isinstance(thread, threading.Timer):  # the last round to begin is not the last to end
            thread.join(WAIT)
    gc.collect()
    assert not [one for one in gc.get_objects() if isinstance(one, _rounds.Round)]
    assert not _rounds.running


def test_the_action_that_has_run_is_not_kept(instrument, tracer, no_collector):
    """While its scheduler waits for the next one nothing of ours refers to it."""
    instrument()
    alive = []

    class Action:
        def __call__(self):
            tracer.start_span("work").end()

    def wait(_):
        alive.append(reference() is not None)
        times.append(1)

    action = Action()
    reference = weak_reference(action)
    times = [0]
    scheduler = sched.scheduler(lambda: len(times), wait)
    scheduler.enterabs(1, 1, action)
    scheduler.enterabs(3, 1, lambda: None)
    del action
    scheduler.run()
    assert alive[-1] is False


def test_what_delayfunc_arms_is_no_round(instrument, tracer, exporter):
    """It is called after each action, and serves whom it likes."""
    instrument()
    waiting = ["b"]

    def job(name):
        tracer.start_span(f"job {name}").end()

    def delay(_):
        if waiting:
            with tracer.start_as_current_span("request"):
                scheduler.enter(0, 1, job, (waiting.pop(),))

    scheduler = sched.scheduler(delayfunc=delay)
    without_context(scheduler.enter, 0, 1, job, ("a",))
    without_context(scheduler.run)
    spans = named(exporter)
    assert spans["job b"].parent == spans["request"].context


class Awkward:
    """A callable that cannot be compared."""

    def __init__(self, work):
        self.work = work

    def __call__(self):
        self.work()

    def __eq__(self, other):
        raise RuntimeError("not comparable")

    __hash__ = None


@pytest.mark.parametrize("primitive", ["threading", "sched"])
def test_what_cannot_be_compared_is_the_next_step(primitive, instrument, tracer, exporter, caplog):
    """It has its context all the same, and nobody hears of it."""
    instrument()
    scheduler = sched.scheduler()

    def later(work):
        if primitive == "threading":
            threading.Timer(0, work).start()
        else:
            scheduler.enter(0, 1, work)

    def first():
        with tracer.start_as_current_span("first"):
            later(Awkward(lambda: tracer.start_span("second").end()))

    without_context(later, Awkward(first))
    without_context(scheduler.run)
    join_timers()
    join_timers()
    spans = named(exporter)
    assert spans["second"].parent == spans["first"].context
    assert not caplog.records


def by_lambdas(job):
    """Return what a helper makes of ``job``, anew for every round."""
    inner = lambda: job()  # noqa: E731
    return lambda: inner()


def by_itself(job):
    """Return a function that refers to itself."""

    def run():
        assert run is not None
        job()

    return run


def by_an_empty_cell(job):
    """Return a function that mentions a name which is unbound, as after an ``except`` clause."""

    def run():
        return job() if job else unbound

    if not job:
        unbound = None
    return run


@pytest.mark.parametrize("made", [by_lambdas, by_itself, by_an_empty_cell])
def test_what_a_factory_makes_for_each_round_is_one_job(made, instrument, tracer, exporter):
    """However deep the job is in it."""
    instrument()

    class Job(Actions):
        def arm(self):
            self.scheduler.enter(0, 1, made(lambda: self.run()))

    job = Job(tracer, 4, **STYLES["arms last"])
    without_context(job.arm)
    without_context(job.go)
    rounds = rounds_of(exporter)
    for before, span in pairwise(rounds):
        assert_linked(span, before, reason="periodic", primitive="sched")


def test_another_objects_method_is_the_next_step(instrument, tracer, exporter):
    """Also where it stands in a lambda: the same code for another ``self``."""
    instrument()

    class Step:
        def __init__(self, name, following=None):
            self.name = name
            self.following = following

        def later(self):
            threading.Timer(0, lambda: self.run()).start()

        def run(self):
            with tracer.start_as_current_span(self.name):
                if self.following:
                    self.following.later()

    without_context(Step("extract", Step("load")).later)
    join_timers()
    join_timers()
    spans = named(exporter)
    assert spans["load"].parent == spans["extract"].context


def test_a_message_from_elsewhere_is_not_the_round(instrument, tracer, exporter):
    """A span of another process's trace, which the job handles, says nothing of the round."""
    instrument()
    remote = NonRecordingSpan(SpanContext(1, 2, is_remote=True, trace_flags=TraceFlags(1)))

    class Job(Actions):
        def work(self):
            tracer.start_span("message", context=trace.set_span_in_context(remote)).end()
            super().work()

    job = Job(tracer, 3, **STYLES["arms last"])
    without_context(job.arm)
    without_context(job.go)
    first, second, third = rounds_of(exporter)
    assert_linked(second, first, reason="periodic", primitive="sched")
    assert_linked(third, second, reason="periodic", primitive="sched")


class Unreadable(threading.Timer):
    """A timer whose function is gone."""

    function = property(lambda self: 1 // 0, lambda self, value: None)

    def run(self):
        self.ran = True


def test_a_timer_whose_function_cannot_be_read_runs(instrument):
    """Nobody but its own ``run`` has to know what it does."""
    instrument()
    timer = Unreadable(0, print)
    timer.start()
    timer.join(WAIT)
    assert timer.ran


@pytest.mark.parametrize("form", ["arguments", "partial"])
@pytest.mark.parametrize("primitive", ["threading", "sched"])
def test_a_helper_that_runs_any_job_is_another_for_each(
    primitive, form, instrument, tracer, exporter
):
    """``run(first)`` that arms ``run(second)`` goes on with its work; ``run(first)`` is a round."""
    instrument()
    scheduler = sched.scheduler(delayfunc=lambda _: None)

    def later(work):
        job, args = (run, (work,)) if form == "arguments" else (functools.partial(run, work), ())
        if primitive == "threading":
            threading.Timer(0, job, args).start()
        else:
            scheduler.enter(0, 1, job, args)

    def run(work):
        with tracer.start_as_current_span(work.__name__):
            work()

    def first():
        later(second)

    def second():
        if len(rounds) < 2:
            rounds.append(1)
            later(second)

    rounds = []
    without_context(later, first)
    without_context(scheduler.run)
    for _ in range(4):
        join_timers()
    (begin,) = (span for span in exporter.get_finished_spans() if span.name == "first")
    seconds = [span for span in exporter.get_finished_spans() if span.name == "second"]
    seconds.sort(key=lambda span: span.start_time)
    assert seconds[0].parent == begin.context
    for before, span in pairwise(seconds):
        assert_linked(span, before, reason="periodic", primitive=primitive)


def test_rounds_of_a_tracer_that_is_switched_off_are_none(instrument, tracer, exporter):
    """Its placeholders are not what the next round is linked to."""
    instrument()

    class Job(Actions):
        def work(self):
            trace.NoOpTracer().start_span("nothing").end()
            super().work()

    job = Job(tracer, 4, **STYLES["arms last"])
    without_context(job.arm)
    without_context(job.go)
    assert [len(span.links) for span in rounds_of(exporter)] == [0, 1, 1, 1]


def test_a_recursion_in_an_executor_is_not_periodic(instrument, tracer, exporter):
    """A function that submits itself works on one thing: it stays one trace."""
    instrument()

    def walk(depth):
        with tracer.start_as_current_span("step"):
            return pool.submit(walk, depth - 1).result(WAIT) if depth else None

    with ThreadPoolExecutor(4) as pool:
        without_context(walk, 3)
    spans = exporter.get_finished_spans()
    assert len({span.context.trace_id for span in spans}) == 1
    assert not any(span.links for span in spans)


@pytest.mark.parametrize("primitive", ["threading", "sched"])
def test_another_function_is_the_next_step_of_the_same_work(
    primitive, instrument, tracer, exporter
):
    """Also where a helper wraps both in a closure of the same code."""
    instrument()
    done = threading.Event()
    scheduler = sched.scheduler()

    def later(work):
        if primitive == "threading":
            threading.Timer(0, lambda: work()).start()
        else:
            scheduler.enter(0, 1, lambda: work())

    def first():
        with tracer.start_as_current_span("first"):
            later(second)

    def second():
        tracer.start_span("second").end()
        done.set()

    def request():
        with tracer.start_as_current_span("request"):
            later(first)

    without_context(request)
    without_context(scheduler.run)
    assert done.wait(WAIT)
    join_timers()
    spans = named(exporter)
    assert spans["first"].parent == spans["request"].context
    assert spans["second"].parent == spans["first"].context


@pytest.mark.parametrize("blocking", [True, False])
def test_what_is_armed_from_outside_is_no_round(blocking, instrument, tracer, exporter):
    """A scheduler that has run the same action before does not make it periodic."""
    instrument()
    scheduler = sched.scheduler(delayfunc=lambda _: None)

    def action():
        tracer.start_span("work").end()

    def request():
        with tracer.start_as_current_span("request"):
            scheduler.enter(0, 1, action)
        scheduler.run(blocking=blocking)

    for _ in range(2):
        without_context(request)
    work = [span for span in exporter.get_finished_spans() if span.name == "work"]
    requests = [span for span in exporter.get_finished_spans() if span.name == "request"]
    assert [span.parent for span in work] == [span.context for span in requests]
    assert not any(span.links for span in work)


def test_an_excluded_timer_starts_every_round_clean(instrument, tracer, exporter):
    """No context of anybody's, and no link."""
    instrument(excluded=f"{__name__}.Periodic.run")
    job = Timers(tracer, 3, arm_first=False, inside_span=True)
    without_context(job.arm)
    without_context(job.go)
    assert [len(span.links) for span in rounds_of(exporter)] == [0, 0, 0]


def test_periodic_work_goes_on_after_uninstrument(tracer, exporter):
    """What was armed before still runs, and what is armed later is as without the library."""
    ConcurrencyInstrumentor().instrument()

    class Job(Actions):
        def work(self):
            super().work()
            if len(self.seen) == 2:
                ConcurrencyInstrumentor().uninstrument()

    job = Job(tracer, 5, arm_first=True, inside_span=False)
    without_context(job.arm)
    without_context(job.go)
    assert len(rounds_of(exporter)) == 5
    assert not _rounds.running
