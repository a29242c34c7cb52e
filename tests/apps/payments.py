"""A payment handler that hands work on in every way that the standard library offers.

Not a line of it knows otel-concurrency. Every piece of work makes one span, named after the way it
was handed on, with the order that it finds in the baggage. All of it is handed on twice: inside the
span ``validate_payment``, and then, ``", next"``, to the same workers with no context at all.
"""

import _thread
import asyncio
import collections
import concurrent.futures
import logging.handlers
import queue
import sched
import threading

from opentelemetry import baggage, context, trace

tracer = trace.get_tracer("payments")


def work(name):
    """Make a span that tells which order it was made for."""
    with tracer.start_as_current_span(name) as span:
        order = baggage.get_baggage("order")
        if order is not None:
            span.set_attribute("order", order)


def fulfil(name):
    """Work, under a name of its own."""
    work(name)


class Shipment(threading.Thread):
    """Overrides ``run`` and never calls super."""

    def __init__(self, name):
        super().__init__()
        self._work = name

    def run(self):
        work(self._work)


class HomeMadeExecutor(concurrent.futures.Executor):
    """Runs its work on one thread, which it starts when it is made."""

    def __init__(self):
        self._waiting = collections.deque()
        self._ready = threading.Semaphore(0)
        threading.Thread(target=self._run, daemon=True).start()

    def submit(self, fn, /, *args, **kwargs):
        future = concurrent.futures.Future()
        self._waiting.append((future, fn, args, kwargs))
        self._ready.release()
        return future

    def _run(self):
        while True:
            self._ready.acquire()
            future, fn, args, kwargs = self._waiting.popleft()
            future.set_result(fn(*args, **kwargs))


class Handler(logging.Handler):
    """Makes a span of every record, on the thread of its listener."""

    def emit(self, record):
        work(record.getMessage())


def raw_thread(name, finished):
    """Work on a thread that nobody can join."""
    work(name)
    finished.set()


async def notify(name):
    """Work in a task."""
    work(name)


executor = concurrent.futures.ThreadPoolExecutor(1, initializer=work, initargs=("initializer",))
used_before = concurrent.futures.ThreadPoolExecutor(1)
home_made = HomeMadeExecutor()
scheduler = sched.scheduler()
settled = concurrent.futures.Future()


async def hand_on(suffix):
    """Hand one piece of work on in each way, and wait for all that can be waited for here."""
    loop = asyncio.get_running_loop()

    threads = [
        threading.Thread(target=work, args=("Thread" + suffix,)),
        Shipment("Thread subclass" + suffix),
        threading.Timer(0.01, work, ("Timer" + suffix,)),
    ]
    for thread in threads:
        thread.start()
    finished = threading.Event()
    _thread.start_new_thread(raw_thread, ("start_new_thread" + suffix, finished))

    executor.submit(fulfil, "submit" + suffix).result(30)
    list(executor.map(work, ["map" + suffix]))
    used_before.submit(work, "submit to a used pool" + suffix).result(30)
    settled.add_done_callback(lambda _: work("done-callback" + suffix))
    scheduler.enter(0, 1, work, ("scheduler" + suffix,))

    await loop.run_in_executor(None, work, "run_in_executor" + suffix)
    await loop.run_in_executor(home_made, work, "run_in_executor, home-made" + suffix)
    await asyncio.to_thread(work, "to_thread" + suffix)
    await asyncio.create_task(notify("create_task" + suffix))

    records = queue.SimpleQueue()
    listener = logging.handlers.QueueListener(records, Handler())
    listener.start()
    records.put(logging.makeLogRecord({"msg": "QueueListener" + suffix}))
    listener.stop()

    for thread in threads:
        thread.join(30)
    finished.wait(30)


async def handle_order():
    """Validate a payment, then go on with nothing attached."""
    default_executor = concurrent.futures.ThreadPoolExecutor(1)
    asyncio.get_running_loop().set_default_executor(default_executor)
    used_before.submit(int).result(30)

    token = context.attach(baggage.set_baggage("order", "1042"))
    with tracer.start_as_current_span("validate_payment"):
        await hand_on("")
    context.detach(token)
    await hand_on(", next")

    elsewhere = threading.Thread(target=scheduler.run)
    elsewhere.start()
    elsewhere.join(30)
    executor.submit(settled.set_result, None).result(30)


if __name__ == "__main__":
    asyncio.run(handle_order())
