"""A writer that collects rows of several requests, and writes them at once."""

from __future__ import annotations

import sqlite3

from opentelemetry import trace

from otel_concurrency import HandOff, batch, capture

tracer = trace.get_tracer("example")


class Writer:
    """Writes rows to a table, three at a time."""

    SIZE = 3

    def __init__(self, table: sqlite3.Connection) -> None:
        self._table = table
        self._rows: list[tuple[HandOff, str]] = []

    def add(self, row: str) -> None:
        """Take a row, and write what there is if that is enough."""
        self._rows.append((capture(), row))
        if len(self._rows) == self.SIZE:
            self.flush()

    def flush(self) -> None:
        """Write what there is: in a trace of its own with a link to each request, if it is several.

        Rows of a single request are written as a part of that.
        """
        rows, self._rows = self._rows, []
        with batch(handoff for handoff, _ in rows), tracer.start_as_current_span("write") as span:
            span.set_attribute("rows", len(rows))
            self._table.executemany("INSERT INTO log VALUES (?)", [(row,) for _, row in rows])


def main() -> None:
    """Handle three requests, the last of which has several rows."""
    table = sqlite3.connect(":memory:")
    table.execute("CREATE TABLE log (line TEXT)")
    writer = Writer(table)
    for number, rows in enumerate((1, 1, 4), 1):
        with tracer.start_as_current_span(f"request {number}"):
            for row in range(rows):
                writer.add(f"request {number}, row {row}")
    table.close()


if __name__ == "__main__":
    main()
