"""django-tasks-db: tasks in a database in memory, and its worker."""

from __future__ import annotations

import django_site  # noqa: F401 - configures Django
import pytest
from asgiref.sync import async_to_sync
from django.core.management import call_command
from django.tasks import task
from django_tasks_db import backend
from django_tasks_db.management.commands import db_worker
from django_tasks_db.models import DBTaskResult
from opentelemetry import trace
from queue_suite import Messages
from suite import IN_BOTH_ORDERS, check_undo, outside, run_program

current = None
"""The present test: a task is found by its name."""


@task(backend="database")
def job():
    """Do the work of the present test."""
    current.task()


@task(backend="database", takes_context=True)
def sender(context):
    """Send another task, in a span."""
    with current.tracer.start_as_current_span("in between") as current.between:
        current.send()


@task(backend="database")
def function(*args, **kwargs):
    """Return what was given."""
    return [args, kwargs]


@task(backend="database")
def failing():
    """Fail."""
    raise ValueError("of the program")


def work_off():
    """Have a worker do what is there, and what that sends."""
    call_command("db_worker", "--batch", "--no-startup-delay", "--backend=database", verbosity=0)


@pytest.fixture(scope="module", autouse=True)
def database():
    """Have the tables there."""
    call_command("migrate", verbosity=0)


class TestTasks(Messages):
    @pytest.fixture(autouse=True)
    def this_test(self, work, monkeypatch):
        DBTaskResult.objects.all().delete()
        monkeypatch.setattr("test_django_tasks_db.current", self)
        monkeypatch.setattr(db_worker.Worker, "configure_signals", lambda _: None)

    def send(self):
        job.enqueue()

    def work_off(self):
        outside(work_off)

    def test_a_coroutine_enqueues_as_well(self, instrument):
        """A task has the context of the coroutine."""
        self.switch_on(instrument)
        with self.tracer.start_as_current_span("origin") as origin:
            async_to_sync(job.aenqueue)()
        self.work_off()
        assert [parent for parent, *_ in self.seen] == [origin.get_span_context().span_id]

    def test_what_a_task_sends_belongs_to_it(self, instrument):
        """It is a child of the span in which the task sent it."""
        self.switch_on(instrument)
        with self.tracer.start_as_current_span("origin"):
            sender.enqueue()
        self.work_off()
        assert [parent for parent, *_ in self.seen] == [self.between.get_span_context().span_id]

    def test_a_task_that_fails_leaves_nothing(self, instrument):
        """The next one is in no context."""
        self.switch_on(instrument)
        with self.tracer.start_as_current_span("origin"):
            failed = failing.enqueue()
        outside(self.send)
        self.work_off()
        failed.refresh()
        assert failed.errors[0].exception_class_path == "builtins.ValueError"
        assert [one[:2] for one in self.seen] == [(None, None)]

    def test_arguments_and_result_are_what_they_are(self, instrument):
        """A function gets its arguments alone; so does who looks at the result."""
        self.switch_on(instrument)
        with self.tracer.start_as_current_span("origin"):
            result = function.enqueue(1, key="value")
        self.work_off()
        result.refresh()
        assert result.return_value == [[1], {"key": "value"}]
        assert (result.args, result.kwargs) == ([1], {"key": "value"})

    def test_a_worker_that_was_started_in_a_span(self, instrument):
        """A task without headers has no context, whatever the worker is in."""
        self.switch_on(instrument)
        outside(self.send)
        with self.tracer.start_as_current_span("starter") as starter:
            work_off()
            assert trace.get_current_span() is starter
        assert [one[:2] for one in self.seen] == [(None, None)]

    def test_what_is_put_in_no_context_is_as_without_the_library(self, instrument):
        """There is nothing beside the arguments."""
        self.switch_on(instrument)
        outside(self.send)
        assert DBTaskResult.objects.get().args_kwargs == {"args": [], "kwargs": {}}


PROGRAM = """
from django.conf import settings
settings.configure(SECRET_KEY="key", INSTALLED_APPS=["django_tasks_db"])
import django
django.setup()
{first}
from opentelemetry import baggage, context
from django_tasks_db import backend
context.attach(baggage.set_baggage("tenant", "acme"))
print(backend.normalize_json(dict(args=(), kwargs=dict())))
"""


@IN_BOTH_ORDERS
def test_imported_before_or_after(first):
    """The order of imports does not matter."""
    program = PROGRAM.format(first=first.format(module="django_tasks_db.backend"))
    assert "{'baggage': 'tenant=acme'}" in run_program(program)


def test_undo_is_exact():
    """Every attribute that was replaced is what it was, by identity."""
    check_undo(backend, db_worker.Worker)
