"""Starts spans under parents that they belong to, in ways that could look like another's."""

import asyncio
import concurrent.futures
import contextlib
import queue
import sched
import threading

from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider

trace.set_tracer_provider(TracerProvider())
tracer = trace.get_tracer("belonging")


def work(name):
    """Make a span."""
    with tracer.start_as_current_span(name):
        pass


@contextlib.contextmanager
def operation(name):
    """Make a span for the body of a `with` statement."""
    with tracer.start_as_current_span(name):
        yield


@contextlib.asynccontextmanager
async def async_operation(name):
    """Make a span for the body of an `async with` statement."""
    with operation(name):
        await asyncio.sleep(0)
        yield


def bodies_of_generators():
    """Work in the body of a context manager, inside a generator that has none of its own."""

    def rows():
        for row in range(2):
            with operation("row"):
                work("part of a row")
            yield row

    with operation("request"), contextlib.ExitStack() as stack:
        stack.enter_context(operation("held"))
        for _ in rows():
            work("of the request")


def generators_that_are_closed():
    """Leave a generator early; afterwards the consumer is in its own span."""

    def rows():
        with tracer.start_as_current_span("rows"):
            yield from range(3)

    with operation("request that breaks off"):
        for _ in rows():
            break
        work("after the break")


def spans_that_are_handed_out():
    """Make a span current that a generator has started and handed out."""

    def opened():
        for number in range(2):
            yield tracer.start_span(f"handed out {number}")

    for span in opened():
        with trace.use_span(span, end_on_exit=True):
            work("in what was handed out")


async def tasks_of_generators():
    """Begin a task in a generator's span; it goes on while the generator is suspended."""
    may_go_on = asyncio.Event()

    async def part():
        await may_go_on.wait()
        work("part of a stream")

    async def stream():
        with tracer.start_as_current_span("stream"):
            task = asyncio.create_task(part())
            thread = asyncio.get_running_loop().run_in_executor(None, int)
            yield
            await asyncio.gather(task, thread)

    async for _ in stream():
        may_go_on.set()
        await asyncio.sleep(0.01)
    async with async_operation("body"):
        work("in a body")


def things_of_a_pool():
    """Go on with a request in the background, with connections that others have put back."""
    connections = queue.Queue()
    for connection in (object(), object()):
        connections.put(connection)
    has_ended = threading.Event()

    def use(name):
        connection = connections.get()
        work(name)
        connections.put(connection)

    def background():
        has_ended.wait(30)
        for _ in range(4):
            use("query in the background")
        work("at the end of the background")

    thread = threading.Thread(target=background)
    with tracer.start_as_current_span("request with a background"):
        thread.start()
    for number in range(3):
        with tracer.start_as_current_span(f"other request {number}"):
            use("query")
    has_ended.set()
    thread.join(30)


def results_that_come_late():
    """Collect what the request has handed off, after its end."""
    results, has_ended = queue.Queue(), threading.Event()

    def compute(number):
        with tracer.start_as_current_span("compute"):
            results.put(number)

    def collect():
        has_ended.wait(30)
        for _ in range(3):
            results.get(timeout=30)
            work("use a result")
        work("use all results")

    with tracer.start_as_current_span("request that collects late"):
        thread = threading.Thread(target=collect)
        thread.start()
        with concurrent.futures.ThreadPoolExecutor(2) as executor:
            list(executor.map(compute, range(3)))
    has_ended.set()
    thread.join(30)


def actions_of_a_request():
    """Run late what was entered in the request that has started the thread."""
    scheduler, has_ended = sched.scheduler(), threading.Event()

    def loop():
        has_ended.wait(30)
        scheduler.run()

    thread = threading.Thread(target=loop)
    with tracer.start_as_current_span("request that schedules"):
        scheduler.enter(0, 1, work, ("action",))
        thread.start()
    has_ended.set()
    thread.join(30)


bodies_of_generators()
generators_that_are_closed()
spans_that_are_handed_out()
asyncio.run(tasks_of_generators())
things_of_a_pool()
results_that_come_late()
actions_of_a_request()
