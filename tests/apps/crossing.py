"""Hands work off to other processes, in the way that is named; their spans are kept for export."""

import concurrent.futures
import functools
import multiprocessing
import os
import subprocess
import sys

from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

provider = TracerProvider()
provider.add_span_processor(BatchSpanProcessor(InMemorySpanExporter()))
trace.set_tracer_provider(provider)
tracer = trace.get_tracer("crossing")


def work(name):
    """Make a span."""
    with tracer.start_as_current_span(name):
        pass


def consume(jobs):
    """Make a span for each item."""
    while (job := jobs.get()) is not None:
        with tracer.start_as_current_span(job):
            pass


def by_multiprocessing(method):
    """Hand work off to children."""
    starting = multiprocessing.get_context(method)
    with tracer.start_as_current_span("request"):
        process = starting.Process(target=work, args=("Process.start",))
        process.start()
        process.join(60)
        with starting.Pool(1) as pool:
            pool.apply(work, ("Pool.apply",))
            pool.map(work, ["Pool.map"])
            list(pool.imap(work, ["Pool.imap"]))
        with concurrent.futures.ProcessPoolExecutor(1, mp_context=starting) as executor:
            executor.submit(work, "ProcessPoolExecutor.submit").result(60)
            list(executor.map(functools.partial(work), ["ProcessPoolExecutor.map"]))
    jobs, simple = starting.Queue(), starting.SimpleQueue()
    for name, items in (("Queue.put", jobs), ("SimpleQueue.put", simple)):
        consumer = starting.Process(target=consume, args=(items,))
        consumer.start()
        with tracer.start_as_current_span("request"):
            items.put(f"multiprocessing.{name}")
        items.put(None)
        consumer.join(60)


def by_fork():
    """Fork."""
    with tracer.start_as_current_span("request"):
        child = os.fork()
        if child == 0:
            work("os.fork")
            provider.force_flush()
            os._exit(0)
        os.waitpid(child, 0)


def by_command():
    """Run this program once more."""
    with tracer.start_as_current_span("request"):
        subprocess.run([sys.executable, __file__, "itself"], check=True)


if __name__ == "__main__":
    way = sys.argv[1]
    if way == "itself":
        work("subprocess.run")
    elif way == "command":
        by_command()
    elif way == "os.fork":
        by_fork()
    else:
        by_multiprocessing(way)
