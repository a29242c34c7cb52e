"""A client and a scheduler of dask's on one host, a worker on another, and a receiver of spans.

Run it in network and host-name namespaces of its own, which are the first host; it makes those that
are the second one, and joins the two by a pair of virtual interfaces. It prints, as JSON, what the
client has printed and all spans that have arrived.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path

HERE, THERE = "10.83.7.1", "10.83.7.2"
SECONDS = 90

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


def sh(*command: str) -> None:
    """Run a command, which must succeed."""
    subprocess.run(command, check=True, timeout=SECONDS)


@contextlib.contextmanager
def running(*command: str, **options: object) -> Iterator[subprocess.Popen[str]]:
    """Run a command for the length of a block, then tell it to end."""
    with subprocess.Popen(command, text=True, **options) as process:
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                raise


@contextlib.contextmanager
def second_host() -> Iterator[list[str]]:
    """Return the beginning of a command that is to be run there."""
    made = "hostname worker-host && ip link set lo up && echo made && exec sleep 600"
    with running(*("unshare", "--net", "--uts", "sh", "-c", made), stdout=subprocess.PIPE) as host:
        assert host.stdout is not None
        assert host.stdout.readline() == "made\n"
        enter = ["nsenter", "--target", str(host.pid), "--net", "--uts"]
        link = ("ip", "link", "add", "here", "type", "veth")
        sh(*link, "peer", "name", "there", "netns", str(host.pid))
        for name, address, there in (("here", HERE, []), ("there", THERE, enter)):
            sh(*there, "ip", "address", "add", f"{address}/24", "dev", name)
            sh(*there, "ip", "link", "set", name, "up")
        yield enter


def main() -> None:
    """Run all of it."""
    from otlp_receiver import Receiver

    directory = Path(sys.argv[1])
    file = directory / "scheduler.json"
    sh("hostname", "client-host")
    sh("ip", "link", "set", "lo", "up")
    scripts = Path(sysconfig.get_path("scripts"))
    instrument = [str(scripts / "opentelemetry-instrument"), sys.executable, "-m"]
    dask = [*instrument, "dask"]
    others = {entry.name for entry in entry_points(group="opentelemetry_instrumentor")}
    with second_host() as there, Receiver(HERE) as receiver:
        os.environ.update(
            {
                "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.endpoint,
                "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
                "OTEL_TRACES_EXPORTER": "otlp",
                "OTEL_METRICS_EXPORTER": "none",
                "OTEL_LOGS_EXPORTER": "none",
                "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": ",".join(others - {"concurrency"}),
                "DASK_LOGGING__DISTRIBUTED": "error",
            }
        )
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
        spans = [dataclasses.asdict(span) for span in receiver.spans]
        print(json.dumps([json.loads(client.stdout), spans, receiver.faults]))


if __name__ == "__main__":
    main()
