"""What holds for work that leaves the process, whatever starts the other one and however.

The processes are real. What the work was run in is told by a span that it makes there.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import concurrent.futures.process
import contextlib
import functools
import gc
import itertools
import multiprocessing
import multiprocessing.process
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import process_work
import pytest
from opentelemetry import baggage, propagate
from opentelemetry.context import Context, attach, detach, get_current
from opentelemetry.propagators.b3 import B3MultiFormat, B3SingleFormat
from opentelemetry.propagators.composite import CompositePropagator
from opentelemetry.propagators.textmap import TextMapPropagator, default_getter, default_setter
from process_work import NOTHING, Sight

from interpreters import THREADS_INHERIT, death_of
from otel_concurrency import ConcurrencyInstrumentor, _settings
from otel_concurrency._crossing import carrier

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")

TIMEOUT = 60
FORK = multiprocessing.get_context("fork")
"""Seconds after which a test gives up waiting; nothing asserts a time."""

OURS = "otel"
"""What every name that the library puts into somebody else's object contains."""


@contextlib.contextmanager
def attached(context):
    """Attach ``context`` for the length of a ``with``."""
    token = attach(context)
    try:
        yield
    finally:
        detach(token)


@contextlib.contextmanager
def span_and_baggage(tracer):
    """Be in a span with baggage; return what work handed off from there is to see."""
    with (
        tracer.start_as_current_span("origin") as span,
        attached(baggage.set_baggage("order", "42")),
    ):
        origin = span.get_span_context()
        yield Sight(origin.trace_id, origin.span_id, (("order", "42"),))


@contextlib.contextmanager
def baggage_only(tracer):
    """Have baggage and no span."""
    with attached(baggage.set_baggage("order", "43", Context())):
        yield Sight(baggage=(("order", "43"),))


@contextlib.contextmanager
def no_context(tracer):
    """Be in no context."""
    with attached(Context()):
        yield NOTHING


class Form:
    """A way to have work run in another process."""

    setting = "multiprocessing"
    """Which setting switches it on and off."""

    shares_process = False
    """Whether the next work runs in the process of the last."""

    def __init__(self, method):
        self.method = method
        self.context = multiprocessing.get_context(method)

    def __enter__(self):
        return self

    def __exit__(self, *exc_info):
        pass

    def hand_off(self, work, *args):
        """Have ``work(*args)`` run; return a function that waits for, and returns, its results."""
        raise NotImplementedError

    def run(self, work, *args):
        """Return the results of work."""
        return self.hand_off(work, *args)()


class Process(Form):
    """A process with a target."""

    def hand_off(self, work, *args):
        receiver, sender = self.context.Pipe(duplex=False)
        process = self.make(sender, work, *args)
        process.start()
        assert not [name for name in vars(process) if OURS in name]
        sender.close()

        def wait():
            assert receiver.poll(TIMEOUT)
            result = receiver.recv()
            process.join(TIMEOUT)
            assert process.exitcode == 0
            process.close()
            receiver.close()
            return [result]

        return wait

    def make(self, sender, work, *args):
        """Return the process, not started."""
        return self.context.Process(target=process_work.send, args=(sender, work, *args))


class ProcessSubclass(Process):
    """A process with a ``run`` of its own."""

    def make(self, sender, work, *args):
        return process_work.SUBCLASSES[self.method](sender, work, *args)


class Pool(Form):
    """A pool of one process."""

    shares_process = True

    def __enter__(self):
        self.pool = concurrent.futures.ProcessPoolExecutor(1, self.context)
        return self

    def __exit__(self, *exc_info):
        self.pool.shutdown()


class PoolSubmit(Pool):
    """Work that is submitted."""

    def hand_off(self, work, *args):
        future = self.pool.submit(work, *args)
        return lambda: [future.result(TIMEOUT)]


class PoolMap(Pool):
    """Work that is mapped, an item at a time."""

    chunksize = 1

    def hand_off(self, work, *args):
        function = functools.partial(process_work.without_last, work, *args)
        results = self.pool.map(function, range(4), timeout=TIMEOUT, chunksize=self.chunksize)
        return lambda: list(results)


