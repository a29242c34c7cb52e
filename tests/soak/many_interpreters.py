"""Hands work off in several interpreters of a process at once; exit status 1 if any goes wrong.

Each has the library, its compiled part and their state to itself. A process of its own runs this,
since an interpreter never frees all of its memory. Up to 3.13 it has one of them at a time: before
3.12 they share a GIL, and in 3.13 several are not safe without the library either.
"""

import sys
import threading

try:
    import _interpreters as interpreters
except ImportError:  # up to 3.12
    import _xxsubinterpreters as interpreters

AT_ONCE = 3 if sys.version_info >= (3, 14) else 1

NOT_ISOLATED = {} if sys.version_info >= (3, 13) else {"isolated": False}
"""Where they share the GIL, an isolated one has no threads."""

WORK = """
import queue
from concurrent.futures import ThreadPoolExecutor

from opentelemetry import trace
from opentelemetry.context import Context, attach, detach
from opentelemetry.sdk.trace import TracerProvider
from otel_concurrency import ConcurrencyInstrumentor


class WorkError(Exception):
    pass


def fail():
    raise WorkError(trace.get_current_span())


def check_submit(pool, span):
    assert pool.submit(trace.get_current_span).result(20) is span
    error = pool.submit(fail).exception(20)
    assert type(error) is WorkError and error.args == (span,)


def check_queue(items, span):
    items.put(span)
    token = attach(Context())
    try:
        assert items.get() is span is trace.get_current_span()
    finally:
        detach(token)


ConcurrencyInstrumentor().instrument()
tracer = TracerProvider(shutdown_on_exit=False).get_tracer("soak")
queues = queue.SimpleQueue(), queue.Queue(), queue.LifoQueue()
with ThreadPoolExecutor(2) as pool:
    for _ in range(50):
        with tracer.start_as_current_span("request") as span:
            check_submit(pool, span)
            for items in queues:
                check_queue(items, span)
        assert pool.submit(trace.get_current_span).result(20) is trace.INVALID_SPAN
ConcurrencyInstrumentor().uninstrument()
"""

wrong = []


def run() -> None:
    """Do the work in a new interpreter."""
    try:
        interpreter = interpreters.create(**NOT_ISOLATED)
        raised = interpreters.run_string(interpreter, WORK)  # up to 3.12 it raises
        interpreters.destroy(interpreter)
    except BaseException as error:
        raised = error
    if raised is not None:
        wrong.append(str(getattr(raised, "formatted", raised)))


threads = [threading.Thread(target=run) for _ in range(AT_ONCE)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
sys.exit("\n".join(wrong) or 0)
