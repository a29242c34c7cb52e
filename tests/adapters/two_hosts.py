"""Two hosts, which are network namespaces, and a receiver of spans on the first.

A program that uses these runs in network and host-name namespaces of its own, which are the first
host: :func:`run_program` starts it so. The second one and the virtual interfaces that join the two
are made by :func:`second_host`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from otlp_receiver import Receiver

HERE, THERE = "10.83.7.1", "10.83.7.2"
SECONDS = 90


def run_program(program: str, directory: Path, seconds: float = SECONDS) -> tuple[Any, Any]:
    """Run a program of this directory on the first host; return what :func:`report` printed there.

    That is what the program has seen, and all spans that have arrived.
    """
    here = Path(__file__).parent
    done = subprocess.run(
        ["unshare", "--net", "--uts", sys.executable, here / program, directory],
        env={**os.environ, "PYTHONPATH": str(here.parent)},
        capture_output=True,
        text=True,
        timeout=seconds + 20,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "OpenTelemetry" not in done.stderr, done.stderr
    seen, spans, faults = json.loads(done.stdout.splitlines()[-1])
    assert faults == []
    return seen, spans


def report(seen: Any, receiver: Receiver) -> None:
    """Print, as JSON in one line, what was seen, the spans that have arrived, and faults."""
    spans = [dataclasses.asdict(span) for span in receiver.spans]
    print(json.dumps([seen, spans, receiver.faults]))


def first_host() -> None:
    """Make the host ready on which this process runs."""
    sh("hostname", "client-host")
    sh("ip", "link", "set", "lo", "up")


def exporting(receiver: Receiver) -> dict[str, str]:
    """Return the environment of programs that export to ``receiver``, with this library alone."""
    others = {entry.name for entry in entry_points(group="opentelemetry_instrumentor")}
    return {
        "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.endpoint,
        "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
        "OTEL_TRACES_EXPORTER": "otlp",
        "OTEL_METRICS_EXPORTER": "none",
        "OTEL_LOGS_EXPORTER": "none",
        "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": ",".join(others - {"concurrency"}),
    }


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
