"""A forked child does not wait for a lock of this library that a thread of its parent has held."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from otel_concurrency._generators import monitoring

PROGRAM = """
import gc, os, signal, threading
from opentelemetry.sdk.trace import TracerProvider
from otel_concurrency import ConcurrencyInstrumentor, _instrumentor, _official_threading
from otel_concurrency._generators.monitoring import Tool

ConcurrencyInstrumentor().instrument()
tracer = TracerProvider(shutdown_on_exit=False).get_tracer("program")
held, done = threading.Event(), threading.Event()


def hold():
    with {lock}:
        held.set()
        done.wait()


def generate():
    with tracer.start_as_current_span("held"):
        yield


thread = threading.Thread(target=hold)
thread.start()
held.wait()
child = os.fork()
if not child:
    signal.alarm(20)  # ends it, if it waits for ever
    {step}
    os._exit(0)
print(os.waitpid(child, 0)[1])
done.set()
thread.join()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there are no forks here")
@pytest.mark.parametrize(
    ("lock", "step"),
    [
        ("_instrumentor.primitives_in_use['sched']._lock", "import sched"),
        (
            "_instrumentor.primitives_in_use['sched']._lock",
            "ConcurrencyInstrumentor().uninstrument()",
        ),
        ("_official_threading._lock", "ConcurrencyInstrumentor().uninstrument()"),
        pytest.param(
            "next(one for one in gc.get_objects() if type(one) is Tool)._lock",
            "next(generate())",
            marks=pytest.mark.skipif(
                not monitoring.IS_THERE, reason="nothing is heard of generators there"
            ),
        ),
    ],
    ids=["a module is imported", "switched off", "the official one", "a generator"],
)
def test_a_child_goes_on_where_a_thread_of_its_parent_held_a_lock(lock, step):
    """The thread is not there to release it."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(lock=lock, step=step)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "0"
