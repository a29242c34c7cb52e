"""streaq: tasks, over Debian's Redis."""

from __future__ import annotations

import asyncio
import gc
import uuid

import pytest
import streaq
from queue_suite import Messages
from streaq.task import Task
from suite import IN_BOTH_ORDERS, WAIT, check_undo, outside, run_program

# streaq leaves a stream of anyio open when a worker ends; a test must not leave it to the next.
pytestmark = pytest.mark.filterwarnings("ignore:Exception ignored .*MemoryObjectReceiveStream")


class TestTasks(Messages):
    @pytest.fixture(autouse=True)
    def queue(self, work, ports):
        self.url = f"redis://127.0.0.1:{ports('redis')}"
        self.name = f"queue-{uuid.uuid4()}"
        self.expected = 0
        self.failures = 1
        yield
        gc.collect()  # while the warning is ignored

    def made(self):
        worker = streaq.Worker(
            self.url, queue_name=self.name, concurrency=1, handle_signals=False, prefetch=0
        )

        def done():
            self.expected -= 1
            if not self.expected:
                self.finished.set()

        @worker.task
        async def job():
            self.task()
            done()

        @worker.task
        def function():
            self.task()
            done()

        @worker.task
        async def retried():
            self.task()
            self.failures -= 1
            if self.failures >= 0:
                raise streaq.StreaqRetry(delay=0)
            done()

        @worker.task
        async def sender():
            with self.tracer.start_as_current_span("in between") as self.between:
                await job.enqueue()

        return worker, {"job": job, "function": function, "retried": retried, "sender": sender}

    def send(self, name="job", **options):
        async def send():
            worker, tasks = self.made()
            async with worker:
                await tasks[name].enqueue().start(**options)

        self.expected += 1
        asyncio.run(send())

    def work_off(self):
        async def work():
            self.finished = asyncio.Event()
            worker, _ = self.made()
            running = asyncio.create_task(worker.run_async())
            await asyncio.wait_for(self.finished.wait(), WAIT)
            running.cancel()
            await asyncio.wait([running])

        outside(asyncio.run, work())

    def test_a_function_in_a_thread(self, instrument):
        """It is in the context in which it was enqueued, too."""
        self.switch_on(instrument)
        with self.tracer.start_as_current_span("origin") as origin:
            self.send("function")
        self.work_off()
        assert [parent for parent, *_ in self.seen] == [origin.get_span_context().span_id]

    def test_a_task_that_is_retried_keeps_its_headers(self, instrument):
        """Each of its tries is a child of what enqueued it."""
        self.switch_on(instrument)
        with self.tracer.start_as_current_span("origin") as origin:
            self.send("retried")
        self.work_off()
        assert [parent for parent, *_ in self.seen] == [origin.get_span_context().span_id] * 2

    def test_what_a_task_enqueues_belongs_to_it(self, instrument):
        """It is a child of the span in which the task enqueued it."""
        self.switch_on(instrument)
        with self.tracer.start_as_current_span("origin"):
            self.send("sender")
        self.work_off()
        assert [parent for parent, *_ in self.seen] == [self.between.get_span_context().span_id]

    def test_a_task_with_a_crontab_is_linked(self, instrument):
        """Its runs are traces of their own."""
        self.switch_on(instrument)
        with self.tracer.start_as_current_span("origin") as origin:
            self.send(schedule="* * * * * * *")
        self.work_off()
        ((parent, _, span),) = self.seen
        links = [link.context.span_id for link in span.links]
        assert (parent, links) == (None, [origin.get_span_context().span_id])

    def test_a_worker_that_was_started_in_a_span(self, instrument, monkeypatch):
        """A task without headers has no context, whatever the worker's loop is in."""
        self.switch_on(instrument)
        outside(self.send)
        monkeypatch.setattr("test_streaq.outside", lambda function, *args: function(*args))
        with self.tracer.start_as_current_span("starter"):
            self.work_off()
        assert [one[:2] for one in self.seen] == [(None, None)]


PROGRAM = """
import asyncio
from opentelemetry import baggage, context
from streaq import Worker
worker = Worker(serializer=repr)
@worker.task
def job():
    pass
context.attach(baggage.set_baggage("tenant", "acme"))
print("tenant=acme" in asyncio.run(job.enqueue().serialize(0)))
"""


@IN_BOTH_ORDERS
def test_imported_before_or_after(first):
    """The order of imports does not matter."""
    assert run_program(first.format(module="streaq") + PROGRAM) == "True\n"


def test_undo_is_exact():
    """Every attribute that was replaced is what it was, by identity."""
    check_undo(Task, streaq.Worker)