class PoolMapChunked(PoolMap):
    """Work that is mapped, several items at a time."""

    chunksize = 3


class RunInExecutor(Pool):
    """Work that an event loop hands to a pool."""

    def hand_off(self, work, *args):
        async def main():
            loop = asyncio.get_running_loop()
            return await asyncio.wait_for(loop.run_in_executor(self.pool, work, *args), TIMEOUT)

        result = asyncio.run(main())
        return lambda: [result]


FORMS = (Process, ProcessSubclass, PoolSubmit, PoolMap, PoolMapChunked, RunInExecutor)
METHODS = ("fork", "forkserver", "spawn")
SITUATIONS = (no_context, span_and_baggage, baggage_only)


def every(forms, methods=METHODS):
    """Parametrise ``form`` with each of some forms, by each of some start methods."""
    return pytest.mark.parametrize(
        "form",
        [
            pytest.param((form, method), id=f"{form.__name__}, {method}")
            for form in forms
            for method in methods
        ],
        indirect=True,
    )


def of_each_method(form):
    """Parametrise ``form`` with one form, by each start method."""
    return every([form])


every_kind = every([Process, ProcessSubclass, PoolSubmit, PoolMapChunked])
every_pool = every([PoolSubmit, PoolMapChunked])
one_of_each = every([Process, PoolSubmit])


@pytest.fixture
def instrument():
    """Return what switches the library on, with settings of the test's own."""
    instrumentor = ConcurrencyInstrumentor()
    yield instrumentor.instrument
    if instrumentor.is_instrumented_by_opentelemetry:
        instrumentor.uninstrument()


@pytest.fixture
def form(request):
    """Open a form."""
    kind, method = request.param
    with kind(method) as opened:
        yield opened


# What crosses


@pytest.mark.parametrize(
    ("form", "first"),
    [
        pytest.param((form, method), first, id=f"{form.__name__}, {method}, {first.__name__}")
        for form in FORMS
        for method in METHODS
        # Where each work has a process of its own there is no first use of it by another.
        for first in (SITUATIONS if form.shares_process else SITUATIONS[:1])
    ],
    indirect=["form"],
)
def test_work_runs_in_the_context_that_it_was_handed_off_in(form, first, instrumented, tracer):
    """Whatever the first use was in, each work sees its own parent and baggage, or nothing."""
    for situation in (first, span_and_baggage, no_context, baggage_only, span_and_baggage):
        with situation(tracer) as expected:
            here = get_current()
            results = form.run(process_work.look)
            assert get_current() is here

        assert set(results) == {expected}


@every_pool
def test_work_leaves_nothing_behind(form, instrumented, tracer):
    """What a work attaches and does not detach is not there for the next, not even for none."""
    with span_and_baggage(tracer) as expected:
        assert set(form.run(process_work.look_and_forget)) == {expected}
    with no_context(tracer):
        assert set(form.run(process_work.look_and_forget)) == {NOTHING}
        assert set(form.run(process_work.look)) == {NOTHING}


@every_pool
def test_work_that_fails_leaves_nothing_behind(form, instrumented, tracer):
    """An exception crosses as it is, and the next work is run in its own context."""
    with span_and_baggage(tracer) as expected, pytest.raises(LookupError) as raised:
        form.run(process_work.look_and_fail)
    assert raised.value.args == (expected,)
    with no_context(tracer):
        assert set(form.run(process_work.look)) == {NOTHING}


@every([PoolSubmit])
def test_base_of_a_worker_is_what_its_initializer_has_made_it(form, instrumented, tracer):
    """The initializer runs without a context; what it attaches is there for work without one."""
    with (
        span_and_baggage(tracer) as expected,
        concurrent.futures.ProcessPoolExecutor(
            1, form.context, process_work.attach_base, ("initialized",)
        ) as pool,
    ):
        assert pool.submit(process_work.look).result(TIMEOUT) == expected
        with no_context(tracer):
            submitted = pool.submit(process_work.look_and_forget)
            assert submitted.result(TIMEOUT) == Sight(baggage=(("base", "initialized"),))
            submitted = pool.submit(process_work.look)
            assert submitted.result(TIMEOUT) == Sight(baggage=(("base", "initialized"),))


