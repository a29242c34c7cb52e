"""The figures of the pages are those that were measured and recorded."""

from __future__ import annotations

import copy
import json
import sys

import pytest
from pages import DOCS, text

sys.path.insert(0, str(DOCS))

import costs
import proofs

import recorded


def figure(implementation, variant, median, context="span", at_most=None):
    """Return one figure as the benchmark writes it."""
    return {
        "implementation": implementation,
        "context": context,
        "variant": variant,
        "median": median,
        "spread": 0.02,
        "at_most": at_most,
    }


PURE = [
    figure("pure", "by hand", 1.05),
    figure("pure", "ours", 1.2),
    figure("pure", "ours", 1.1, "no context", at_most=1.08),
]
COMPILED = [figure("compiled", "by hand", 1.06), figure("compiled", "ours", 1.03)]


def measured(figures):
    """Return what the benchmark writes of one operation."""
    row = {"name": "put + get", "unit": "second", "plain": 4.3e-8, "figures": figures}
    return {"notes": ["in turns"], "missed": ["put + get: 1.2, at most 1.1"], "rows": [row]}


NOTHING = "\N{EN DASH}"
BOTH = f"| put + get | 43 ns | 1.06 | {NOTHING} | 1.20 ±0.02 (1.10 ±0.02\\*) | 1.03 ±0.02 |"


@pytest.mark.parametrize(
    ("figures", "columns", "row"),
    [
        (
            PURE,
            "pure Python",
            f"| put + get | 43 ns | 1.05 | {NOTHING} | 1.20 ±0.02 (1.10 ±0.02\\*) |",
        ),
        (PURE + COMPILED, "pure Python | compiled", BOTH),
        (COMPILED + PURE, "pure Python | compiled", BOTH),
        (COMPILED, "compiled", f"| put + get | 43 ns | 1.06 | {NOTHING} | 1.03 ±0.02 |"),
    ],
)
def test_costs_have_a_column_for_each_implementation(figures, columns, row):
    """What was measured of both parts is shown of both; what exceeds its limit is marked."""
    lines = costs.made_of(measured(figures)).splitlines()
    assert lines[0] == f"| operation | plain | by hand | official | {columns} |"
    assert lines[2:] == [row, "", "- in turns", r"- \* more than the benchmark allows"]


def test_what_the_benchmark_has_measured_is_kept_without_single_values(tmp_path, monkeypatch):
    """The file beside the page has the medians, of which the table is made."""
    data = measured(PURE)
    data["rows"][0]["values"] = {"pure, span, ours": [1.0] * 25}
    file = tmp_path / "measured.json"
    file.write_text(json.dumps(data))
    monkeypatch.setattr(costs, "FILE", tmp_path / "cost.json")
    costs.keep(file)
    assert json.loads(costs.FILE.read_text()) == measured(PURE)
    assert costs.table() == costs.made_of(measured(PURE))


def test_every_row_that_was_measured_is_on_the_page():
    """The page of costs has the unfavourable rows, too."""
    page = text("cost")
    rows = json.loads(costs.FILE.read_text(encoding="utf-8"))["rows"]
    assert len(rows) > 40
    assert not [row["name"] for row in rows if f"| {row['name']} | " not in page]


@pytest.mark.parametrize(
    ("proof", "name", "what"),
    [("cpython", "3.13", "tests"), ("neighbours", "janus", "tests"), ("soak", "3.13", "spans")],
)
def test_another_figure_makes_another_page(proof, name, what):
    """A figure that a command records is one of the page's, which has to be made anew then."""
    data = json.loads(proofs.FILE.read_text(encoding="utf-8"))
    assert proofs.made_of(data) in text("proofs")
    other = copy.deepcopy(data)
    other[proof][name][what] += 1
    assert proofs.made_of(other) not in text("proofs")


def test_a_command_records_in_the_place_of_what_was_there(tmp_path, monkeypatch):
    """What others have recorded stays."""
    file = tmp_path / "proofs.json"
    file.write_text('{"soak": {"3.13": {"spans": 1}, "3.14": {"spans": 2}}}')
    monkeypatch.setattr(recorded, "FILE", file)
    recorded.record("soak", "3.13", {"spans": 3})
    assert json.loads(file.read_text()) == {"soak": {"3.13": {"spans": 3}, "3.14": {"spans": 2}}}
