"""pgqueuer: jobs, over tables in memory."""

from __future__ import annotations

import asyncio
import datetime

import pytest
from pgqueuer import PgQueuer
from pgqueuer.adapters.persistence import query_helpers
from pgqueuer.core.qm import QueueManager
from pgqueuer.errors import RetryRequested
from pgqueuer.types import QueueExecutionMode
from queue_suite import Messages
from suite import IN_BOTH_ORDERS, check_undo, outside, run_program


class TestJobs(Messages):
    @pytest.fixture(autouse=True)
    def queuer(self, work):
        self.queuer = PgQueuer.in_memory()
        self.queries = self.queuer.qm.queries
        self.failures = 1

        @self.queuer.entrypoint("job")
        async def job(_):
            self.task()

        @self.queuer.entrypoint("retried")
        async def retried(_):
            self.task()
            self.failures -= 1
            if self.failures >= 0:
                raise RetryRequested(delay=datetime.timedelta(0))

        @self.queuer.entrypoint("sender")
        async def sender(_):
            with self.tracer.start_as_current_span("in between") as self.between:
                await self.queries.enqueue("job", None)

    def send(self, name="job", **options):
        async def send():
            await self.queries.enqueue(name, None, **options)

        asyncio.run(send())

    def work_off(self):
        outside(asyncio.run, self.queuer.qm.run(mode=QueueExecutionMode.drain, batch_size=1))

    def test_a_job_that_is_retried_keeps_its_headers(self, instrument):
        """Each of its tries is a child of what enqueued it."""
        self.switch_on(instrument)
        with self.tracer.start_as_current_span("origin") as origin:
            self.send("retried")
        self.work_off()
        assert [parent for parent, *_ in self.seen] == [origin.get_span_context().span_id] * 2

    def test_what_a_job_enqueues_belongs_to_it(self, instrument):
        """It is a child of the span in which the job enqueued it."""
        self.switch_on(instrument)
        with self.tracer.start_as_current_span("origin"):
            self.send("sender")
        self.work_off()
        assert [parent for parent, *_ in self.seen] == [self.between.get_span_context().span_id]

    def test_headers_of_the_program_stay_its_own(self, instrument):
        """Each job has those that were given for it, in an object that is not changed."""
        self.switch_on(instrument)
        given = [{"one": "1"}, None]
        with self.tracer.start_as_current_span("origin"):
            params = query_helpers.normalize_enqueue_params(
                ["job"] * 2, [None] * 2, [0] * 2, headers=given
            )
        assert given == [{"one": "1"}, None]
        assert [sorted(headers) for headers in params.headers] == [
            ["one", "otel_concurrency"],
            ["otel_concurrency"],
        ]

    def test_a_worker_that_was_started_in_a_span(self, instrument, monkeypatch):
        """A job without headers has no context, whatever the worker's loop is in."""
        self.switch_on(instrument)
        outside(self.send)
        monkeypatch.setattr("test_pgqueuer.outside", lambda function, *args: function(*args))
        with self.tracer.start_as_current_span("starter"):
            self.work_off()
        assert [one[:2] for one in self.seen] == [(None, None)]


@IN_BOTH_ORDERS
def test_imported_before_or_after(first):
    """The order of imports does not matter."""
    program = """
from opentelemetry import baggage, context
from pgqueuer.adapters.persistence import query_helpers
context.attach(baggage.set_baggage("tenant", "acme"))
print(query_helpers.normalize_enqueue_params("job", None, 0).headers[0]["otel_concurrency"])
"""
    assert run_program(first.format(module="pgqueuer") + program) == "{'baggage': 'tenant=acme'}\n"


def test_undo_is_exact():
    """Every attribute that was replaced is what it was, by identity."""
    check_undo(query_helpers, QueueManager)
