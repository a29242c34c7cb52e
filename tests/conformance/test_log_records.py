"""A record that is logged through a queue is handled in the context in which it was logged."""

from __future__ import annotations

import logging
import logging.handlers
import queue
import threading

import pytest
from forms import WAIT, without_context
from opentelemetry import baggage
from opentelemetry.context import attach, detach, get_current, set_value

from interpreters import weak_reference
from otel_concurrency import ConcurrencyInstrumentor
from otel_concurrency._core import handoff
from otel_concurrency._primitives import _logging

NOTHING = (None, None)
CLASSES = (logging.handlers.QueueHandler, logging.handlers.QueueListener)


class AsItIs(logging.handlers.QueueHandler):
    """Sends the very record, as those do who stay in their process."""

    def prepare(self, record):
        return record


class ByPut(logging.handlers.QueueHandler):
    def enqueue(self, record):
        self.queue.put(record)


class AsText(logging.handlers.QueueHandler):
    def prepare(self, record):
        return record.getMessage()


class Equal(logging.LogRecord):
    """Is equal to every other."""

    __hash__ = None

    def __eq__(self, other):
        return True


class Journal:
    """Logs through a queue, and keeps what its handler has seen around it, in the other thread."""

    def __init__(self, spans, kind="Queue", sender=logging.handlers.QueueHandler):
        self.spans = spans
        self.records = getattr(queue, kind)()
        self.logger = logging.Logger("records")
        self.logger.addHandler(sender(self.records))
        self.seen = []
        self.kept = []
        self.during = lambda: None
        self.handled = threading.Semaphore(0)
        journal = self

        class Handler(logging.Handler):
            def handle(self, record):
                journal.seen.append((journal.spans.parent(), baggage.get_baggage("tenant")))
                journal.kept.append(record)
                try:
                    journal.during()
                finally:
                    journal.handled.release()

        self.listener = logging.handlers.QueueListener(self.records, Handler())

    def log(self, name=None):
        """Log inside a span of this name, with baggage; return a weak reference to the context."""
        return without_context(self._log, name)

    def _log(self, name):
        if name is None:
            self.logger.warning("a record")
            return None
        attach(baggage.set_baggage("tenant", f"of {name}"))
        with self.spans.current(name):
            self.logger.warning("a record")
            return weak_reference(get_current())

    def __enter__(self):
        self.listener.start()
        return self

    def __exit__(self, *exc_info):
        self.listener.stop()

    def wait(self):
        """Wait until one more record has been handled."""
        assert self.handled.acquire(timeout=WAIT)


@pytest.mark.parametrize("kind", ["Queue", "SimpleQueue", "LifoQueue"])
@pytest.mark.parametrize("sender", [logging.handlers.QueueHandler, AsItIs, ByPut])
def test_a_record_keeps_the_context_in_which_it_was_logged(kind, sender, spans, instrumented):
    """Handlers behind the queue see the span and the baggage of who has logged, or nobody's."""
    with Journal(spans, kind, sender) as journal:
        for name in ("a", None, "b"):
            journal.log(name)
            journal.wait()
    assert journal.seen == [("a", "of a"), NOTHING, ("b", "of b")]
    assert not _logging._on_their_way


def test_a_listener_never_lends_its_own(spans, instrumented):
    """It is in no context, whoever has started it, and whatever it has handled."""
    journal = Journal(spans)
    with spans.current("starter"):
        journal.listener.start()
    journal.log()
    journal.wait()
    journal.log("a")
    journal.wait()
    journal.records.put(logging.makeLogRecord({}))
    journal.wait()
    journal.listener.stop()
    assert journal.seen == [NOTHING, ("a", "of a"), NOTHING]


def test_what_a_handler_forgets_to_detach_is_not_for_the_next_record(spans, instrumented):
    """Nor is what it has attached to handle one that was logged in no context."""
    with Journal(spans) as journal:
        journal.during = lambda: attach(baggage.set_baggage("tenant", "left behind"))
        for name in ("a", None, None):
            journal.log(name)
            journal.wait()
    assert journal.seen == [("a", "of a"), NOTHING, NOTHING]


def test_a_handler_that_raises_leaves_nothing_behind(spans, instrumented):
    """The exception is the program's, and the context is detached."""
    journal = Journal(spans)

    def fail():
        raise ZeroDivisionError

    journal.during = fail
    journal.log("a")
    with pytest.raises(ZeroDivisionError):
        journal.listener.handle(journal.records.get())
    assert journal.seen == [("a", "of a")]
    assert not get_current()


def test_a_context_is_gone_when_its_record_is_handled(spans, instrumented, no_collector):
    """The listener that waits, and who keeps records, keep no context alive."""
    with Journal(spans) as journal:
        references = [journal.log("a"), journal.log("b")]
        journal.wait()
        journal.wait()
        journal.log()
        journal.wait()  # it is done with the one before
        assert [reference() for reference in references] == [None, None]
        assert len(journal.kept) == 3


def test_a_context_is_gone_when_its_record_is(spans, instrumented, no_collector):
    """A record that nobody has handled takes its context along."""
    journal = Journal(spans)
    reference = journal.log("a")
    assert reference() is not None
    journal.records.get()
    assert reference() is None
    assert not _logging._on_their_way


def test_a_record_is_sent_as_it_is_without_the_library(spans, instrumented):
    """It has no attribute more, which a handler might write out."""
    journal = Journal(spans)
    journal.log("a")
    found = vars(journal.records.get())
    instrumented.uninstrument()
    journal.log("a")
    assert found.keys() == vars(journal.records.get()).keys()


