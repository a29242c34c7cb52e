"""Real pipelines under ``opentelemetry-instrument``: parse, enrich, store, fed by HTTP requests.

The stages are loops that have been running since start-up, with queues in between. Not a line of
the programs in ``apps`` knows otel-concurrency.
"""

from __future__ import annotations

import concurrent.futures
import re
import subprocess
import sys
import time
import urllib.request

import pytest

from programs import APPS
from test_auto_instrument import DEADLINE, SCRIPTS, by_id, environment, parent_of, read_spans

REQUESTS = 30
STAGES = ("parse", "enrich", "store")

each_pipeline = pytest.mark.parametrize(
    ("program", "primitive"),
    [("pipeline_of_threads.py", "queue"), ("pipeline_of_tasks.py", "asyncio")],
    ids=["threads", "tasks"],
)


def run(directory, program, *flags):
    """Run a pipeline, ask it for all requests at once, end it; return the spans that it exported.

    It ends when the last item has been stored, which it is told by a request for ``/quit``.
    """
    exported, log = directory / "exported", directory / "log"
    with exported.open("ab") as stdout, log.open("ab") as stderr:
        server = subprocess.Popen(
            [SCRIPTS / "opentelemetry-instrument", *flags, sys.executable, APPS / program],
            env=environment(directory),
            cwd=APPS,
            stdout=stdout,
            stderr=stderr,
        )
    with server:
        try:
            address = wait_for_address(server, log)
            with concurrent.futures.ThreadPoolExecutor(REQUESTS) as clients:
                answers = list(clients.map(ask, [address] * REQUESTS, map(str, range(REQUESTS))))
            assert answers == [f"accepted {n}" for n in range(REQUESTS)]
            assert ask(address, "quit") == "bye"
            assert server.wait(DEADLINE) == 0
        finally:
            server.kill()
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+\n", log.read_text()), log.read_text()
    return read_spans(exported)


def wait_for_address(server, log):
    """Return the address that the program prints when it listens."""
    deadline = time.monotonic() + DEADLINE
    while time.monotonic() < deadline and server.poll() is None:
        said = re.search(r"(http://127\.0\.0\.1:\d+)\n", log.read_text())
        if said:
            return said.group(1)
        time.sleep(0.02)
    raise AssertionError(f"the program does not listen:\n{log.read_text()}")


def ask(address, path):
    """Ask for ``path``; return the answer."""
    with urllib.request.urlopen(f"{address}/{path}", timeout=DEADLINE) as response:
        return response.read().decode()


@each_pipeline
def test_each_request_is_one_trace_through_all_stages(tmp_path, program, primitive):
    """Request, parse, enrich, store: each the next one's parent, with the request's baggage."""
    spans = run(tmp_path, program)

    known = by_id(spans)
    requests = {span["attributes"]["item"]: span for span in spans if span["name"] == "request"}
    assert sorted(map(int, requests)) == [*range(REQUESTS)]
    found = {}
    for span in spans:
        parent = parent_of(span, known)
        found[span["attributes"]["item"], span["name"]] = (
            parent and (parent["attributes"]["item"], parent["name"]),
            span["attributes"]["baggage"],
            span["context"]["trace_id"],
        )

    expected = {}
    for item, request in requests.items():
        parent = None
        for name in ("request", *STAGES):
            expected[item, name] = (parent, item, request["context"]["trace_id"])
            parent = (item, name)
    assert found == expected
    assert len({request["context"]["trace_id"] for request in requests.values()}) == REQUESTS


@each_pipeline
def test_without_the_primitive_every_stage_is_an_orphan(tmp_path, program, primitive):
    """Switched off by its flag, each stage's span is a root of its own, and has no baggage."""
    spans = run(tmp_path, program, f"--concurrency_{primitive}", "off")

    stages = [span for span in spans if span["name"] in STAGES]
    assert len(spans) == REQUESTS * (1 + len(STAGES))
    assert len(stages) == REQUESTS * len(STAGES)
    assert {span["parent_id"] for span in stages} == {None}
    assert {span["attributes"]["baggage"] for span in stages} == {"none"}
    assert len({span["context"]["trace_id"] for span in spans}) == len(spans)
