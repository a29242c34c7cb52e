"""The benchmark itself works; what it measures is no test."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import measure
import pytest
import table
from operations import BY_HAND, OPERATIONS, OURS, PURE

HERE = Path(__file__).parent


def _run(*arguments: str, **variables: str) -> str:
    """Run it; return what it printed. Its exit status has to agree with that."""
    finished = subprocess.run(
        [sys.executable, str(HERE), "--quick", *arguments],
        check=False,
        capture_output=True,
        text=True,
        timeout=590,
        env={**os.environ, **variables},
    )
    assert finished.stderr == ""
    assert finished.returncode == int("beyond its limit: " in finished.stdout), finished.stdout
    return finished.stdout


@pytest.mark.scale
@pytest.mark.timeout(600)
def test_one_command_measures_every_operation(tmp_path):
    """One command prints a row for everything of which the costs are promised.

    In pure Python: for the compiled part, which the next test has, each takes two processes more.
    """
    file = tmp_path / "values.json"
    printed = _run("--json", str(file), **{measure.SWITCH: "true"})
    data = json.loads(file.read_text())
    rows = {row["name"]: row for row in data["rows"]}
    assert rows.keys() >= {
        *OPERATIONS,
        "FastAPI under uvicorn, a request",
        "start-up: import and instrument()",
    }
    for name in rows:
        assert name in printed
    figures = rows["submit().result()"]["figures"]
    assert {(each["context"], each["variant"]) for each in figures} == {
        (context, variant)
        for context in ("span", "no context")
        for variant in ("by hand", "official", "ours", "plain, again")
    }
    assert all(each["spread"] >= 0 for row in rows.values() for each in row["figures"])
    assert len(rows["submit().result()"]["values"]["pure, span, ours"]) == measure.QUICK.rounds


@pytest.mark.scale
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", ["Thread start", "sched enter + run, 200"])
def test_a_filter_chooses_rows(name):
    """``--operation`` prints the rows whose name contains its argument, and no others."""
    printed = _run("--markdown", "--operation", name)
    rows = [line for line in printed.splitlines() if line.startswith("| ")]
    assert len([row for row in rows if name in row]) == 1
    assert not [row for row in rows if "submit()" in row]


def _row(**figures: float) -> measure.Row:
    """Return a row of which ours may take 1.5, and 1.1 without a context."""
    return measure.Row(
        "an operation",
        "second",
        1.0,
        {(PURE, name == "span", OURS): measure.Figure(value) for name, value in figures.items()},
        {PURE: (1.5, 1.1)},
    )


def test_what_takes_more_than_it_may_is_named(capsys):
    """It says which limit is exceeded, in a span or without one, and by how much."""
    rows = [_row(span=1.5, none=1.1), _row(span=1.51, none=1.1), _row(span=1.0, none=1.2)]
    missed = table.show(rows, [], markdown=True)
    assert missed == [
        "an operation, pure, span: 1.51, at most 1.5",
        "an operation, pure, no context: 1.2, at most 1.1",
    ]
    printed = capsys.readouterr().out
    assert all(f"beyond its limit: {words}" in printed for words in missed)


def test_a_hand_off_that_the_program_makes_is_compared_with_one_by_hand():
    """Its limit is a ratio to the three steps, and not to nothing."""
    figures = {
        (PURE, True, BY_HAND): measure.Figure(10.0),
        (PURE, True, OURS): measure.Figure(11.5),
    }
    row = measure.Row("with", "second", 1.0, figures, {}, at_most_by_hand=1.1)
    assert list(row.misses()) == ["with, pure, span: 11.5, at most 11"]


def test_a_ratio_is_one_of_two_turns_of_the_same_round():
    """A round that was slow in all its turns changes nothing."""
    figure = measure.ratio([2.0, 20.0, 2.2], [1.0, 10.0, 1.0])
    assert figure.median == 2.0
    assert 0 < figure.spread < 0.2


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


# Bytecode instructions of 100 pairs in release 0.1, in a span and without any context.
OF_ITEMS_IN_0_1 = {
    "3.10": {
        "queue.Queue put + get, 100": (14203, 5200),
        "queue.Queue, two producers in turn": (17867, 5200),
        "queue.SimpleQueue put + get, 100": (13303, 6400),
        "asyncio.Queue put + get, 100": (18843, 8692),
    },
    "3.11": {
        "queue.Queue put + get, 100": (15507, 5300),
        "queue.Queue, two producers in turn": (19477, 5300),
        "queue.SimpleQueue put + get, 100": (13907, 6900),
        "asyncio.Queue put + get, 100": (20566, 8992),
    },
    "3.12": {
        "queue.Queue put + get, 100": (13293, 4500),
        "queue.Queue, two producers in turn": (16859, 4500),
        "queue.SimpleQueue put + get, 100": (12393, 5900),
        "asyncio.Queue put + get, 100": (17519, 7585),
    },
    "3.13": {
        "queue.Queue put + get, 100": (13154, 4800),
        "queue.Queue, two producers in turn": (16751, 4800),
        "queue.SimpleQueue put + get, 100": (12294, 6200),
        "asyncio.Queue put + get, 100": (17817, 8189),
    },
    "3.14": {
        "queue.Queue put + get, 100": (13957, 5100),
        "queue.Queue, two producers in turn": (17582, 5100),
        "queue.SimpleQueue put + get, 100": (13410, 6500),
        "asyncio.Queue put + get, 100": (19368, 8998),
    },
    "3.15": {
        "queue.Queue put + get, 100": (13957, 5100),
        "queue.Queue, two producers in turn": (17581, 5100),
        "queue.SimpleQueue put + get, 100": (13409, 6500),
        "asyncio.Queue put + get, 100": (19363, 8998),
    },
}


@pytest.mark.parametrize("version", OF_ITEMS_IN_0_1)
def test_a_pair_of_put_and_get_takes_at_most_ten_instructions_more_than_in_release_0_1(version):
    """Whatever is found out about pools, workers and batches: as it is recorded."""
    recorded = json.loads((HERE / "instructions.json").read_text())[version]
    more = {
        name: [(now - then) / 100 for now, then in zip(recorded[name][::2], before, strict=True)]
        for name, before in OF_ITEMS_IN_0_1[version].items()
    }
    assert {name: found for name, found in more.items() if max(found) > 10} == {}


@pytest.mark.parametrize("version", OF_ITEMS_IN_0_1)
@pytest.mark.parametrize("kind", ["queue.Queue", "queue.SimpleQueue", "asyncio.Queue"])
def test_an_item_that_is_got_inside_a_span_takes_little_more_than_another(version, kind):
    """The queue may be a pool, but that is found out once and not at each item."""
    recorded = json.loads((HERE / "instructions.json").read_text())[version]
    inside = recorded[f"{kind}, got inside a span"][0]
    assert inside < 1.6 * recorded[f"{kind} put + get, 100"][0]
