"""What the page "Queues" shows can be run, and holds."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from forms import without_context

DOCS = Path(__file__).parents[2] / "docs" / "queues.md"
BLOCKS = re.findall(r"^```python\n(.*?)^```", DOCS.read_text(encoding="utf-8"), re.M | re.S)


@pytest.mark.alone  # one waits for a task of `get`, in which theirs runs a coroutine of its own
@pytest.mark.usefixtures("instrumented")
@pytest.mark.parametrize("block", range(len(BLOCKS)))
def test_a_block_runs_and_what_it_asserts_holds(block, tracer, caplog):
    """Each block is a program that ends, and logs nothing."""
    without_context(exec, BLOCKS[block], {"__name__": "docs", "tracer": tracer})
    assert not caplog.records


def test_there_are_blocks():
    """The page has code."""
    assert len(BLOCKS) >= 5
