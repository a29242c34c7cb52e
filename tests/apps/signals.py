"""Counts, and records a span, a count and a log record in a child; argument: its start method."""

import logging
import multiprocessing
import sys

import everywhere  # noqa: F401 - it is under a command that may let go of its children
from opentelemetry import metrics, trace

counter = metrics.get_meter("signals").create_counter("counted")


def work():
    """Record one of each."""
    with trace.get_tracer("signals").start_as_current_span("work"):
        counter.add(1)
        logging.getLogger("signals").warning("logged")


if __name__ == "__main__":
    counter.add(5)
    child = multiprocessing.get_context(sys.argv[1]).Process(target=work)
    child.start()
    child.join()