@every_kind
def test_policy_link_crosses(form, instrument, tracer):
    """Under the policy `link` the far side starts a new trace that is linked to the origin."""
    instrument(**{form.setting: "link"})

    with span_and_baggage(tracer) as origin:
        results = form.run(process_work.look)

    link = (origin.parent, "policy", form.setting)
    assert set(results) == {Sight(baggage=origin.baggage, links=(link,))}


def test_a_forked_process_knows_the_context_without_reading_the_headers(
    instrumented, tracer, monkeypatch
):
    """What it does not do itself touches none of its memory, each page of which is copied then."""
    parent, plain = os.getpid(), carrier._read

    def read(*args):
        assert os.getpid() == parent
        return plain(*args)

    monkeypatch.setattr(carrier, "_read", read)
    receiver, sender = FORK.Pipe(duplex=False)
    process = FORK.Process(target=process_work.send, args=(sender, process_work.look))
    with span_and_baggage(tracer) as origin:
        process.start()
    assert receiver.recv() == origin
    process.join(TIMEOUT)


def test_a_span_that_had_ended_is_linked_from_another_process(instrument, tracer):
    """It parents nobody, there as here: when it ended goes along."""
    instrument(link_after=1500)
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=FORK) as pool:
        with span_and_baggage(tracer) as origin:
            held = get_current()
        with attached(held):
            assert pool.submit(process_work.look).result(TIMEOUT).parent == origin.parent
            time.sleep(1.6)
            late = pool.submit(process_work.look).result(TIMEOUT)
    assert late == Sight(baggage=origin.baggage, links=((origin.parent, "ended", ""),))


@pytest.mark.parametrize("kind", ["executor", "pool"])
def test_a_span_that_runs_is_the_parent_however_long_the_work_waited(kind, instrument, tracer):
    """Nobody in the other process sees it end: each task there is as old as its first span."""
    instrument(link_after=1000)
    with contextlib.ExitStack() as stack:
        if kind == "executor":
            pool = stack.enter_context(concurrent.futures.ProcessPoolExecutor(1, mp_context=FORK))
            result_of = functools.partial(pool.submit, process_work.look_after)
        else:
            pool = stack.enter_context(FORK.Pool(1))

            def result_of(seconds):
                return pool.apply_async(process_work.look_after, (seconds,))

        origin = stack.enter_context(span_and_baggage(tracer))
        tasks = [result_of(0.5) for _ in range(3)]
        wait = "result" if kind == "executor" else "get"
        seen = [sight for task in tasks for sight in getattr(task, wait)(TIMEOUT)]
        first, long_after = getattr(result_of(1.3), wait)(TIMEOUT)
    assert [sight.parent for sight in seen] == [origin.parent] * 6
    assert first.parent == origin.parent
    assert long_after.links == ((origin.parent, "ended", ""),)


@every_kind
def test_excluded_work_starts_clean(form, instrument, tracer):
    """Work that the user excludes runs without a context, chunked or as a process's target too."""
    instrument(
        excluded="process_work.look_alone, process_work.send, process_work._Sending,"
        "process_work.without_last"
    )

    with span_and_baggage(tracer):
        assert set(form.run(process_work.look_alone)) == {NOTHING}


@every([Process, ProcessSubclass, PoolSubmit])
def test_off_is_off(form, instrument, tracer):
    """Where the primitive is off nothing crosses but what a fork copies."""
    instrument(**{form.setting: "off"})

    with span_and_baggage(tracer) as origin:
        (seen,) = form.run(process_work.look)

    forked = form.method == "fork"
    assert seen == (origin._replace(records=True) if forked else NOTHING)


@one_of_each
def test_nothing_is_left_on_the_process(form, instrumented, tracer):
    """The work does not find the library's attributes on its own process object."""
    with span_and_baggage(tracer):
        assert form.run(process_work.attributes_of_own_process) == [[]]


