"""A connection that is opened by the first request, and lives on when that is over.

Its heartbeat would otherwise be a part of that request for as long as the program runs.
"""

from __future__ import annotations

import functools
import threading

from opentelemetry import trace

from otel_concurrency import clean

tracer = trace.get_tracer("example")


class Connection:
    """Sends a heartbeat from a thread of its own."""

    def __init__(self, host: str) -> None:
        self._host = host
        self._beaten = threading.Event()
        threading.Thread(target=self._beat, daemon=True).start()

    def query(self, text: str) -> None:
        """Ask the host something: as a part of whoever asks."""
        with tracer.start_as_current_span(f"query {text}"):
            self._beaten.wait()

    def _beat(self) -> None:
        with tracer.start_as_current_span(f"heartbeat to {self._host}"):
            pass
        self._beaten.set()


@functools.lru_cache
def connection(host: str) -> Connection:
    """Return the connection to ``host``, which is opened once."""
    with clean():
        return Connection(host)


def main() -> None:
    """Handle two requests, the first of which opens the connection."""
    for number in (1, 2):
        with tracer.start_as_current_span(f"request {number}"):
            connection("db").query(str(number))


if __name__ == "__main__":
    main()
