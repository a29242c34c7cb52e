"""A pipe between two processes: what is sent has the headers of whoever sends it.

The same goes for `multiprocessing.connection.Listener` and `Client`, and for any other stream.
"""

from __future__ import annotations

import multiprocessing
from multiprocessing.connection import Connection

from opentelemetry import trace

from otel_concurrency import HandOff, capture

tracer = trace.get_tracer("example")


def answer(connection: Connection) -> None:
    """Answer every question, each in the context of whoever asks, until there is None."""
    while (question := connection.recv()) is not None:
        headers, number = question
        with HandOff.from_headers(headers), tracer.start_as_current_span(f"square {number}"):
            connection.send(number * number)


def main() -> None:
    """Ask another process two questions, each from a request of its own."""
    spawn = multiprocessing.get_context("spawn")
    here, there = spawn.Pipe()
    process = spawn.Process(target=answer, args=(there,))
    process.start()
    for number in (2, 3):
        with tracer.start_as_current_span(f"request {number}"):
            here.send((capture().headers(), number))
            here.recv()
    here.send(None)
    process.join()


if __name__ == "__main__":
    main()