@every([PoolSubmit])
def test_recycled_workers_start_clean(form, instrumented, tracer):
    """A worker that takes the place of another belongs to nobody's request either."""
    if sys.version_info < (3, 11) or form.method == "fork":
        options = {}
    else:
        options = {"max_tasks_per_child": 1}
    with concurrent.futures.ProcessPoolExecutor(1, form.context, **options) as pool:
        with span_and_baggage(tracer) as expected:
            submitted = [pool.submit(process_work.look_and_forget) for _ in range(3)]
            assert [future.result(TIMEOUT) for future in submitted] == [expected] * 3
        with no_context(tracer):
            assert pool.submit(process_work.look).result(TIMEOUT) == NOTHING


@every([PoolSubmit])
def test_callbacks_run_where_they_were_registered(form, instrumented, tracer):
    """A done-callback of a process pool's future runs in its own context, in this process."""
    seen = []
    with span_and_baggage(tracer):
        future = form.pool.submit(process_work.look)
        future.add_done_callback(lambda _: seen.append(get_current()))
        here = get_current()
        form.pool.shutdown()
    assert seen == [here]


@of_each_method(PoolSubmit)
def test_the_thread_of_a_pool_belongs_to_nobody(form, instrument, tracer):
    """The thread that manages a pool starts clean, also where CPython hands on a context (3.14)."""
    instrument(threading="off", futures="off")
    seen = []
    with span_and_baggage(tracer):
        form.pool.submit(process_work.pause, 0.2).add_done_callback(
            lambda _: seen.append((get_current(), threading.current_thread()))
        )
        form.pool.shutdown()
    ((context, thread),) = seen
    assert context == {}
    assert thread is not threading.current_thread()


@of_each_method(Process)
def test_a_manager_belongs_to_nobody(form, instrumented, tracer):
    """The process of a manager starts clean, whoever starts it, and so does what it serves."""
    manager = process_work.LookingManager(ctx=form.context)
    with span_and_baggage(tracer):
        manager.start(process_work.attach_base, ("initialized",))
        with manager:
            assert tuple(manager.look()._getvalue()) == NOTHING


@every([Process], ["fork"])
def test_the_end_of_a_fork_is_not_in_the_parents_span(form, instrumented, tracer):
    """What runs when a forked process ends does not write to a copy of its parent's live span."""
    receiver, sender = form.context.Pipe(duplex=False)
    with span_and_baggage(tracer) as expected:
        assert form.run(process_work.look_at_the_end, sender) == [expected]
        assert receiver.poll(TIMEOUT)
        # To 3.12 it is still a part of the process's work.
        assert receiver.recv() in (expected, NOTHING)


@of_each_method(Process)
def test_a_consumer_process_adopts_what_it_gets(form, instrumented, tracer):
    """A process that is nothing but its work handles each item in the item's own context."""
    with span_and_baggage(tracer):
        ((producer, seen),) = form.run(process_work.consume)
    assert seen.parent == producer


class Vendor(TextMapPropagator):
    """Carries what it says of a work in a header of its own, and finds it as baggage."""

    fields = frozenset(("vendor",))

    def __init__(self, *fails_at):
        self.count = itertools.count(1)
        self.fails_at = fails_at

    def inject(self, carrier, context=None, setter=default_setter):
        if "inject" in self.fails_at:
            raise ValueError("a fault of the propagator")
        setter.set(carrier, "vendor", str(next(self.count)))

    def extract(self, carrier, context=None, getter=default_getter):
        if "extract" in self.fails_at:
            raise ValueError("a fault of the propagator")
        return baggage.set_baggage("vendor", getter.get(carrier, "vendor")[0], context)


@pytest.fixture
def propagate_with():
    """Return what sets the global propagator for the length of a test."""
    before = propagate.get_global_textmap()
    yield propagate.set_global_textmap
    propagate.set_global_textmap(before)


