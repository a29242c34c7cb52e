"""A program that configures the SDK and otel-concurrency itself, and makes spans in children.

Arguments: what its exporter does (``write``, ``hang`` or ``fail``), the time-out of the flush in
milliseconds, the start method, and what the child does. It prints the names of the spans that were
exported, by whichever process, and the child's exit code.
"""

import multiprocessing
import os
import signal
import sys
import threading
import time

from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

from otel_concurrency import ConcurrencyInstrumentor

EXPORTER, TIMEOUT, METHOD, TASK = sys.argv[1:]


class Exporter(SpanExporter):
    """Does what the arguments say."""

    def export(self, spans):
        if EXPORTER == "hang":
            threading.Event().wait()
        if EXPORTER == "fail":
            raise ValueError("no use")
        os.write(1, "".join(f"{span.name}\n" for span in spans).encode())
        return SpanExportResult.SUCCESS

    def force_flush(self, timeout_millis=30_000):
        return True


class Failing(BatchSpanProcessor):
    """Raises where it is flushed."""

    def force_flush(self, timeout_millis=None):
        if EXPORTER == "fail":
            raise ValueError("no use either")
        return super().force_flush(timeout_millis)


# What a spawned child would do at its exit by itself is not what is looked at here.
provider = TracerProvider(shutdown_on_exit=False)
provider.add_span_processor(Failing(Exporter(), schedule_delay_millis=3_600_000))
trace.set_tracer_provider(provider)
tracer = trace.get_tracer("children")


def returns():
    """End as usual."""
    with tracer.start_as_current_span("work"):
        pass


def leaves_late():
    """End while a thread is still at work."""

    def late():
        time.sleep(0.2)
        returns()

    threading.Thread(target=late).start()


def exits():
    """End by `sys.exit`."""
    returns()
    sys.exit(3)


def raises():
    """End by an exception."""
    returns()
    raise ValueError("the user's")


def is_interrupted():
    """End, and be told to go away meanwhile."""

    def interrupt():
        time.sleep(0.5)
        os.kill(os.getpid(), signal.SIGINT)

    returns()
    threading.Thread(target=interrupt, daemon=True).start()


TASKS = {task.__name__: task for task in (returns, leaves_late, exits, raises, is_interrupted)}


if __name__ == "__main__":
    ConcurrencyInstrumentor().instrument(flush_timeout=int(TIMEOUT))
    context = multiprocessing.get_context(METHOD)
    child = context.Process(target=TASKS[TASK])
    child.start()
    child.join()
    print(child.exitcode)
