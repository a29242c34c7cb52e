"""watchdog: handlers of file events, which belong to nobody; its threads need no adapter."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from opentelemetry import context, trace
from suite import WAIT
from watchdog.events import FileCreatedEvent, FileSystemEventHandler
from watchdog.observers import Observer
from watchdog.observers.polling import PollingObserver


class _Handler(FileSystemEventHandler):
    def __init__(self, handle):
        self.handle = handle
        self.seen = {}
        self.created = threading.Event()

    def on_created(self, event):
        self.seen[event.src_path] = self.handle()
        self.created.set()

    def wait_for(self, path):
        path.write_text("")
        assert self.created.wait(WAIT)
        self.created.clear()
        return self.seen[str(path)]


@pytest.fixture(params=[Observer, PollingObserver])
def observe(request, tmp_path, tracer):
    """Return a function that observes a directory, from within a span that goes on."""
    observer = request.param(timeout=0.05)

    def observe(handle):
        handler = _Handler(handle)
        observer.schedule(handler, str(tmp_path))
        observer.start()
        return handler

    yield observe
    observer.stop()
    observer.join()


def test_an_event_is_nobodys(observe, tmp_path, instrument, tracer):
    """Neither whoever started the observer nor whoever wrote the file lends it a context."""
    instrument()
    with tracer.start_as_current_span("starter"):
        handler = observe(context.get_current)
        for name in ("one", "two"):
            with tracer.start_as_current_span("writer"):
                assert not handler.wait_for(tmp_path / name)


def test_what_a_handler_hands_off_is_its_own_spans_child(observe, tmp_path, instrument, tracer):
    """One trace for each event, into a pool."""
    instrument()
    with ThreadPoolExecutor(1) as pool:

        def handle():
            with tracer.start_as_current_span("event", context=context.Context()) as event:
                return event, pool.submit(trace.get_current_span).result(WAIT)

        handler = observe(handle)
        for name in ("one", "two"):
            event, seen = handler.wait_for(tmp_path / name)
            assert event is seen
            assert event.parent is None


def test_an_event_that_the_program_queues_itself_goes_with_its_context(
    observe, tmp_path, instrument, tracer
):
    """Queued inside a span, it is handled there, as an item of any queue is."""
    instrument()
    handler = observe(trace.get_current_span)
    (emitter,) = observer_of(observe).emitters
    with tracer.start_as_current_span("origin") as origin:
        emitter.queue_event(FileCreatedEvent(str(tmp_path / "not there")))
    assert handler.created.wait(WAIT)
    assert handler.seen[str(tmp_path / "not there")] is origin


def observer_of(observe):
    """Return the observer that a fixture's function has closed over."""
    return next(
        cell.cell_contents
        for cell in observe.__closure__
        if hasattr(cell.cell_contents, "emitters")
    )