@every([Process, PoolSubmit], ["fork"])
@pytest.mark.parametrize(
    "propagator",
    [CompositePropagator([]), CompositePropagator([B3SingleFormat()]), B3MultiFormat()],
    ids=["none", "b3", "b3multi"],
)
def test_the_standards_headers_always_cross(propagator, form, instrumented, tracer, propagate_with):
    """A program's own processes get trace context and baggage, whatever the propagators are."""
    propagate_with(propagator)
    with span_and_baggage(tracer) as expected:
        assert form.run(process_work.look) == [expected]


@every([Process, PoolSubmit], ["fork"])
def test_what_a_propagator_adds_crosses_too(form, instrumented, tracer, propagate_with):
    """A vendor's propagator is asked for each work, and what it carries arrives."""
    propagate_with(Vendor())
    with span_and_baggage(tracer) as expected:
        for count in ("1", "2", "3"):
            with_vendor = (*expected.baggage, ("vendor", count))
            assert form.run(process_work.look) == [expected._replace(baggage=with_vendor)]


@every([Process, PoolSubmit], ["fork"])
@pytest.mark.parametrize("side", ["inject", "extract"])
def test_a_faulty_propagator_is_reported(form, side, instrumented, tracer, propagate_with, caplog):
    """Where a propagator fails the standard's headers cross, and this side reports it once."""
    propagate_with(Vendor(side))
    with span_and_baggage(tracer) as expected:
        assert form.run(process_work.look) == [expected]
        assert form.run(process_work.look) == [expected]
    reported = [record for record in caplog.records if "fault of the prop" in record.getMessage()]
    assert len(reported) == (side == "inject")


@one_of_each
def test_nothing_keeps_the_span_alive(form, instrumented, tracer):
    """When the work is handed off nothing of ours refers to the span, and it dies."""
    gc.collect()
    gc.disable()
    try:
        with tracer.start_as_current_span("origin") as span:
            died = death_of(span)
            wait = form.hand_off(process_work.returns, 42)
        del span
        assert died.is_set()
        assert wait() == [42]
    finally:
        gc.enable()


# Transparency


@pytest.mark.parametrize("method", METHODS)
def test_what_cannot_be_pickled_fails_as_without_us(method, tracer):
    """Unpicklable work raises what it would raise, from the same call, and the pool goes on."""
    work = lambda: None  # noqa: E731
    outcomes = [failures_of(method, work)]
    ConcurrencyInstrumentor().instrument()
    try:
        with span_and_baggage(tracer):
            outcomes.append(failures_of(method, work))
    finally:
        ConcurrencyInstrumentor().uninstrument()

    plain, ours = outcomes
    assert plain == ours


def failures_of(method, work):
    """Return what work that cannot be pickled comes to, in a pool and in a process."""
    context = multiprocessing.get_context(method)
    outcomes = []
    with concurrent.futures.ProcessPoolExecutor(1, context) as pool:
        for submitted in (pool.submit(work), pool.submit(process_work.returns, work)):
            error = submitted.exception(TIMEOUT)
            outcomes.append((type(error), str(error)))
        outcomes.append(pool.submit(process_work.returns, 42).result(TIMEOUT))
    process = context.Process(target=work)
    try:
        process.start()
        process.join(TIMEOUT)
        outcomes.append(process.exitcode)
    except Exception as error:
        outcomes.append((type(error), str(error)))
    outcomes.append([name for name in vars(process) if OURS in name])
    return outcomes


def test_lambdas_and_local_functions_are_run_by_a_fork(instrumented, tracer):
    """A forked process runs what cannot be pickled, as before, and in its context."""
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)

    def local():
        sender.send(process_work.look())

    with span_and_baggage(tracer) as expected:
        for target in (local, lambda: local()):
            process = context.Process(target=target)
            process.start()
            assert receiver.poll(TIMEOUT)
            assert receiver.recv() == expected
            process.join(TIMEOUT)


@of_each_method(PoolSubmit)
def test_pending_work_is_cancelled_as_before(form, instrumented, tracer):
    """What waits can be cancelled, and what is submitted after it runs."""
    with span_and_baggage(tracer) as expected:
        running = [form.pool.submit(process_work.pause, 0.5) for _ in range(3)]
        pending = form.pool.submit(process_work.look)
        assert pending.cancel()
        assert form.pool.submit(process_work.look).result(TIMEOUT) == expected
    assert [future.result(TIMEOUT) for future in running] == [None] * 3


