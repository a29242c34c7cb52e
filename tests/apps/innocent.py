"""Does nothing wrong, in ways that could look like it."""

import asyncio
import concurrent.futures
import contextlib
import multiprocessing
import queue
import threading

from opentelemetry import baggage, context, trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import SpanKind

trace.set_tracer_provider(TracerProvider())
tracer = trace.get_tracer("innocent")
unsampled = TracerProvider(sampler=ALWAYS_OFF).get_tracer("innocent")
executor = concurrent.futures.ThreadPoolExecutor(2)


def work(name):
    """Make a span."""
    with tracer.start_as_current_span(name):
        pass


def connections_of_a_pool():
    """Take connections in requests, which others have put back."""
    connections = queue.LifoQueue()
    for connection in (object(), object()):
        connections.put(connection)

    def handle(_):
        with tracer.start_as_current_span("request with connections"):
            for _ in range(3):
                connection = connections.get()
                work("query")
                connections.put(connection)

    list(executor.map(handle, range(6)))
    handle(0)


def polls_with_spans_of_their_own():
    """Get an item a round, inside the round's span; some rounds are not sampled."""
    jobs = queue.Queue()

    def poll():
        for of_this_round in (tracer, unsampled) * 3:
            with of_this_round.start_as_current_span("round"):
                jobs.get(timeout=30)
            work("after a round")

    for _ in range(6):
        with tracer.start_as_current_span("request with a job"):
            jobs.put("job")
    thread = threading.Thread(target=poll)
    thread.start()
    thread.join(30)


def items_that_are_done():
    """Say that an item is done, and then do something else."""
    for jobs in (queue.Queue(), multiprocessing.JoinableQueue()):

        def consume(jobs=jobs):
            for _ in range(2):
                work(jobs.get(timeout=30))
                jobs.task_done()
                work("what is not for the item")

        thread = threading.Thread(target=consume)
        thread.start()
        for _ in range(2):
            with tracer.start_as_current_span("request with an item"):
                jobs.put("item")
        thread.join(30)


def results_that_come_back():
    """Collect in a request what others have done for it; it keeps its span."""
    results = queue.Queue()

    def compute(number):
        with tracer.start_as_current_span("compute"):
            results.put(number)

    with tracer.start_as_current_span("request with results"):
        for number in range(3):
            executor.submit(compute, number)
        for _ in range(3):
            results.get(timeout=30)
            work("use the result")


def waiting_for_an_end():
    """Wait for work that was handed off, and then begin something new."""
    done = threading.Event()

    def last():
        with tracer.start_as_current_span("last"):
            done.set()

    with tracer.start_as_current_span("request that is waited for"):
        executor.submit(last)
    done.wait(30)
    work("something new")


def work_that_outlives_its_request():
    """Hand work off in a request that does not wait for it."""
    may_go_on = threading.Event()

    def later():
        may_go_on.wait(30)
        work("later")

    with tracer.start_as_current_span("request that does not wait"):
        future = executor.submit(later)
        thread = threading.Thread(target=later)
        thread.start()
    may_go_on.set()
    future.result(30)
    thread.join()


def contexts_that_are_detached():
    """Attach contexts over hand-offs, and in pieces of work, and detach them."""
    token = context.attach(baggage.set_baggage("tenant", "acme"))
    executor.submit(work, "with baggage").result(30)

    def attaching():
        inner = context.attach(baggage.set_baggage("inner", "yes"))
        try:
            work("attaching")
        finally:
            context.detach(inner)

    executor.submit(attaching).result(30)
    context.detach(token)


def entries():
    """Begin traces where they should: in a server, and on a worker that has nobody's context."""
    executor.submit(work, "on a worker, of nobody").result(30)
    with tracer.start_as_current_span("request beside a server"):

        def serve():
            token = context.attach(context.Context())
            with tracer.start_as_current_span("served", kind=SpanKind.SERVER):
                pass
            context.detach(token)

        executor.submit(serve).result(30)


