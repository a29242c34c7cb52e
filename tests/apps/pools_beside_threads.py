"""Starts and ends pools, many times over, while other threads make spans without a pause.

Arguments: what its exporter does (``drop`` or ``hang``), and how many rounds. It prints how many
tasks returned what they should.
"""

import concurrent.futures
import itertools
import logging
import multiprocessing
import sys
import threading
import time
import warnings

from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

from otel_concurrency import ConcurrencyInstrumentor

EXPORTER, ROUNDS = sys.argv[1], int(sys.argv[2])


class Exporter(SpanExporter):
    """Does what the arguments say."""

    def export(self, spans):
        if EXPORTER == "hang":
            threading.Event().wait()
        return SpanExportResult.SUCCESS


provider = TracerProvider(shutdown_on_exit=False)
provider.add_span_processor(BatchSpanProcessor(Exporter(), schedule_delay_millis=1))
trace.set_tracer_provider(provider)
tracer = trace.get_tracer("pools")


def work():
    """Make a span in a child."""
    with tracer.start_as_current_span("work"):
        return 1


def executor(context):
    """Use a `ProcessPoolExecutor`."""
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(work).result()


def pool(context):
    """Use a `Pool` that is closed and joined."""
    pool = context.Pool(1)
    result = pool.apply(work)
    pool.close()
    pool.join()
    return result


def terminated(context):
    """Use a `Pool` that is terminated."""
    with context.Pool(1) as pool:
        return pool.apply(work)


def process(context):
    """Use a `Process`."""
    process = context.Process(target=work)
    process.start()
    process.join()
    return process.exitcode + 1


if __name__ == "__main__":
    warnings.simplefilter("ignore", DeprecationWarning)  # CPython's, of forking beside threads
    logging.disable(logging.WARNING)  # the SDK's, of its full queue
    ConcurrencyInstrumentor().instrument(flush_timeout=5_000 if EXPORTER == "drop" else 10)
    context = multiprocessing.get_context("fork")
    done = threading.Event()

    def busy():
        """Make spans until the pools are done with."""
        while not done.is_set():
            with tracer.start_as_current_span("busy"):
                time.sleep(0.001)

    threads = [threading.Thread(target=busy) for _ in range(3)]
    for thread in threads:
        thread.start()
    kinds = itertools.cycle((executor, pool, terminated, process))
    with tracer.start_as_current_span("main"):
        print(sum(run(context) for run in itertools.islice(kinds, ROUNDS)))
    done.set()
    for thread in threads:
        thread.join()