def test_signatures_are_what_they_are():
    """Wrong arguments raise the same TypeError."""
    with concurrent.futures.ProcessPoolExecutor(1) as pool:
        with pytest.raises(TypeError) as plain:
            pool.submit()
        ConcurrencyInstrumentor().instrument()
        try:
            with pytest.raises(TypeError) as ours:
                pool.submit()
        finally:
            ConcurrencyInstrumentor().uninstrument()
    assert str(plain.value) == str(ours.value)


def owners():
    """Return every class and module that is patched."""
    process = concurrent.futures.process
    return {
        multiprocessing.process.BaseProcess: None,
        process: None,
        process._WorkItem: None,
        process._CallItem: None,
        process._SafeQueue: None,
        process._ExecutorManagerThread: None,
        process.ProcessPoolExecutor: None,
    }


def test_undo_is_exact():
    """After uninstrument() everything is what it was, by identity."""
    before = {owner: dict(vars(owner)) for owner in owners()}
    ConcurrencyInstrumentor().instrument()
    changed = {owner for owner in owners() if dict(vars(owner)) != before[owner]}
    ConcurrencyInstrumentor().uninstrument()

    assert multiprocessing.process.BaseProcess in changed
    assert concurrent.futures.process._CallItem in changed
    for owner in owners():
        after = dict(vars(owner))
        assert after.keys() == before[owner].keys()
        assert all(after[name] is before[owner][name] for name in after)


@of_each_method(PoolSubmit)
def test_pools_outlive_the_switch(form, tracer):
    """A pool works before, while, between and after the library is on."""
    instrumentor = ConcurrencyInstrumentor()
    with span_and_baggage(tracer):
        assert form.pool.submit(process_work.returns, 1).result(TIMEOUT) == 1
        instrumentor.instrument()
        assert form.pool.submit(process_work.returns, 2).result(TIMEOUT) == 2
        paused = [form.pool.submit(process_work.pause, 0.3) for _ in range(3)]
        waiting = form.pool.submit(process_work.returns, 3)
        instrumentor.uninstrument()
        assert waiting.result(TIMEOUT) == 3
        assert form.pool.submit(process_work.returns, 4).result(TIMEOUT) == 4
        assert [future.result(TIMEOUT) for future in paused] == [None] * 3


@of_each_method(PoolSubmit)
def test_a_worker_of_before_uninstrument_stays_clean(form, instrument, tracer):
    """Work that is handed off while the library is off runs in nothing, on whatever worker."""
    instrument()
    with span_and_baggage(tracer) as expected:
        assert form.run(process_work.look) == [expected]
        ConcurrencyInstrumentor().uninstrument()
        assert form.run(process_work.look) == [NOTHING]


# Children are instrumented like their parent

SETTINGS = {
    "policy": "parent",
    "sched": "off",
    "queue": "link",
    "excluded": ("app.poller",),
    "link_after": 1234,
    "flush_timeout": 4321,
}


@one_of_each
def test_children_have_the_settings_of_their_parent(form, instrument, caplog, capfd):
    """A child is instrumented with the same settings, and nothing is said about it."""
    instrument(**SETTINGS)
    keywords = _settings.in_force.as_keywords()

    assert form.run(process_work.as_instrumented) == [(True, keywords)]
    assert keywords["sched"] == "off"
    assert keywords["link_after"] == 1234
    assert keywords["flush_timeout"] == 4321
    assert "nstrument" not in capfd.readouterr().err


@of_each_method(PoolSubmit)
def test_settings_are_there_before_the_first_task(form, instrument):
    """The initializer of a worker finds it instrumented."""
    instrument(**SETTINGS)
    keywords = _settings.in_force.as_keywords()

    pool = concurrent.futures.ProcessPoolExecutor(1, form.context, process_work.find_out)
    with pool:
        assert pool.submit(process_work.found_out).result(TIMEOUT) == (True, keywords)


