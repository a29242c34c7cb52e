"""A generator made in a request, and read by another thread, keeps its body in the request."""

from __future__ import annotations

import threading
from collections.abc import Iterator

from opentelemetry import trace

from otel_concurrency import wrap

tracer = trace.get_tracer("example")


def read_rows(count: int) -> Iterator[int]:
    """Read row after row, each in a span."""
    for number in range(count):
        with tracer.start_as_current_span(f"read row {number}"):
            row = number
        yield row


def send(rows: Iterator[int]) -> None:
    """Send rows as they come: no part of the request, whatever the generator is in meanwhile."""
    for row in rows:
        with tracer.start_as_current_span(f"send row {row}"):
            pass


def main() -> None:
    """Hand a generator to another thread inside a request."""
    with tracer.start_as_current_span("request"):
        rows = wrap(read_rows)(2)
    thread = threading.Thread(target=send, args=(rows,))
    thread.start()
    thread.join()


if __name__ == "__main__":
    main()
