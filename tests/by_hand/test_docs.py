"""What the page "By hand" shows can be run."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from opentelemetry.context import get_current

DOCS = Path(__file__).parents[2] / "docs" / "by-hand.md"
BLOCKS = re.findall(r"^```python\n(.*?)^```", DOCS.read_text(encoding="utf-8"), re.M | re.S)


@pytest.mark.parametrize("block", range(len(BLOCKS)))
def test_a_block_runs(block, library, request_span, caplog):
    """Each block is a program that ends, logs nothing and leaves nothing attached."""
    before = get_current()
    exec(BLOCKS[block], {"__name__": "docs"})
    assert get_current() is before
    assert not caplog.records


def test_there_are_blocks():
    """The page has code."""
    assert len(BLOCKS) >= 5
