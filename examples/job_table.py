"""A job table whose worker is another process, an hour later: headers in a column, and a link.

The worker is told what time it is, so that nobody has to wait.
"""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
import tempfile
from pathlib import Path

from opentelemetry import baggage, trace

from otel_concurrency import HandOff, capture

tracer = trace.get_tracer("example")

HOUR = 3600


def enqueue(table: sqlite3.Connection, name: str, due: int) -> None:
    """Put a job into the table, for a trace of its own that is linked to this one."""
    headers = json.dumps(capture("link").headers())
    table.execute("INSERT INTO jobs VALUES (?, ?, ?)", (name, due, headers))
    table.commit()


def work(table: sqlite3.Connection, now: int) -> None:
    """Do every job that is due."""
    for name, headers in table.execute("SELECT name, headers FROM jobs WHERE due <= ?", (now,)):
        with HandOff.from_headers(json.loads(headers)), tracer.start_as_current_span(name) as span:
            span.set_attribute("tenant", str(baggage.get_baggage("tenant")))


def request(path: str, now: int) -> None:
    """Handle a request of a tenant: what it wants is due in an hour."""
    table = sqlite3.connect(path)
    table.execute("CREATE TABLE jobs (name TEXT, due INTEGER, headers TEXT)")
    with HandOff(baggage.set_baggage("tenant", "acme")), tracer.start_as_current_span("request"):
        enqueue(table, "send invoice", now + HOUR)
    table.close()


def main() -> None:
    """Handle a request, and start a worker an hour later."""
    with tempfile.TemporaryDirectory() as directory:
        path = str(Path(directory) / "jobs.db")
        request(path, now=0)
        subprocess.run([sys.executable, __file__, path, str(HOUR)], check=True)


if __name__ == "__main__":
    if len(sys.argv) == 1:
        main()
    else:
        work(sqlite3.connect(sys.argv[1]), now=int(sys.argv[2]))
