"""arq: jobs, over a Redis in memory."""

from __future__ import annotations

import asyncio
import pickle
from typing import ClassVar

import arq.connections
import arq.worker
import fakeredis
import pytest
from opentelemetry import context, trace
from queue_suite import Messages
from redis.asyncio.connection import ConnectionPool
from suite import IN_BOTH_ORDERS, check_undo, outside, run_program


def connected(server, **settings):
    """Return a client of a Redis in memory."""
    connection = fakeredis.FakeAsyncRedisConnection
    pool = ConnectionPool(connection_class=connection, server=server)
    return arq.connections.ArqRedis(connection_pool=pool, **settings)


class TestJobs(Messages):
    settings: ClassVar = {}

    @pytest.fixture(autouse=True)
    def redis(self, work, monkeypatch):
        async def say_nothing(*_):
            """Do without `INFO`, which the Redis in memory does not know."""

        monkeypatch.setattr(arq.worker, "log_redis_info", say_nothing)
        self.server = fakeredis.FakeServer()

    def send(self, name="job"):
        async def send():
            client = connected(self.server, **self.settings)
            await client.enqueue_job(name)
            await client.connection_pool.disconnect()

        asyncio.run(send())

    def work_off(self):
        async def job(_):
            self.task()

        async def retried(job_context):
            self.task()
            if job_context["job_try"] == 1:
                raise arq.Retry

        async def sender(_):
            client = connected(self.server)
            await client.enqueue_job("job")
            await client.connection_pool.disconnect()

        async def work():
            client = connected(self.server)
            worker = arq.worker.Worker(
                [arq.func(one, name=one.__name__) for one in (job, retried, sender)],
                redis_pool=client,
                burst=True,
                poll_delay=0.01,
                handle_signals=False,
            )
            await worker.main()
            await client.connection_pool.disconnect()

        outside(asyncio.run, work())

    def test_a_job_that_is_retried_keeps_its_headers(self, instrument):
        """Each of its tries is a child of who has enqueued it."""
        self.switch_on(instrument)
        with self.tracer.start_as_current_span("origin") as origin:
            self.send("retried")
        self.work_off()
        assert [parent for parent, *_ in self.seen] == [origin.get_span_context().span_id] * 2

    def test_what_a_job_enqueues_belongs_to_it(self, instrument):
        """It is in the trace of the job at work."""
        self.switch_on(instrument)
        with self.tracer.start_as_current_span("origin") as origin:
            self.send("sender")
        self.work_off()
        assert [parent for parent, *_ in self.seen] == [origin.get_span_context().span_id]

    def test_a_worker_that_was_started_in_a_span_is_nobodys(self, instrument, monkeypatch):
        """A job without headers has no context, whatever the worker's loop is in."""
        self.switch_on(instrument)
        outside(self.send)
        monkeypatch.setattr("test_arq.outside", lambda function, *args: function(*args))
        with self.tracer.start_as_current_span("starter"):
            self.work_off()
        assert [one[:2] for one in self.seen] == [(None, None)]

    def test_a_serializer_of_the_programs_own_gets_what_it_made(self, instrument):
        """Nothing is put behind a message that is not known to be a pickle."""
        self.switch_on(instrument)

        def serialize(data):
            return pickle.dumps(data) + b""

        self.settings = {"job_serializer": serialize, "job_deserializer": pickle.loads}
        with self.tracer.start_as_current_span("origin"):
            self.send()
        self.work_off()
        assert [one[:2] for one in self.seen] == [(None, None)]


def test_a_worker_without_the_library_reads_what_was_sent_with_it(instrument, tracer):
    """What is behind the pickle disturbs nobody."""
    instrument()
    with tracer.start_as_current_span("origin"):
        message = arq.connections.serialize_job("job", (1,), {"a": 2}, None, 0)
    instrument.__self__.uninstrument()
    assert message != arq.connections.serialize_job("job", (1,), {"a": 2}, None, 0)
    assert arq.worker.deserialize_job_raw(message) == ("job", (1,), {"a": 2}, None, 0)
    assert not context.get_current()
    assert trace.get_current_span() is trace.INVALID_SPAN


@IN_BOTH_ORDERS
def test_imported_before_or_after(first):
    """The order of imports does not matter."""
    program = """
from opentelemetry import baggage, context
from arq.connections import serialize_job
import arq.connections
context.attach(baggage.set_baggage("tenant", "acme"))
print(b"tenant=acme" in arq.connections.serialize_job("job", (), {}, None, 0))
"""
    assert run_program(first.format(module="arq") + program) == "True\n"


def test_undo_is_exact():
    """Every attribute that was replaced is what it was, by identity."""
    check_undo(arq.connections, arq.worker, arq.worker.Worker)