def test_what_is_made_of_a_record_is_handled_too(spans, instrumented):
    """Text and other things that cannot be kept in mind have no context."""
    with Journal(spans, sender=AsText) as journal:
        journal.log("a")
        journal.wait()
    assert (journal.seen, journal.kept) == ([NOTHING], ["a record"])


def test_equal_records_keep_their_own(spans, instrumented):
    """Records are told apart by what they are, not by what they say of themselves."""
    with Journal(spans, sender=AsItIs) as journal:
        journal.logger.makeRecord = lambda *args, **kwargs: Equal(
            "records", logging.WARNING, "path", 1, "a record", None, None
        )
        for name in ("a", None, "b"):
            journal.log(name)
        for _ in range(3):
            journal.wait()
    assert journal.seen == [("a", "of a"), NOTHING, ("b", "of b")]


def test_a_listener_handles_in_the_callers_thread_too(spans, instrumented):
    """Who calls `handle` is in the record's context meanwhile, and in his own afterwards."""
    journal = Journal(spans)
    journal.log("a")
    with spans.current("caller"):
        journal.listener.handle(journal.records.get())
        journal.listener.handle(logging.makeLogRecord({}))
        assert spans.parent() == "caller"
    assert journal.seen == [("a", "of a"), ("caller", None)]


def test_under_link_a_record_has_baggage_and_no_span(spans, instrument):
    """A trace that is only linked is not the record's."""
    instrument(queue="link")
    with Journal(spans) as journal:
        journal.log("a")
        journal.wait()
    assert journal.seen == [(None, "of a")]


@pytest.mark.parametrize("moment", ["never on", "off", "off while records wait"])
def test_switched_off_it_carries_nothing(moment, spans):
    """By its policy, or with all of the library; records that wait are handled all the same."""
    ConcurrencyInstrumentor().instrument(queue="off" if moment == "never on" else "parent")
    journal = Journal(spans)
    if moment == "off":
        ConcurrencyInstrumentor().uninstrument()
    journal.log("a")
    if moment != "off":
        ConcurrencyInstrumentor().uninstrument()
    with journal:
        journal.log("b")
        journal.wait()
        journal.wait()
    assert journal.seen == [NOTHING, NOTHING]


def test_undo_is_exact(spans):
    """The classes have the very attributes that they had."""
    before = [dict(vars(kind)) for kind in CLASSES]
    for _ in range(2):
        ConcurrencyInstrumentor().instrument()
        assert [dict(vars(kind)) for kind in CLASSES] != before
        with Journal(spans) as journal:
            journal.log("a")
            journal.wait()
        ConcurrencyInstrumentor().uninstrument()
        for kind, attributes in zip(CLASSES, before, strict=True):
            assert vars(kind).keys() == attributes.keys()
            assert all(vars(kind)[name] is value for name, value in attributes.items())


def test_a_fault_of_ours_loses_no_record(spans, instrumented, monkeypatch, caplog):
    """It is reported once, and the record is handled without a context."""

    def fail():
        raise ZeroDivisionError

    monkeypatch.setattr(handoff.seams["queue"], "current", fail)
    journal = Journal(spans)
    journal.logger.warning("a record")
    monkeypatch.undo()
    with journal:
        journal.wait()
    assert journal.seen == [NOTHING]
    assert len(caplog.records) == 1


def test_the_sentinel_is_nobodys(spans, instrumented, no_collector):
    """A listener that is stopped inside a span keeps nothing of it."""
    journal = Journal(spans)
    journal.listener.start()

    def stop():
        token = attach(set_value("key", "value"))
        reference = weak_reference(get_current())
        journal.listener.stop()
        detach(token)
        return reference

    reference = without_context(stop)
    assert reference() is None


# --- records that a MemoryHandler holds back ---


class Seeing(logging.Handler):
    """Keeps the message of each record, and what is current while it is handled."""

    def __init__(self, spans):
        super().__init__()
        self._spans = spans
        self.seen = []

    def emit(self, record):
        current = self._spans.parent(), baggage.get_baggage("tenant")
        self.seen.append((record.getMessage(), *current))


def in_request(spans, logger, name):
    """Log in a span of this name, with baggage."""

    def request():
        attach(baggage.set_baggage("tenant", f"of {name}"))
        with spans.current(name):
            logger.warning(name)

    without_context(request)


def test_what_is_held_back_is_handled_where_the_buffer_is_flushed(spans, instrumented):
    """A `MemoryHandler` is no queue: its target sees the context of whoever fills the buffer."""
    behind = Seeing(spans)
    logger = logging.Logger("memory")
    logger.addHandler(logging.handlers.MemoryHandler(2, target=behind))
    for name in ("a", "b"):
        in_request(spans, logger, name)
    assert behind.seen == [("a", "b", "of b"), ("b", "b", "of b")]


def test_in_front_of_the_buffer_each_record_has_its_own_context(spans, instrumented):
    """A handler beside it, as OpenTelemetry's, sees the context of whoever logs."""
    before = Seeing(spans)
    logger = logging.Logger("memory")
    logger.addHandler(before)
    logger.addHandler(logging.handlers.MemoryHandler(2, target=logging.NullHandler()))
    for name in ("a", "b"):
        in_request(spans, logger, name)
    assert before.seen == [("a", "a", "of a"), ("b", "b", "of b")]
