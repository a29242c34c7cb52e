"""A program for libraries that patch the standard library so that its threads are green ones."""

from __future__ import annotations

import _thread
import importlib
import pkgutil

import otel_concurrency

PATCHED = """
import queue, sched, threading
from concurrent.futures import ThreadPoolExecutor

from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider

from otel_concurrency._core import handoff

trace.set_tracer_provider(TracerProvider())
tracer = trace.get_tracer("tests")

def parent():
    span = tracer.start_span("work")
    span.end()
    return span.parent and span.parent.span_id

seen = {}
def see(name):
    seen[name] = parent()

def consumer(q):
    while (item := q.get()) is not None:
        seen[item] = parent()
        q.task_done()

with tracer.start_as_current_span("start"):
    q = queue.Queue()
    worker = threading.Thread(target=consumer, args=(q,))
    worker.start()
    pool = ThreadPoolExecutor(1)
    pool.submit(int).result()

jobs = queue.Queue()
consumers = ThreadPoolExecutor(2)
with trace.use_span(tracer.start_span("goes on")):
    for _ in range(2):
        consumers.submit(consumer, jobs)

ids = {}
kinds = "thread", "timer", "pool", "spawn", "sched", "item", "job"
for n in range(3):
    with tracer.start_as_current_span("origin") as span:
        names = [f"{kind} {n}" for kind in kinds]
        ids.update(dict.fromkeys(names, span.get_span_context().span_id))
        threads = [
            threading.Thread(target=see, args=(names[0],)),
            threading.Timer(0.001, see, (names[1],)),
        ]
        for thread in threads:
            thread.start()
        run(see, names[3])
        pool.submit(see, names[2]).result()
        scheduler = sched.scheduler()
        scheduler.enter(0.001, 1, see, (names[4],))
        run(scheduler.run)
        q.put(names[5])
        jobs.put(names[6])
    q.join()
    jobs.join()
    for thread in threads:
        thread.join()
assert pool.submit(parent).result() is None
pool.shutdown()
for each in (q, jobs, jobs):
    each.put(None)
worker.join()
consumers.shutdown()
assert not any(handoff.bodies.values())
wrong = {name for name in ids if seen.get(name) != ids[name]}
print("wrong:", sorted(wrong))
"""
"""Says what of it was not in the context in which it was handed off.

Where ``run(function, *arguments)`` calls a function in a green thread, and waits for its end.
"""


def check_all_ask_for_the_green_thread():
    """Fail unless all modules of the library ask one function which thread they are in.

    That is not the interpreter's, which knows native threads alone.
    """
    names = [
        module.name
        for module in pkgutil.walk_packages(otel_concurrency.__path__, "otel_concurrency.")
        if not any(part in module.name for part in ("_adapters", "_cli", "_observer", "__"))
    ]
    modules = [importlib.import_module(name) for name in names]
    asked = {vars(module)["get_ident"] for module in modules if "get_ident" in vars(module)}
    assert len(asked) == 1
    assert _thread.get_ident not in asked
