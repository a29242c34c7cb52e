"""A program and the head of a ray cluster on one host, a node on another, and a receiver of spans.

`two_hosts.py` runs it. It reports what the program has seen.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import ray_cluster
from two_hosts import HERE, SECONDS, THERE, exporting, first_host, report, running, second_host

from otlp_receiver import Receiver

PROGRAM = """
import json, socket, sys, time
import ray
import ray.data
from opentelemetry import baggage, context, trace

ray.data.DataContext.get_current().enable_progress_bars = False

def set_up():
    from opentelemetry import trace
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)

def work(number):
    attributes = {"host": socket.gethostname()}
    with trace.get_tracer("worker").start_as_current_span("work", attributes=attributes) as span:
        return [number, baggage.get_baggage("tenant"), span.parent is not None]

@ray.remote(num_cpus=0, resources={"there": 0.1})
class Actor:
    async def work(self, number):
        return work(number)

ray.init(
    address=sys.argv[1], log_to_driver=False, runtime_env={"worker_process_setup_hook": set_up}
)
deadline = time.monotonic() + 60
while "there" not in ray.cluster_resources() and time.monotonic() < deadline:
    time.sleep(0.2)
there = ray.remote(num_cpus=0, resources={"there": 0.1})(work)

@ray.remote(num_cpus=0, resources={"here": 0.1})
def here(number):
    return ray.get(there.remote(number))

def batch(rows):
    rows["seen"] = [str(work(5)[1:])] * len(rows["id"])
    return rows

def mapped():
    rows = ray.data.range(2, override_num_blocks=1).map_batches(batch).take_all()
    return [row["seen"] for row in rows]

token = context.attach(baggage.set_baggage("tenant", "acme"))
attributes = {"host": socket.gethostname()}
with trace.get_tracer("client").start_as_current_span("origin", attributes=attributes):
    actor = Actor.remote()
    seen = ray.get([there.remote(1), here.remote(2), actor.work.remote(3)])
    seen.append(mapped())
context.detach(token)
with open(sys.argv[2], "w") as file:  # ray prints what it likes
    json.dump([*seen, ray.get(there.remote(4)), mapped()], file)
"""


def main() -> None:
    """Run all of it."""
    directory = Path(sys.argv[1])
    first_host()
    scripts = Path(sysconfig.get_path("scripts"))
    (directory / "program.py").write_text(PROGRAM, encoding="utf-8")
    start = [str(scripts / "ray"), "start", "--block", "--num-cpus", "1"]
    memory = ["--object-store-memory", str(80 * 2**20)]
    address = f"{HERE}:6379"
    with ray_cluster.directory() as files, second_host() as there, Receiver(HERE) as receiver:
        os.environ.update({**ray_cluster.ENVIRONMENT, **exporting(receiver)})
        head = ["--head", "--node-ip-address", HERE, "--port", "6379", "--temp-dir", files]
        head += ["--include-dashboard", "false", "--resources", '{"here": 1}']
        node = ["--address", address, "--node-ip-address", THERE, "--resources", '{"there": 1}']
        quiet = {"stdout": subprocess.DEVNULL}
        with (
            running(*start, *memory, *head, **quiet),
            running(*there, *start, *memory, *node, **quiet),
        ):
            instrument = (str(scripts / "opentelemetry-instrument"), sys.executable)
            subprocess.run(
                [*instrument, str(directory / "program.py"), address, str(directory / "seen")],
                stdout=subprocess.DEVNULL,
                check=True,
                timeout=3 * SECONDS,  # a node takes its time to start
            )
        report(json.loads((directory / "seen").read_text(encoding="utf-8")), receiver)


if __name__ == "__main__":
    main()