def gates():
    """Wait until something is ready or goes on again, which a request sees to, and then poll."""
    ready, goes_on, is_up, may_go_on = threading.Event(), threading.Event(), [], []
    state = threading.Condition()
    rounds = queue.Queue()

    def poll_behind_events():
        ready.wait(30)
        while rounds.get(timeout=30):
            goes_on.wait(30)
            work("poll behind events")
            polled.release()

    def poll_behind_a_condition():
        with state:
            while not is_up:
                state.wait(30)
        while rounds.get(timeout=30):
            with state:
                while not may_go_on:
                    state.wait(30)
            work("poll behind a condition")
            polled.release()

    cases = [
        (poll, late) for poll in (poll_behind_events, poll_behind_a_condition) for late in (0, 1)
    ]
    for poll, comes_late in cases:
        polled = threading.Semaphore(0)
        thread = threading.Thread(target=poll)
        ready.clear()
        is_up.clear()
        if not comes_late:
            thread.start()
        with tracer.start_as_current_span("start-up"), state:
            ready.set()
            goes_on.set()
            is_up.append(True)
            may_go_on.append(True)
            state.notify_all()
        if comes_late:
            thread.start()
        for _ in range(3):
            for _ in range(3):
                rounds.put(True)
                polled.acquire(timeout=30)
            goes_on.clear()
            may_go_on.clear()
            rounds.put(True)
            with tracer.start_as_current_span("request to go on"), state:
                goes_on.set()
                may_go_on.append(True)
                state.notify_all()
            polled.acquire(timeout=30)
        rounds.put(False)
        thread.join(30)


def batches():
    """Collect what requests have left, for a batch of its own that has links to them."""
    left, there_is_some, is_done = [], threading.Event(), threading.Event()

    def write():
        while not is_done.is_set():
            there_is_some.wait(30)
            there_is_some.clear()
            batch = [left.pop() for _ in range(len(left))]
            if batch:
                links = [trace.Link(one) for one in batch]
                tracer.start_span("batch", links=links).end()
                work("what comes after a batch")

    thread = threading.Thread(target=write)
    thread.start()
    for _ in range(3):
        with tracer.start_as_current_span("request that leaves something") as span:
            left.append(span.get_span_context())
            there_is_some.set()
    is_done.set()
    there_is_some.set()
    thread.join(30)


def traces_of_their_own():
    """Begin traces on purpose: in an empty context, given to a span or attached."""

    def audit():
        tracer.start_span("audit of its own", context=context.Context()).end()
        token = context.attach(context.Context())
        work("audit")
        executor.submit(work, "hand-off of an audit").result(30)
        context.detach(token)

    with tracer.start_as_current_span("request with audits"):
        audit()
        thread = threading.Thread(target=audit)
        thread.start()
        thread.join()


def poller():
    """Poll, in what `OTEL_PYTHON_CONCURRENCY_EXCLUDED` names."""
    work("poll of a poller that is excluded")


def what_is_excluded():
    """Start in a request what its author wants to have nothing to do with it."""
    with tracer.start_as_current_span("request that starts a poller"):
        thread = threading.Thread(target=poller)
        thread.start()
        thread.join()
        executor.submit(poller).result(30)


async def tasks():
    """Consume in tasks, each without a span of its own."""
    jobs = asyncio.Queue()

    async def consume():
        while (job := await jobs.get()) is not None:
            work(f"job {job}")

    consumer = asyncio.create_task(consume())
    for number in range(3):
        with tracer.start_as_current_span("request with jobs"):
            await jobs.put(number)
            await asyncio.to_thread(work, "on a thread")
    await jobs.put(None)
    await consumer


async def idle_rounds():
    """Ask for an item, give up, and do something else meanwhile."""
    jobs = asyncio.Queue()
    with tracer.start_as_current_span("request with a last job"):
        await jobs.put("last")

    async def consume():
        work(f"job {await jobs.get()}")
        jobs.task_done()
        work("what is not for the job")
        for _ in range(2):
            waiting = asyncio.ensure_future(asyncio.sleep(0.01))
            waiting.add_done_callback(lambda _: consumer.cancel())
            with contextlib.suppress(asyncio.CancelledError):
                await jobs.get()
            work("idle")

    consumer = asyncio.create_task(consume())
    await consumer


connections_of_a_pool()
polls_with_spans_of_their_own()
items_that_are_done()
results_that_come_back()
waiting_for_an_end()
work_that_outlives_its_request()
contexts_that_are_detached()
entries()
gates()
batches()
traces_of_their_own()
what_is_excluded()
asyncio.run(tasks())
asyncio.run(idle_rounds())
executor.shutdown()
