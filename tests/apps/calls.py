"""Hands work off by every call of the standard library that stays in its process."""

import _thread
import asyncio
import concurrent.futures
import sched
import threading

from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider

trace.set_tracer_provider(TracerProvider())
tracer = trace.get_tracer("calls")


def work(name):
    """Make a span."""
    with tracer.start_as_current_span(name):
        pass


async def asynchronous():
    """Hand work off from an event loop."""
    with tracer.start_as_current_span("request of a loop"):
        await asyncio.to_thread(work, "asyncio.to_thread")
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(None, work, "loop.run_in_executor")


executor = concurrent.futures.ThreadPoolExecutor(2)
scheduler = sched.scheduler()
raw_is_done = threading.Event()
callback_is_registered = threading.Event()


def raw():
    """Do the work of a thread that nobody can join."""
    work("_thread.start_new_thread")
    raw_is_done.set()


def submitted(name):
    """Work, but not before there is somebody to call back."""
    callback_is_registered.wait(30)
    work(name)


with tracer.start_as_current_span("request"):
    thread = threading.Thread(target=work, args=("Thread.start",))
    thread.start()
    timer = threading.Timer(0, work, ("Timer.start",))
    timer.start()
    _thread.start_new_thread(raw, ())
    future = executor.submit(submitted, "ThreadPoolExecutor.submit")
    future.add_done_callback(lambda _: work("Future.add_done_callback"))
    callback_is_registered.set()
    list(executor.map(work, ["ThreadPoolExecutor.map"]))
    scheduler.enter(0, 1, work, ("scheduler.enter",))
scheduler.run()
thread.join()
timer.join()
raw_is_done.wait(30)
executor.shutdown()
asyncio.run(asynchronous())
