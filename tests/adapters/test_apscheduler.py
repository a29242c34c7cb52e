"""APScheduler 3: every kind of scheduler and executor, jobs of one firing and of many."""

from __future__ import annotations

import asyncio
import datetime
import gc
import threading
import weakref

import apscheduler.executors.base
import apscheduler.job
import apscheduler.schedulers.base
import pytest
from apscheduler.executors.debug import DebugExecutor
from apscheduler.schedulers.asyncio import AsyncIOScheduler
from apscheduler.schedulers.background import BackgroundScheduler
from opentelemetry import baggage, context
from suite import IN_BOTH_ORDERS, WAIT, check_undo, run_program

from otel_concurrency._adapters import _apscheduler

FIRINGS = 3


class Work:
    """A job's function, which notes the span that it makes, and forgets to detach."""

    def __init__(self, tracer, firings=1):
        self.seen = []
        self.done = threading.Event()
        self._tracer = tracer
        self._firings = firings

    def __call__(self):
        with self._tracer.start_as_current_span("job") as span:
            self.seen.append((span, baggage.get_baggage("tenant")))
        context.attach(context.set_value("forgotten", 1))
        if len(self.seen) == self._firings:
            self.done.set()

    async def coroutine(self):
        self()


def add(scheduler, tracer, job, *args, **kwargs):
    """Add a job in a span, with baggage; return the span's id."""
    token = context.attach(baggage.set_baggage("tenant", "acme"))
    with tracer.start_as_current_span("request") as span:
        scheduler.add_job(job, *args, **kwargs)
    context.detach(token)
    return span.get_span_context().span_id


def check(seen, origin):
    """Check that each firing is a trace of its own, with one link, and the baggage."""
    assert {span.parent for span, _ in seen} == {None}
    assert [[link.context.span_id for link in span.links] for span, _ in seen] == [[origin]] * len(
        seen
    )
    assert [tenant for _, tenant in seen] == ["acme"] * len(seen)
    assert len({span.get_span_context().trace_id for span, _ in seen}) == len(seen)


def shut_down(scheduler):
    """Shut down a scheduler that is through with what is due: 3.10 fails in the middle of it."""
    with scheduler._jobstores_lock:
        pass
    scheduler.shutdown()


@pytest.fixture(params=["thread pool", "debug"])
def scheduler(request):
    """Return a scheduler with a thread of its own, that is about to be started."""
    executors = {"default": DebugExecutor()} if request.param == "debug" else {}
    made = BackgroundScheduler(executors=executors)
    yield made
    shut_down(made)


@pytest.mark.decisive
@pytest.mark.parametrize("started", ["before", "after"])
@pytest.mark.parametrize("firings", [1, FIRINGS])
def test_each_firing_is_linked_to_where_the_job_was_added(
    scheduler, started, firings, instrument, tracer
):
    """Also where the request that added it has started the scheduler; and the next job is not."""
    instrument()
    work, other = Work(tracer, firings), Work(tracer)
    kind = ("interval",) if firings > 1 else ()
    every = {"seconds": 0.01} if firings > 1 else {}
    if started == "before":
        scheduler.start()
    origin = add(scheduler, tracer, work, *kind, **every)
    if started == "after":
        with tracer.start_as_current_span("another"):
            scheduler.start()
    assert work.done.wait(WAIT)
    scheduler.remove_all_jobs()
    check(work.seen[:firings], origin)

    scheduler.add_job(other)
    assert other.done.wait(WAIT)
    ((span, tenant),) = other.seen
    assert (span.parent, list(span.links), tenant) == (None, [], None)


@pytest.mark.parametrize("kind", ["coroutine", "function"])
def test_in_an_event_loop(kind, instrument, tracer):
    """A task, and what runs in the loop's executor; the scheduler's own timer keeps no context."""
    instrument()

    async def main():
        scheduler = AsyncIOScheduler()
        work, other = Work(tracer, FIRINGS), Work(tracer)
        scheduler.start()
        job = work.coroutine if kind == "coroutine" else work
        origin = add(scheduler, tracer, job, "interval", seconds=0.01)
        await asyncio.to_thread(work.done.wait, WAIT)
        scheduler.remove_all_jobs()
        check(work.seen[:FIRINGS], origin)
        scheduler.add_job(other.coroutine if kind == "coroutine" else other)
        await asyncio.to_thread(other.done.wait, WAIT)
        scheduler.shutdown()
        ((span, tenant),) = other.seen
        assert (span.parent, list(span.links), tenant) == (None, [], None)

    asyncio.run(main())


@pytest.mark.parametrize("settings", [{"sched": "off"}, {"adapters": "-*"}], ids=str)
def test_switched_off_no_job_has_a_link(settings, instrument, tracer):
    """By its policy, or by its name among the adapters."""
    instrument(**settings)
    scheduler = BackgroundScheduler()
    scheduler.start()
    work = Work(tracer)
    add(scheduler, tracer, work)
    assert work.done.wait(WAIT)
    shut_down(scheduler)
    assert not work.seen[0][0].links


def test_nothing_is_kept_of_the_span_nor_of_a_job_that_is_gone(instrument, tracer, exporter):
    """A job holds a link and the baggage, until it is removed or has fired for the last time."""
    instrument()
    scheduler = BackgroundScheduler()
    scheduler.start()
    later = datetime.datetime.now() + datetime.timedelta(hours=1)
    work = Work(tracer)
    with tracer.start_as_current_span("request") as span:
        waiting = scheduler.add_job(int, "date", run_date=later)
        scheduler.add_job(work)
    reference = weakref.ref(span)
    del span
    assert work.done.wait(WAIT)
    exporter.clear()
    work.seen.clear()
    gc.collect()
    assert reference() is None
    waiting.remove()
    shut_down(scheduler)
    assert not _apscheduler._jobs.get(scheduler)


def test_undo_is_exact():
    """Every attribute that was replaced is what it was, by identity."""
    check_undo(
        apscheduler.job.Job,
        apscheduler.executors.base.BaseExecutor,
        apscheduler.schedulers.base.BaseScheduler,
    )


@IN_BOTH_ORDERS
def test_it_does_not_matter_which_is_first(first):
    """Imported before the library is switched on, or after it."""
    program = """
import threading
from apscheduler.schedulers.background import BackgroundScheduler
from opentelemetry import context
scheduler = BackgroundScheduler()
scheduler.start()
done = threading.Event()
def job():
    print(context.get_value("key"))
    done.set()
context.attach(context.set_value("key", "carried"))
scheduler.add_job(job)
done.wait(20)
with scheduler._jobstores_lock:
    pass
scheduler.shutdown()
"""
    module = "apscheduler.schedulers.background, apscheduler.executors.pool"
    assert run_program(first.format(module=module) + program) == "carried\n"
