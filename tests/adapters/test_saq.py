"""saq: jobs, over a Redis of the tests' own."""

from __future__ import annotations

import asyncio
import itertools

import pytest
from queue_suite import Messages
from saq import Queue, Worker
from saq.queue import base
from suite import IN_BOTH_ORDERS, check_undo, outside, run_program

numbers = itertools.count()


class TestJobs(Messages):
    @pytest.fixture(autouse=True)
    def redis(self, work, ports):
        self.address, self.name = f"redis://127.0.0.1:{ports('redis')}", f"jobs-{next(numbers)}"

    def send(self, name="job", **settings):
        async def send():
            queue = Queue.from_url(self.address, name=self.name)
            await queue.enqueue(name, **settings)
            await queue.disconnect()

        asyncio.run(send())

    def work_off(self):
        outside(asyncio.run, self.work_in_burst())

    async def work_in_burst(self):
        queue = Queue.from_url(self.address, name=self.name)

        async def job(_):
            self.task()

        async def retried(ctx):
            self.task()
            if ctx["job"].attempts == 1:
                raise ValueError

        async def sender(_):
            await queue.enqueue("job")

        functions = [(one.__name__, one) for one in (job, retried, sender)]
        worker = Worker(queue, functions, burst=True, dequeue_timeout=0.1, concurrency=1)
        worker.SIGNALS = []
        await worker.start()
        await queue.disconnect()

    @pytest.mark.filterwarnings("ignore")
    def test_a_job_that_is_retried_keeps_its_headers(self, instrument):
        """Each of its tries is a child of who has enqueued it."""
        self.switch_on(instrument)
        with self.tracer.start_as_current_span("origin") as origin:
            self.send("retried", retries=2)
        self.work_off()
        assert [parent for parent, *_ in self.seen] == [origin.get_span_context().span_id] * 2

    def test_what_a_job_enqueues_belongs_to_it(self, instrument):
        """It is in the trace of the job at work."""
        self.switch_on(instrument)
        with self.tracer.start_as_current_span("origin") as origin:
            self.send("sender")
        self.work_off()
        assert [parent for parent, *_ in self.seen] == [origin.get_span_context().span_id]

    def test_a_worker_that_was_started_in_a_span_is_nobodys(self, instrument):
        """A job without headers has no context, whatever the worker was started in."""
        self.switch_on(instrument)
        outside(self.send)
        with self.tracer.start_as_current_span("starter"):
            asyncio.run(self.work_in_burst())
        assert [one[:2] for one in self.seen] == [(None, None)]

    def test_metadata_of_the_programs_own_stays(self, instrument):
        """Its dict is not changed."""
        self.switch_on(instrument)
        given = {"mine": 1}
        with self.tracer.start_as_current_span("origin") as origin:
            self.send(meta=given)
        self.work_off()
        assert given == {"mine": 1}
        assert self.seen[0][0] == origin.get_span_context().span_id


@IN_BOTH_ORDERS
def test_imported_before_or_after(first):
    """The order of imports does not matter."""
    program = """
import asyncio
from opentelemetry import baggage, context
from saq import Job, Queue
context.attach(baggage.set_baggage("tenant", "acme"))
class Nowhere(Queue):
    async def _enqueue(self, job):
        return job
Nowhere.__abstractmethods__ = frozenset()
print(asyncio.run(Nowhere("name", None, None).enqueue("job")).meta["otel_concurrency"]["baggage"])
"""
    assert run_program(first.format(module="saq") + program) == "tenant=acme\n"


def test_undo_is_exact():
    """Every attribute that was replaced is what it was, by identity."""
    check_undo(base.Queue, Worker)
