"""rq: jobs, over a Redis in memory."""

from __future__ import annotations

import fakeredis
import pytest
import rq
from queue_suite import Messages
from rq.job import Job
from suite import check_undo, outside, spans_of

current = []
"""The task that jobs are to do: they are known by name."""


def job():
    """Do the task."""
    current[-1]()


class TestJobs(Messages):
    @pytest.fixture(autouse=True)
    def queue(self, work):
        self.connection = fakeredis.FakeStrictRedis()
        self.queue = rq.Queue(connection=self.connection)
        current.append(self.task)
        yield
        current.clear()

    def send(self):
        return self.queue.enqueue(job)

    def work_off(self):
        worker = rq.SimpleWorker([self.queue], connection=self.connection)
        outside(lambda: worker.work(burst=True, logging_level="CRITICAL"))


def test_the_spans_of_a_forked_worker_arrive(tmp_path, monkeypatch):
    """It leaves without exit handlers; each job's span is a child of its sender's."""
    program = """
if __name__ == "__main__":
    import fakeredis, rq
    switch_on()
    connection = fakeredis.FakeStrictRedis()  # a worker that is forked has a copy
    queue = rq.Queue(connection=connection)
    for _ in range(2):
        with tracer.start_as_current_span("origin"):
            queue.enqueue(work)
    rq.Worker([queue], connection=connection).work(burst=True, logging_level="CRITICAL")
    print("done")
"""
    printed, spans = spans_of(program, tmp_path, monkeypatch)
    assert printed == "done\n"
    origins = [(me, pid) for name, me, _, pid in spans if name == "origin"]
    works = [(parent, pid) for name, _, parent, pid in spans if name == "work"]
    assert sorted(parent for parent, _ in works) == sorted(me for me, _ in origins)
    assert len({pid for _, pid in works}) == 2
    assert {pid for _, pid in works}.isdisjoint(pid for _, pid in origins)


def test_what_the_program_gives_as_meta_is_its_own(instrument, tracer):
    """Its dictionary is not written to, and all of it arrives."""
    instrument()
    queue = rq.Queue(connection=fakeredis.FakeStrictRedis())
    given = {"mine": 1}
    with tracer.start_as_current_span("origin"):
        sent = queue.enqueue(job, meta=given)
    assert given == {"mine": 1}
    assert queue.fetch_job(sent.id).meta["mine"] == 1


def test_a_job_that_is_called_where_it_stands_keeps_its_context(instrument, tracer):
    """With `is_async=False` nothing is handed off."""
    instrument()
    queue = rq.Queue(is_async=False, connection=fakeredis.FakeStrictRedis())
    seen = []
    from opentelemetry import trace

    current.append(lambda: seen.append(trace.get_current_span()))
    with tracer.start_as_current_span("origin") as origin:
        queue.enqueue(job)
    current.clear()
    assert seen == [origin]


def test_undo_is_exact():
    """Every attribute that was replaced is what it was, by identity."""
    check_undo(Job, next(kind for kind in rq.Worker.__mro__ if "perform_job" in vars(kind)))
