"""django-q2: tasks, over a broker that has a list of packages in memory."""

from __future__ import annotations

import multiprocessing
import queue

import django_site  # noqa: F401 - configures Django
import pytest
from django_q import cluster, signing, worker
from django_q.brokers import Broker
from django_q.tasks import async_task
from opentelemetry import trace
from queue_suite import Messages
from suite import IN_BOTH_ORDERS, check_undo, outside, run_program

current = None
"""The present test: a function is found by its name."""


def job():
    """Do the work of the present test."""
    current.task()


def function(*args, **kwargs):
    """Return what was given, and what is current."""
    return args, kwargs, trace.get_current_span()


def sender():
    """Send another task, in a span."""
    with current.tracer.start_as_current_span("in between") as current.between:
        current.send()


class Packages(Broker):
    """A broker with packages in a list."""

    def __init__(self):
        self.list_key = "tests"
        self.packages = []

    def enqueue(self, package):
        self.packages.append(package)
        return len(self.packages)


class TestTasks(Messages):
    @pytest.fixture(autouse=True)
    def broker(self, work, monkeypatch):
        self.broker = Packages()
        monkeypatch.setattr("test_django_q2.current", self)

    def send(self, name="job"):
        async_task(f"test_django_q2.{name}", broker=self.broker)

    def work_off(self):
        def work():
            while self.broker.packages:
                todo, self.done = queue.Queue(), queue.Queue()
                for package in self.broker.packages:
                    todo.put(signing.SignedPackage.loads(package))
                self.broker.packages.clear()
                todo.put("STOP")
                worker.worker(todo, self.done, multiprocessing.Value("f", -1))

        outside(work)

    def test_a_package_that_is_delivered_again_has_its_headers(self, instrument):
        """As when a worker did not acknowledge the task."""
        self.switch_on(instrument)
        with self.tracer.start_as_current_span("origin") as origin:
            self.send()
        self.broker.packages *= 2
        self.work_off()
        assert [parent for parent, *_ in self.seen] == [origin.get_span_context().span_id] * 2

    def test_what_a_task_sends_belongs_to_it(self, instrument):
        """It is a child of the span in which the task sent it."""
        self.switch_on(instrument)
        with self.tracer.start_as_current_span("origin"):
            self.send("sender")
        self.work_off()
        assert [parent for parent, *_ in self.seen] == [self.between.get_span_context().span_id]

    def test_a_result_is_what_it_is(self, instrument):
        """It has no headers, and a function gets its arguments alone."""
        self.switch_on(instrument)
        with self.tracer.start_as_current_span("origin"):
            async_task(function, 1, key=2, broker=self.broker)
        self.work_off()
        result = self.done.get()
        assert (result["result"][:2], result["success"]) == (((1,), {"key": 2}), True)
        assert "otel_concurrency" not in result

    def test_a_task_that_runs_at_once_stays_in_its_flow(self, instrument, monkeypatch):
        """The very span is current there."""
        self.switch_on(instrument)
        spans = []
        monkeypatch.setattr(self, "task", lambda: spans.append(trace.get_current_span()))
        saved = []
        monkeypatch.setattr("django_q.monitor.save_task", lambda *given: saved.append(given))
        with self.tracer.start_as_current_span("origin") as origin:
            async_task("test_django_q2.job", broker=self.broker, sync=True)
            assert trace.get_current_span() is origin
        assert spans == [origin]

    def test_a_worker_that_was_started_in_a_span(self, instrument):
        """A task without headers has no context, whatever the worker is in."""
        self.switch_on(instrument)
        outside(self.send)
        todo = queue.Queue()
        todo.put(signing.SignedPackage.loads(self.broker.packages[0]))
        todo.put("STOP")
        with self.tracer.start_as_current_span("starter") as starter:
            worker.worker(todo, queue.Queue(), multiprocessing.Value("f", -1))
            assert trace.get_current_span() is starter
        assert [one[:2] for one in self.seen] == [(None, None)]


PROGRAM = """
from django.conf import settings
settings.configure(Q_CLUSTER=dict(orm="default"), SECRET_KEY="key")
import django
django.setup()
{first}
from opentelemetry import baggage, context
from django_q.signing import SignedPackage
context.attach(baggage.set_baggage("tenant", "acme"))
print(SignedPackage.loads(SignedPackage.dumps(dict(func="f", args=(), kwargs=dict()))))
"""


@IN_BOTH_ORDERS
def test_imported_before_or_after(first):
    """The order of imports does not matter."""
    program = PROGRAM.format(first=first.format(module="django_q.signing"))
    assert "{'baggage': 'tenant=acme'}" in run_program(program)


def test_undo_is_exact():
    """Every attribute that was replaced is what it was, by identity."""
    check_undo(signing.SignedPackage, worker, cluster)
