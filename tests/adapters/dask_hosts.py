"""A client and a scheduler of dask's on one host, a worker on another, and a receiver of spans.

`two_hosts.py` runs it. It reports what the client has printed.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
from pathlib import Path

from two_hosts import HERE, SECONDS, THERE, exporting, first_host, report, running, second_host

CLIENT = """
import json, socket, sys
from dask.distributed import Client
from opentelemetry import baggage, context, trace

def work(number):
    tracer = trace.get_tracer("worker")
    attributes = {"host": socket.gethostname()}
    with tracer.start_as_current_span("work", attributes=attributes) as span:
        return [number, baggage.get_baggage("tenant"), span.parent is not None]

client = Client(scheduler_file=sys.argv[1])
client.wait_for_workers(1, timeout=60)
token = context.attach(baggage.set_baggage("tenant", "acme"))
attributes = {"host": socket.gethostname()}
with trace.get_tracer("client").start_as_current_span("origin", attributes=attributes):
    seen = [client.submit(work, 1).result(), *client.gather(client.map(work, [2, 3]))]
context.detach(token)
print(json.dumps([*seen, client.submit(work, 4).result()]))
client.close()
"""


def main() -> None:
    """Run all of it."""
    from otlp_receiver import Receiver

    directory = Path(sys.argv[1])
    file = directory / "scheduler.json"
    first_host()
    scripts = Path(sysconfig.get_path("scripts"))
    instrument = [str(scripts / "opentelemetry-instrument"), sys.executable, "-m"]
    dask = [*instrument, "dask"]
    with second_host() as there, Receiver(HERE) as receiver:
        os.environ.update(exporting(receiver), DASK_LOGGING__DISTRIBUTED="error")
        (directory / "client.py").write_text(CLIENT, encoding="utf-8")
        finds = ("--scheduler-file", str(file))
        scheduler = ("scheduler", "--host", HERE, "--port", "0", "--no-dashboard", *finds)
        worker = ("worker", "--host", THERE, "--nthreads", "1", "--no-dashboard", *finds)
        local = ("--local-directory", str(directory))
        with (
            running(*dask, *scheduler),
            running(*there, *dask, *worker, *local),
        ):
            client = subprocess.run(
                [*instrument[:2], str(directory / "client.py"), str(file)],
                stdout=subprocess.PIPE,
                check=True,
                text=True,
                timeout=SECONDS,
            )
        report(json.loads(client.stdout), receiver)


if __name__ == "__main__":
    main()
