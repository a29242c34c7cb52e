"""What every request of the test services hands on.

Each piece of work makes one span that records the request that it finds in the baggage. Nothing is
waited for: most of it runs while other requests are being served, or after the response.
"""

import concurrent.futures
import sched
import threading

from opentelemetry import baggage, trace

tracer = trace.get_tracer("service")

executor = concurrent.futures.ThreadPoolExecutor(3)
scheduler = sched.scheduler()
_threads = []
_futures = []


def work(name):
    """Make a span that tells which request it was made for."""
    with tracer.start_as_current_span(name) as span:
        span.set_attribute("request", str(baggage.get_baggage("request")))


def start(thread):
    """Start ``thread`` and remember to wait for it."""
    _threads.append(thread)
    thread.start()


def hand_on():
    """Hand work on to a pool, a thread, a timer, a callback and a scheduler."""
    future = executor.submit(pooled)
    _futures.append(future)
    future.add_done_callback(lambda _: work("done-callback"))
    start(threading.Thread(target=work, args=("Thread",)))
    start(threading.Timer(0.01, work, ("Timer",)))
    for _ in executor.map(work, ["map"]):
        pass
    scheduler.enter(0, 1, work, ("scheduler",))


def pooled():
    """Work in the pool that hands on in its turn."""
    with tracer.start_as_current_span("submit") as span:
        span.set_attribute("request", str(baggage.get_baggage("request")))
        start(threading.Thread(target=work, args=("Thread of submit",)))
        executor.submit(work, "submit of submit")


def finish():
    """Run what is scheduled and wait for all the rest."""
    scheduler.run()
    while _futures:  # one that has not run yet hands work on to the pool, which must be open
        _futures.pop().result(30)
    while _threads:
        _threads.pop().join(30)
    executor.shutdown()
    trace.get_tracer_provider().force_flush()
