"""What workers of pools and consumers of queues run: they can import it, and it says what it saw.

It knows nothing of the library, so that it runs the same in a process that has none.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import time
from multiprocessing.queues import Queue, SimpleQueue

from opentelemetry import baggage, context, trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

tracer = TracerProvider(shutdown_on_exit=False).get_tracer("pool_work")

NOTHING = (None, None, False)
"""What is seen where there is no context."""


def look(*_args, **_kwargs):
    """Return the parent of a span that is made here, the baggage, and whether the parent is live.

    Whatever it is called with: an argument stands for the item of a map.
    """
    span = tracer.start_span("work")
    span.end()
    parent = span.parent and span.parent.span_id
    return parent, baggage.get_baggage("key"), trace.get_current_span().is_recording()


def look_and_forget(*_args):
    """Look, then attach a context and leave it there."""
    seen = look()
    context.attach(trace.set_span_in_context(tracer.start_span("forgotten")))
    context.attach(baggage.set_baggage("key", "forgotten"))
    return seen


def fail(*args):
    """Raise."""
    look_and_forget()
    raise LookupError(*args)


def fail_badly(*args):
    """Raise what cannot be pickled."""
    raise LookupError(lambda: None)


def adopt_an_item(*_args):
    """Get an item of another producer, and leave without being done with it."""
    import queue

    items = queue.Queue()
    with tracer.start_as_current_span("producer"):
        items.put("item")
    items.get()
    return look()


class Unpicklable:
    """Fails to pickle in a way of its own."""

    def __call__(self):
        """Be callable."""

    def __reduce__(self):
        raise RuntimeError("not to be pickled")


class Looking:
    """Is, where it is unpickled, what is seen there."""

    def __reduce__(self):
        return look, ()


def unpicklable(*_args):
    """Return what cannot be pickled."""
    return lambda: None


def pid(*_args):
    """Return the id of the process."""
    return os.getpid()


def library(*_args):
    """Return whether this process has the library."""
    return "otel_concurrency" in sys.modules


_base = None


def initialize(*args):
    """Remember what an initializer sees, and make a base context of the worker's own."""
    global _base
    _base = look()
    if args:
        context.attach(baggage.set_baggage("key", *args))


def initialized(*_args):
    """Return what the initializer saw."""
    return _base


# Exporting


class FileExporter(SpanExporter):
    """Writes the names of spans to a file, a line each; it may take its time, or for ever."""

    def __init__(self, path, pause=0.0):
        self._path = path
        self._pause = pause

    def export(self, spans):
        """Append to the file."""
        time.sleep(self._pause)
        with open(self._path, "a", encoding="utf-8") as file:
            file.writelines(f"{span.name}\n" for span in spans)
        return SpanExportResult.SUCCESS


def export_to(path, pause=0.0):
    """Set a provider up that exports in batches, and none before the end of the test."""
    provider = TracerProvider()
    exporter = FileExporter(path, pause)
    provider.add_span_processor(BatchSpanProcessor(exporter, schedule_delay_millis=600_000))
    trace.set_tracer_provider(provider)


def record(number):
    """Make a span that is to be exported."""
    with trace.get_tracer("record").start_as_current_span(f"work {number}"):
        return os.getpid()


def record_and_wait(started, number):
    """Make a span, say so, and go on for longer than any test."""
    record(number)
    os.close(os.open(started, os.O_CREAT))
    time.sleep(600)


# Queues


class Stamped(Queue):
    """Puts something else than it is given, and gives what it was given."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, ctx=multiprocessing.get_context("fork"), **kwargs)

    def put(self, obj, block=True, timeout=None):
        """Put with a stamp."""
        super().put((time.monotonic(), obj), block, timeout)

    def get(self, block=True, timeout=None):
        """Get without the stamp."""
        return super().get(block, timeout)[1]


class Forgiving(Queue):
    """Keeps what could not be sent."""

    lost: list = []  # noqa: RUF012

    def __init__(self, *args, **kwargs):
        super().__init__(*args, ctx=multiprocessing.get_context("fork"), **kwargs)

    @classmethod
    def _on_queue_feeder_error(cls, e, obj):
        cls.lost.append((type(e), obj))


class StampedSimple(SimpleQueue):
    """Puts something else than it is given, and gives what it was given."""

    def __init__(self):
        super().__init__(ctx=multiprocessing.get_context("fork"))

    def put(self, obj):
        """Put with a stamp."""
        super().put((time.monotonic(), obj))

    def get(self):
        """Get without the stamp."""
        return super().get()[1]


def consume(queue, connection):
    """Send each item with what is seen while it is handled; stop at None, and look again."""
    while (item := queue.get()) is not None:
        connection.send((item, look()))
    if hasattr(queue, "task_done"):
        queue.task_done()
    connection.send(("done", look()))


def consume_in_a_span(queue, connection):
    """Consume with a span of its own around the loop; say which one it is."""
    with tracer.start_as_current_span("own") as span:
        connection.send(span.get_span_context().span_id)
        consume(queue, connection)


def produce(put, name):
    """Put two items, each in a span of its own: names and the spans' ids."""
    for number in range(2):
        with tracer.start_as_current_span("producer") as span:
            put((f"{name} {number}", span.get_span_context().span_id))
