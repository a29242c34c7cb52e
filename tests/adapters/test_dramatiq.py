"""dramatiq: messages over its in-memory broker."""

from __future__ import annotations

import dramatiq
import pytest
from dramatiq.broker import Broker
from dramatiq.brokers.stub import StubBroker
from opentelemetry import context
from queue_suite import Messages
from suite import WAIT, check_undo


class TestMessages(Messages):
    @pytest.fixture(autouse=True)
    def broker(self, work):
        self.broker = StubBroker()
        self.broker.emit_after("process_boot")
        self.actor = dramatiq.actor(
            lambda: self.task(), actor_name="task", broker=self.broker, max_retries=2, min_backoff=1
        )
        yield
        self.broker.close()

    def send(self):
        self.actor.send()

    def work_off(self):
        worker = dramatiq.Worker(self.broker, worker_timeout=10, worker_threads=1)
        worker.start()
        self.broker.join("default", timeout=WAIT * 1000)
        worker.join()
        worker.stop()


class TestDelayed(TestMessages):
    def send(self):
        self.actor.send_with_options(delay=1)


class TestRetried(TestMessages):
    """The first attempt fails; the second one is in the context of the first."""

    @pytest.fixture(autouse=True)
    def failing(self, broker):
        self.failed = set()

    def send(self):
        self.actor.send_with_options(args=(len(self.failed) + id(object()),))

    @pytest.fixture(autouse=True)
    def actor_that_fails(self, failing):
        def work(number):
            if number not in self.failed:
                self.failed.add(number)
                context.attach(context.set_value("forgotten", 1))
                raise ValueError("once")
            self.task()

        self.actor = dramatiq.actor(
            work, actor_name="failing", broker=self.broker, max_retries=2, min_backoff=1
        )


def test_undo_is_exact():
    """Every attribute that was replaced is what it was, by identity."""
    names = vars(dramatiq.worker)
    check_undo(Broker, names.get("WorkerThread") or names["_WorkerThread"])
