"""What other processes and interpreters run: they can import it, and it returns plain values."""

from __future__ import annotations

import functools
import multiprocessing
import queue
import sys
import threading
import time
from multiprocessing.managers import BaseManager
from multiprocessing.util import Finalize
from typing import NamedTuple

from opentelemetry import baggage, context, trace


class Sight(NamedTuple):
    """What a piece of work was run in, as told by a span that it made."""

    trace: int | None = None
    """The trace of its span, if that is its parent's."""
    parent: int | None = None
    """The id of its span's parent."""
    baggage: tuple[tuple[str, object], ...] = ()
    links: tuple[tuple[int, str, str], ...] = ()
    """The span id of each link of its span, its reason and its primitive."""
    records: bool = False
    """Whether what was current is a span that records, and not the description of one."""


NOTHING = Sight()
"""What work sees that runs without a context."""


@functools.cache
def tracer():
    """Return this process's tracer."""
    from opentelemetry.sdk.trace import TracerProvider

    return TracerProvider(shutdown_on_exit=False).get_tracer("work")


def look_after(seconds):
    """Make a span at once, and another one after ``seconds``; return what both are run in."""
    first = look()
    time.sleep(seconds)
    return first, look()


def look(*_):
    """Make a span; return what this is run in."""
    records = trace.get_current_span().is_recording()
    with tracer().start_as_current_span("work") as span:
        pass
    return Sight(
        trace=span.parent and span.context.trace_id,
        parent=span.parent and span.parent.span_id,
        baggage=tuple(sorted(baggage.get_all().items())),
        links=tuple(
            (
                link.context.span_id,
                link.attributes["otel_concurrency.link.reason"],
                link.attributes.get("otel_concurrency.link.primitive", ""),
            )
            for link in span.links
        ),
        records=records,
    )


def look_and_forget(*_):
    """Look, attach a context, and forget to detach it."""
    seen = look()
    context.attach(trace.set_span_in_context(tracer().start_span("forgotten")))
    context.attach(baggage.set_baggage("forgotten", "yes"))
    return seen


def look_and_fail(*_):
    """Raise what was seen."""
    raise LookupError(look_and_forget())


def look_alone():
    """Look, under a name that can be excluded."""
    return look()


def look_without_the_library():
    """Look, where the library could not be imported."""
    assert "otel_concurrency._core.handoff" not in sys.modules
    return look()


def look_from_a_process(method):
    """Return what a process of this process sees."""
    context = multiprocessing.get_context(method)
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=send, args=(sender, look))
    process.start()
    assert receiver.poll(60)
    seen = receiver.recv()
    process.join(60)
    return seen


def sdk_and_provider():
    """Return whether the SDK is imported, and the kind of the global provider."""
    return "opentelemetry.sdk" in sys.modules, type(trace.get_tracer_provider()).__name__


def attach_base(value):
    """Attach baggage for as long as the process lives, if nothing is there: an initializer."""
    assert not context.get_current()
    context.attach(baggage.set_baggage("base", value))


def without_last(work, *args):
    """Return what ``work`` returns for all arguments but the last: the item of a map."""
    return work(*args[:-1])


def look_at_the_end(connection):
    """Look here, and send what is seen when the process ends."""
    Finalize(None, lambda: connection.send(look()), exitpriority=10)
    return look()


def consume():
    """Look as the consumer of an item that was put in a span; return that span's id too."""
    items = queue.Queue()
    with tracer().start_as_current_span("producer") as producer:
        items.put("item")
    items.get()
    return producer.get_span_context().span_id, look()


def returns(value):
    """Return the argument."""
    return value


def returns_a_lock():
    """Return what cannot be sent back."""
    return threading.Lock()


def pause(seconds):
    """Take some time."""
    time.sleep(seconds)


def send(connection, work, *args):
    """Send what ``work`` returns."""
    connection.send(work(*args))


def as_instrumented(*_):
    """Return whether this process is instrumented, and with what settings, as keywords."""
    from otel_concurrency import ConcurrencyInstrumentor, _settings

    settings = _settings.in_force
    return (
        ConcurrencyInstrumentor().is_instrumented_by_opentelemetry,
        None if settings is None else settings.as_keywords(),
    )


_found = []


def find_out():
    """Keep in mind how this process is instrumented: for an initializer."""
    _found.append(as_instrumented())


def find_out_and_look():
    """Keep in mind what this is run in too."""
    _found.append((as_instrumented(), look()))


def found_out():
    """Return what the initializer found."""
    return _found[0]


def instrument_and_look(settings):
    """Instrument by hand, as a program may do in each of its processes; return the outcome."""
    from otel_concurrency import ConcurrencyInstrumentor

    ConcurrencyInstrumentor().instrument(**settings)
    return as_instrumented()


def look_from_a_thread():
    """Return what a thread of this process sees."""
    seen = []
    thread = threading.Thread(target=lambda: seen.append(look()))
    thread.start()
    thread.join(30)
    return seen[0]


def attributes_of_own_process():
    """Return the names of the library's attributes on the current process object."""
    return [name for name in vars(multiprocessing.current_process()) if "otel" in name]


class _Sending:
    def __init__(self, connection, work, *args):
        super().__init__()
        self.connection = connection
        self.work = work
        self.work_args = args

    def run(self):
        """Send what the work returns."""
        send(self.connection, self.work, *self.work_args)


class Forked(_Sending, multiprocessing.get_context("fork").Process):
    """A process with a ``run`` of its own."""


class Served(_Sending, multiprocessing.get_context("forkserver").Process):
    """A process with a ``run`` of its own."""


class Spawned(_Sending, multiprocessing.get_context("spawn").Process):
    """A process with a ``run`` of its own."""


SUBCLASSES = {"fork": Forked, "forkserver": Served, "spawn": Spawned}


class LookingManager(BaseManager):
    """A manager whose process tells what it is in."""


LookingManager.register("look", look)


def look_into(queue):
    """Look, and put what was seen into a queue."""
    queue.put(tuple(look()))


def get_and_look(queue, count):
    """Get items; return each with what its consumer is in."""
    return [(queue.get(), look()) for _ in range(count)]


def put_all(queue, items):
    """Put items."""
    for item in items:
        queue.put(item)


_counted = []


def count_and_return_a_lock():
    """Note that it was called, and return what cannot cross."""
    _counted.append(1)
    return threading.Lock()


def counted():
    """Return how often that was called."""
    return len(_counted)
