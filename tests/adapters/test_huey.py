"""huey: tasks, over its storage in memory, and what a message looks like to others."""

from __future__ import annotations

import pickle

import pytest
from huey import MemoryHuey
from huey.api import Huey
from huey.registry import Message, Registry
from huey.serializer import Serializer, SignedSerializer
from opentelemetry import context, trace
from queue_suite import Messages
from suite import check_undo, outside


class TestTasks(Messages):
    def make(self):
        return MemoryHuey(utc=True)

    @pytest.fixture(autouse=True)
    def huey(self, work):
        self.huey = self.make()
        self.queued = self.huey.task(name="task")(lambda: self.task())

    def send(self):
        self.queued()

    def work_off(self):
        def run():
            while (task := self.huey.dequeue()) is not None:
                self.huey.execute(task)

        outside(run)


class TestCompressed(TestTasks):
    def make(self):
        return MemoryHuey(compression=True)


class TestSigned(TestTasks):
    def make(self):
        return MemoryHuey(serializer=SignedSerializer(secret="secret"))


class TestRetried(TestTasks):
    """The first attempt fails; the second one is in the context of the first."""

    @pytest.fixture(autouse=True)
    def huey(self, work):
        self.huey = self.make()
        self.failed = set()

        def fail_once(task):
            if task.id not in self.failed:
                self.failed.add(task.id)
                context.attach(context.set_value("forgotten", 1))
                raise ValueError("once")
            self.task()

        self.queued = self.huey.task(name="failing", retries=1, context=True)(fail_once)


class TestPipeline(TestTasks):
    """What follows a task is in the same context."""

    @pytest.fixture(autouse=True)
    def huey(self, work):
        self.huey = self.make()
        self.first = self.huey.task(name="first")(int)
        self.queued = self.huey.task(name="second")(lambda _: self.task())

    def send(self):
        self.huey.enqueue(self.first.s().then(self.queued))


def test_a_consumer_without_the_library_reads_the_message(instrument, tracer):
    """It is huey's own message, with what follows it left unread."""
    huey = MemoryHuey()
    task = huey.task(name="task")(int)
    plain = pickle.loads(huey.serialize_task(task.s().then(task)))
    instrument()
    with tracer.start_as_current_span("origin"):
        data = huey.serialize_task(task.s().then(task))
    instrument.__self__.uninstrument()
    read = pickle.loads(data)
    assert type(read) is type(read.on_complete) is Message
    assert read.name == plain.name
    assert huey.deserialize_task(data).name == "task"


def test_a_task_that_is_called_where_it_stands_keeps_its_context(instrument, tracer):
    """In immediate mode nothing is handed off."""
    instrument()
    seen = []
    huey = MemoryHuey(immediate=True)
    task = huey.task(name="task")(lambda: seen.append(trace.get_current_span()))
    with tracer.start_as_current_span("origin") as origin:
        task()
    assert seen == [origin]


def test_undo_is_exact():
    """Every attribute that was replaced is what it was, by identity."""
    check_undo(Huey, Registry, Serializer)