@one_of_each
def test_children_hand_off_in_turn(form, instrumented, tracer):
    """What a child hands to a thread, or to a process of its own, arrives in its context."""
    with span_and_baggage(tracer) as expected:
        assert form.run(process_work.look_from_a_thread) == [expected]
        if not form.shares_process:  # a pool's processes may have none before 3.9's non-daemons
            assert form.run(process_work.look_from_a_process, form.method) == [expected]


@pytest.mark.alone
@one_of_each
def test_off_primitives_are_off_in_children(form, instrument, tracer):
    """A primitive that is off in the parent is off in the child."""
    instrument(threading="off")

    with span_and_baggage(tracer):
        seen = form.run(process_work.look_from_a_thread)
    assert seen == [NOTHING] or THREADS_INHERIT


@every([Process, PoolSubmit], ["forkserver", "spawn"])
def test_what_a_child_says_of_itself_holds(form, instrument, capfd):
    """A child that instruments itself gets its own settings, without a warning."""
    instrument(sched="off")

    ((instrumented, keywords),) = form.run(process_work.instrument_and_look, {"queue": "off"})

    assert instrumented
    assert keywords["queue"] == "off"
    assert keywords["sched"] == "parent"
    assert "nstrument" not in capfd.readouterr().err


PROGRAM = """
import multiprocessing
import sys
import process_work
from otel_concurrency import ConcurrencyInstrumentor

def instrument():
    ConcurrencyInstrumentor().instrument(sched="off")

if {at_top_level}:
    instrument()

def main(method):
    if not {at_top_level}:
        instrument()
    context = multiprocessing.get_context(method)
    with process_work.tracer().start_as_current_span("origin") as span:
        receiver, sender = context.Pipe(duplex=False)
        for work in (process_work.look, process_work.as_instrumented):
            process = context.Process(target=process_work.send, args=(sender, work))
            process.start()
            assert receiver.poll(60)
            yield receiver.recv()
            process.join()
        yield span.get_span_context().span_id

if __name__ == "__main__":
    seen, (instrumented, keywords), origin = main(sys.argv[1])
    print(seen.parent == origin, instrumented, keywords["sched"], keywords["queue"])
"""


@pytest.mark.parametrize("at_top_level", [True, False])
@pytest.mark.parametrize("method", ["forkserver", "spawn"])
def test_a_program_that_instruments_itself(method, at_top_level, tmp_path):
    """Children are instrumented once, whether or not to import the program does it already."""
    program = tmp_path / "program.py"
    program.write_text(PROGRAM.format(at_top_level=at_top_level))
    ran = subprocess.run(
        [sys.executable, str(program), method],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent)},
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=True,
    )
    assert ran.stdout == "True True off parent\n"
    assert ran.stderr == ""


@every([Process, PoolSubmit], ["forkserver", "spawn"])
def test_children_do_not_import_the_sdk_for_it(form, instrumented, tracer):
    """A child that does not use the SDK is not made to import it, nor are exporters set up."""
    with span_and_baggage(tracer):
        ((sdk, provider),) = form.run(process_work.sdk_and_provider)
    assert not sdk
    assert provider == "ProxyTracerProvider"


@every([Process, ProcessSubclass, PoolSubmit, PoolMapChunked], ["forkserver", "spawn"])
def test_children_without_the_library_do_the_work(
    form, instrumented, tracer, monkeypatch, tmp_path
):
    """Where the library cannot be imported the work runs all the same, without a context."""
    package = tmp_path / "otel_concurrency"
    package.mkdir()
    (package / "__init__.py").write_text("raise ImportError('not here')")
    monkeypatch.syspath_prepend(str(tmp_path))

    with span_and_baggage(tracer):
        assert set(form.run(process_work.look_without_the_library)) == {NOTHING}


@every([Process, PoolSubmit], ["forkserver", "spawn"])
def test_children_of_an_uninstrumented_parent_are_not_instrumented(form, instrument, tracer):
    """After uninstrument() nothing is sent to children any more."""
    instrument()
    ConcurrencyInstrumentor().uninstrument()

    with span_and_baggage(tracer):
        assert form.run(process_work.as_instrumented) == [(False, None)]
