"""taskiq: tasks, over a broker that has a list of messages in memory."""

from __future__ import annotations

import asyncio
import datetime
import json

import pytest
from opentelemetry import context, trace
from queue_suite import Messages
from suite import IN_BOTH_ORDERS, WAIT, check_undo, outside, run_program
from taskiq import AsyncBroker, ScheduleSource, SimpleRetryMiddleware
from taskiq.brokers.inmemory_broker import InMemoryBroker
from taskiq.kicker import AsyncKicker
from taskiq.message import TaskiqMessage
from taskiq.receiver.receiver import Receiver

LABEL = "otel_concurrency"


class Broker(AsyncBroker):
    """A broker whose messages are bytes, as those of any other."""

    def __init__(self):
        super().__init__()
        self.messages = []

    async def kick(self, message):
        self.messages.append(message.message)

    async def listen(self):
        while self.messages:
            yield self.messages.pop(0)


class Source(ScheduleSource):
    """Schedules in a list."""

    def __init__(self):
        self.schedules = []

    async def get_schedules(self):
        return self.schedules

    async def add_schedule(self, schedule):
        self.schedules.append(schedule)


class TestTasks(Messages):
    @pytest.fixture(autouse=True)
    def broker(self, work):
        self.broker = Broker().with_middlewares(SimpleRetryMiddleware())
        self.failures = 1

        async def job():
            self.task()

        def function():
            self.task()

        async def retried():
            self.task()
            self.failures -= 1
            if self.failures >= 0:
                raise ValueError

        async def sender():
            with self.tracer.start_as_current_span("in between") as self.between:
                await self.jobs["job"].kiq()

        self.jobs = {
            each.__name__: self.broker.register_task(
                each, task_name=each.__name__, retry_on_error=each is retried
            )
            for each in (job, function, retried, sender)
        }

    def send(self, name="job"):
        asyncio.run(self.jobs[name].kiq())

    def work_off(self):
        async def work():
            receiver = Receiver(self.broker)
            while self.broker.messages:
                await receiver.callback(self.broker.messages.pop(0))

        outside(asyncio.run, work())

    def test_a_function_in_a_thread(self, instrument):
        """It is in the context of its message, too."""
        self.switch_on(instrument)
        with self.tracer.start_as_current_span("origin") as origin:
            self.send("function")
        self.work_off()
        assert [parent for parent, *_ in self.seen] == [origin.get_span_context().span_id]

    def test_a_task_that_is_retried_keeps_its_label(self, instrument):
        """Each of its tries is a child of what sent it."""
        self.switch_on(instrument)
        with self.tracer.start_as_current_span("origin") as origin:
            self.send("retried")
        self.work_off()
        assert [parent for parent, *_ in self.seen] == [origin.get_span_context().span_id] * 2

    def test_what_a_task_sends_belongs_to_it(self, instrument):
        """It is a child of the span in which the task sent it."""
        self.switch_on(instrument)
        with self.tracer.start_as_current_span("origin"):
            self.send("sender")
        self.work_off()
        assert [parent for parent, *_ in self.seen] == [self.between.get_span_context().span_id]

    @pytest.mark.parametrize("periodic", [False, True])
    def test_a_schedule(self, periodic, instrument):
        """A task at a time is a child; each run of one that repeats is a trace, with a link."""
        self.switch_on(instrument)
        source = Source()
        job = self.jobs["job"]
        with self.tracer.start_as_current_span("origin") as origin:
            if periodic:
                asyncio.run(job.schedule_by_cron(source, "* * * * *"))
            else:
                asyncio.run(job.schedule_by_time(source, datetime.datetime.now()))
        (schedule,) = source.schedules
        for _ in range(2):
            kicker = AsyncKicker("job", self.broker, labels=dict(schedule.labels))
            outside(asyncio.run, kicker.kiq())
        self.work_off()
        for parent, _, span in self.seen:
            links = [link.context.span_id for link in span.links]
            found = [parent] if parent else links
            assert found == [origin.get_span_context().span_id]
            assert bool(links) is periodic

    def test_a_worker_that_was_started_in_a_span(self, instrument, monkeypatch):
        """A task without headers has no context, whatever the worker's loop is in."""
        self.switch_on(instrument)
        outside(self.send)
        monkeypatch.setattr("test_taskiq.outside", lambda function, *args: function(*args))
        with self.tracer.start_as_current_span("starter"):
            self.work_off()
        assert [one[:2] for one in self.seen] == [(None, None)]

    def test_a_worker_that_listens(self, instrument):
        """The worker of taskiq itself, which gets messages ahead."""
        self.switch_on(instrument)
        sent = [self.send_in_span(tenant) for tenant in ("acme", "umbrella")]

        async def work():
            finished = asyncio.Event()
            receiver = Receiver(self.broker, max_async_tasks=1)
            listening = asyncio.create_task(receiver.listen(finished))
            while len(self.seen) < 2:
                await asyncio.sleep(0.001)
            finished.set()
            await asyncio.wait_for(listening, WAIT)

        outside(asyncio.run, work())
        assert [one[:2] for one in self.seen] == sent


def test_in_memory_a_task_stays_in_its_flow(instrument, tracer):
    """The very span is current there, and no label is added."""
    instrument()
    seen = []

    async def main():
        broker = InMemoryBroker(await_inplace=True)

        async def job():
            seen.append((trace.get_current_span(), context.get_value("key")))

        task = broker.register_task(job, task_name="job")
        context.attach(context.set_value("key", "value"))
        with tracer.start_as_current_span("origin") as origin:
            await task.kiq()
            assert LABEL not in task.kicker()._prepare_message().labels
        assert seen == [(origin, "value")]

    outside(asyncio.run, main())


def test_the_label_is_text(instrument, tracer):
    """Brokers may send labels as headers; taskiq types none that it does not know."""
    instrument()

    def job():
        """Do nothing."""

    task = Broker().register_task(job, task_name="job")
    with tracer.start_as_current_span("origin"):
        message = task.kicker()._prepare_message()
    assert "traceparent" in json.loads(message.labels[LABEL])
    message.parse_labels()
    assert not context.get_current()


@IN_BOTH_ORDERS
def test_imported_before_or_after(first):
    """The order of imports does not matter."""
    program = """
from opentelemetry import baggage, context
from types import SimpleNamespace
from taskiq.kicker import AsyncKicker
broker = SimpleNamespace(id_generator=str)
context.attach(baggage.set_baggage("tenant", "acme"))
print("tenant=acme" in AsyncKicker("job", broker, {})._prepare_message().labels["otel_concurrency"])
"""
    assert run_program(first.format(module="taskiq") + program) == "True\n"


def test_undo_is_exact():
    """Every attribute that was replaced is what it was, by identity."""
    check_undo(AsyncKicker, Receiver, TaskiqMessage)
