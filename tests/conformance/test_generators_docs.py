"""What the page "Generators" shows can be run, and its table is the library's."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from otel_concurrency._generators import drivers, monitoring

PAGE = (Path(__file__).parents[2] / "docs" / "generators.md").read_text(encoding="utf-8")
(BLOCK,) = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


@pytest.mark.skipif(
    not monitoring.IS_THERE, reason="before CPython 3.12 a suspension is not heard of"
)
def test_the_program_runs():
    """It ends, and says nothing."""
    ended = subprocess.run(
        [sys.executable, "-c", BLOCK], capture_output=True, text=True, timeout=60, check=False
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")


@pytest.mark.parametrize("entry", drivers.TABLE)
def test_what_is_left_alone_is_listed(entry):
    """Each library that is in the table of drivers is named on the page."""
    names = {
        "opentelemetry": "OpenTelemetry's own decorator",
        "_pytest": "| pytest",
        "pytest_asyncio": "pytest-asyncio",
    }
    library = entry.split(".")[0]
    assert names.get(library, library) in PAGE
