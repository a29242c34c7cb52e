"""The benchmark itself works; what it measures is no test."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent


def _run(*arguments: str) -> str:
    return subprocess.run(
        [sys.executable, str(HERE), "--quick", *arguments],
        check=True,
        capture_output=True,
        text=True,
        timeout=110,
    ).stdout


@pytest.mark.scale
def test_one_command_measures_every_operation(tmp_path):
    """One command prints a row for everything of which the costs are promised, and ends well."""
    file = tmp_path / "values.json"
    printed = _run("--json", str(file))
    for operation in (
        "submit().result()",
        "burst of submit()",
        "Executor.map",
        "Thread start + join",
        "run_in_executor",
        "sched enter + run",
        "Future.add_done_callback",
        "queue.Queue put + get",
        "queue.SimpleQueue put + get",
        "asyncio.Queue put + get",
        "ProcessPoolExecutor.submit().result()",
        "Pool.map, 100000",
        "starting a span",
        "generator, 100 values",
        "the same, holding a span",
        "await in such a generator, 100",
        "by hand: capture() and with",
        "by hand: with",
        "by hand: run()",
        "by hand: a call of what wrap() returned",
        "waiting submit()",
        "waiting sched event",
        "instrumenting at start-up",
    ):
        assert operation in printed
    names = [
        benchmark["metadata"]["name"] for benchmark in json.loads(file.read_text())["benchmarks"]
    ]
    for variant in ("plain", "by hand", "official", "ours"):
        assert f"submit().result(), span, {variant}" in names
        assert f"submit().result(), no context, {variant}" in names


@pytest.mark.scale
@pytest.mark.parametrize("name", ["Thread start", "sched enter"])
def test_a_filter_chooses_rows(name):
    """``--operation`` prints the rows whose name contains its argument, and no others."""
    printed = _run("--markdown", "--operation", name)
    rows = [line for line in printed.splitlines() if line.startswith("| ")]
    assert len([row for row in rows if name in row]) == 1
    assert not [row for row in rows if "submit()" in row]


def _instructions(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(HERE / "instructions.py"), *arguments],
        check=False,
        capture_output=True,
        text=True,
        timeout=110,
    )


def test_what_was_recorded_of_this_version_can_be_exceeded(tmp_path):
    """A record with less in it makes the comparison fail; with what is executed it does not."""
    file = tmp_path / "instructions.json"
    assert _instructions("--file", str(file), "--record").returncode == 0
    assert _instructions("--file", str(file)).returncode == 0

    recorded = json.loads(file.read_text())
    (counts,) = recorded.values()
    counts["submit().result()"][0] -= 20
    file.write_text(json.dumps(recorded))
    assert _instructions("--file", str(file)).returncode == 1
