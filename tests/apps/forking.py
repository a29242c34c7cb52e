"""Forks while work is queued, and hands work on in the parent and in the child."""

import concurrent.futures
import os
import signal
import sys
import threading
import time
import warnings

from opentelemetry import context, trace

tracer = trace.get_tracer("forking")


def work(name):
    """Make a span."""
    with tracer.start_as_current_span(name):
        pass


warnings.simplefilter("ignore", DeprecationWarning)  # CPython's, of forking beside threads
executor = concurrent.futures.ThreadPoolExecutor(1)
may_go_on = threading.Event()
request = tracer.start_span("request")
token = context.attach(trace.set_span_in_context(request))
executor.submit(may_go_on.wait, 30)
queued = executor.submit(work, "queued in the parent")

child = os.fork()
if child == 0:
    with concurrent.futures.ThreadPoolExecutor(1) as its_own:
        its_own.submit(work, "submitted in the child").result()
    thread = threading.Thread(target=work, args=("thread in the child",))
    thread.start()
    thread.join()
    sys.exit(5)

context.detach(token)
request.end()
may_go_on.set()
queued.result(30)
deadline = time.monotonic() + 30
ended, status = os.waitpid(child, os.WNOHANG)
while not ended:
    if time.monotonic() > deadline:  # it may hang in a hook, before its first line
        os.kill(child, signal.SIGKILL)
    time.sleep(0.02)
    ended, status = os.waitpid(child, os.WNOHANG)
sys.exit(os.waitstatus_to_exitcode(status) + 1)
