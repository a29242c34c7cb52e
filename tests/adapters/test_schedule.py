"""schedule: jobs of one run and of many, in the flow that runs them."""

from __future__ import annotations

import datetime
import gc
import threading
import weakref

import pytest
import schedule
from opentelemetry import baggage, context, trace
from suite import IN_BOTH_ORDERS, WAIT, check_undo, outside, run_program


@pytest.fixture
def scheduler():
    """Return a scheduler of the test's own."""
    return schedule.Scheduler()


def run_pending(scheduler):
    """Run every job, as if it were due."""
    for job in scheduler.jobs:
        job.next_run = datetime.datetime.now()
    scheduler.run_pending()


class Work:
    """A job's function, which notes the span that it makes, and forgets to detach."""

    def __init__(self, tracer):
        self.seen = []
        self._tracer = tracer

    def __call__(self, *args):
        with self._tracer.start_as_current_span("job") as span:
            self.seen.append((span, baggage.get_baggage("tenant"), args))
        context.attach(context.set_value("forgotten", 1))
        return args or None


def add(scheduler, tracer, work, *args):
    """Add a job in a span, with baggage; return the span's id."""
    token = context.attach(baggage.set_baggage("tenant", "acme"))
    with tracer.start_as_current_span("request") as span:
        job = scheduler.every().second.do(work, *args)
    context.detach(token)
    return job, span.get_span_context().span_id


@pytest.mark.decisive
def test_each_run_is_linked_to_where_the_job_was_added(scheduler, instrument, tracer):
    """It is a trace of its own, with the baggage, whoever asks for it; the next job is not."""
    instrument()
    work, other = Work(tracer), Work(tracer)
    _, origin = add(scheduler, tracer, work, "argument")
    scheduler.every().second.do(other)
    for _ in range(3):
        run_pending(scheduler)
        assert not context.get_current()
    with tracer.start_as_current_span("asks") as asks:
        scheduler.run_all()
        assert trace.get_current_span() is asks
    assert len({span.get_span_context().trace_id for span, *_ in work.seen}) == 4
    for span, tenant, args in work.seen:
        assert (span.parent, tenant, args) == (None, "acme", ("argument",))
        assert [link.context.span_id for link in span.links] == [origin]
    assert [(span.parent, list(span.links)) for span, *_ in other.seen] == [(None, [])] * 4
    assert {tenant for _, tenant, _ in other.seen} == {None}


def test_a_job_that_was_added_without_a_context_has_none(scheduler, instrument, tracer):
    """Also where the thread that runs it was started in a request."""
    instrument()
    work = Work(tracer)
    outside(scheduler.every().second.do, work)
    thread = threading.Thread(target=run_pending, args=(scheduler,))
    token = context.attach(baggage.set_baggage("tenant", "acme"))
    with tracer.start_as_current_span("request"):
        thread.start()
    context.detach(token)
    thread.join(WAIT)
    ((span, tenant, _),) = work.seen
    assert (span.parent, list(span.links), tenant) == (None, [], None)


def test_what_a_job_says_of_itself_holds(scheduler, instrument, tracer):
    """It is cancelled by what it returns, and what it raises reaches the one who runs it."""
    instrument()

    def fail():
        raise ValueError("the job's")

    add(scheduler, tracer, lambda: schedule.CancelJob)
    run_pending(scheduler)
    assert not scheduler.jobs
    add(scheduler, tracer, fail)
    with pytest.raises(ValueError, match="the job's"):
        run_pending(scheduler)
    assert not context.get_current()


@pytest.mark.parametrize("settings", [{"sched": "off"}, {"adapters": "-*"}, None], ids=str)
def test_switched_off_no_job_has_a_link(settings, scheduler, instrument, tracer):
    """By its policy, by its name among the adapters, or with all of the library."""
    instrument(**(settings or {}))
    if settings is None:
        instrument.__self__.uninstrument()
    work = Work(tracer)
    add(scheduler, tracer, work)
    token = context.attach(context.Context())
    run_pending(scheduler)
    context.detach(token)
    ((span, tenant, _),) = work.seen
    assert (list(span.links), tenant) == ([], None)


def test_a_job_keeps_no_span_alive(scheduler, instrument, tracer, exporter):
    """It remembers a link and the baggage."""
    instrument()
    with tracer.start_as_current_span("request") as span:
        scheduler.every().second.do(int)
    reference = weakref.ref(span)
    del span
    run_pending(scheduler)
    exporter.clear()
    gc.collect()
    assert reference() is None


def test_undo_is_exact():
    """Every attribute that was replaced is what it was, by identity."""
    check_undo(schedule.Job)


@IN_BOTH_ORDERS
def test_it_does_not_matter_which_is_first(first):
    """Imported before the library is switched on, or after it."""
    program = """
from opentelemetry import context
token = context.attach(context.set_value("key", "carried"))
schedule.every().second.do(lambda: print(context.get_value("key")))
context.detach(token)
schedule.run_all()
"""
    assert run_program(first.format(module="schedule") + program) == "carried\n"
