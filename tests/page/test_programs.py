"""Pages of real programs, as ``otel-concurrency trace --html`` writes them."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import entry_points
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
DEADLINE = 100

EDGES = "return [...document.querySelectorAll('#paths path')].map((path) => path.dataset.to)"


@pytest.fixture
def trace(tmp_path):
    """Return a function that starts the command ``trace``, which writes a page and JSON."""
    started = []

    def start(*arguments, cwd, others=()):
        instrumentors = {entry.name for entry in entry_points(group="opentelemetry_instrumentor")}
        off = instrumentors - {"concurrency", *others}
        kept = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
        files = ["--html", tmp_path / "page.html", "--json", tmp_path / "report.json"]
        process = subprocess.Popen(
            [sys.executable, "-m", "otel_concurrency", "trace", *files, *arguments],
            cwd=cwd,
            env={**kept, "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": ",".join(off)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture
def opened(window, tmp_path):
    """Return a function that opens the page, in a window as high as all of it."""

    def open_page(height=900):
        window.show(height=height)
        window.open(tmp_path / "page.html")
        window.wait_for("return 'ready' in document.documentElement.dataset", seconds=60)
        return window

    yield open_page
    assert window.complaints() == []


def arrivals(report, trace_id=None):
    """Return the ids of the spans that came of a hand-off in their own trace."""
    origins = {each["id"]: each["origin"] for each in report["hand_offs"]}
    return {
        ":".join(span["id"])
        for span in report["spans"]
        if (origin := origins.get(span["hand_off"]))
        and origin[0] == span["id"][0]
        and trace_id in (None, origin[0])
    }


def text(window, selector):
    """Return the text in what ``selector`` finds first."""
    return window.run("return document.querySelector(arguments[0]).innerText", selector)


def test_page_of_an_order_service(trace, opened, tmp_path):
    """Without the library each hand-off loses a span; with it, only what no primitive carries."""
    program = trace("--compare", "--", sys.executable, "orders.py", cwd=TESTS / "pictures")
    output, _ = program.communicate(timeout=DEADLINE)
    assert program.returncode == 0, output
    report = json.loads((tmp_path / "report.json").read_text())["on"]
    window = opened(height=2600)
    assert "library off\n33 traces, 29 orphans" in text(window, "#runs")

    window.click("#runs button:last-child")
    window.click("#unfold")
    assert text(window, "#tab-traces").split() == ["Traces", "6"]
    edges = set(window.run(EDGES))
    arrived = arrivals(report)
    lost = {":".join(orphan["span"]) for orphan in report["orphans"]}
    assert len(arrived) == 3 * 9
    assert len(lost) == 2  # the first is not: who has waited once may not wait for work
    assert edges == arrived | lost

    window.click("#tab-problems")
    assert "Condition.notify" in text(window, "#problems article")
    assert "orders.py:" in text(window, "#problems article")


def test_page_of_a_service_with_fifty_requests(trace, opened, tmp_path):
    """Fifty requests at a time are fifty traces, each with its hand-offs, and no problem."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    service = trace(
        *["--", sys.executable, "-m", "uvicorn", "--port", str(port), "--log-level", "warning"],
        "fastapi_service:app",
        cwd=TESTS / "apps",
        others={"fastapi", "asgi"},
    )
    ask(f"http://127.0.0.1:{port}/async/first")
    with ThreadPoolExecutor(50) as clients:
        list(clients.map(lambda n: ask(f"http://127.0.0.1:{port}/sync/{n}"), range(49)))
    service.send_signal(signal.SIGINT)
    output, _ = service.communicate(timeout=DEADLINE)
    assert b"50 traces" in output, output

    report = json.loads((tmp_path / "report.json").read_text())
    window = opened()
    assert text(window, "#tab-traces").split() == ["Traces", "50"]
    assert text(window, "#tab-problems").split() == ["Problems", "0"]
    window.click("#fold")
    window.click("#row-0")
    first = min(report["spans"], key=lambda span: span["start_ns"])["id"][0]
    edges = window.run(EDGES)
    assert len(edges) >= 5
    assert set(edges) == arrivals(report, first)


def ask(url):
    """Return the answer of a server that may still be starting."""
    end = time.monotonic() + DEADLINE
    while True:
        try:
            with urllib.request.urlopen(url, timeout=DEADLINE) as answer:
                return answer.read()
        except urllib.error.HTTPError:
            raise
        except OSError:
            assert time.monotonic() < end, "the server did not start"
            time.sleep(0.1)
