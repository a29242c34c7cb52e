"""The table on the page "Generators" is the library's."""

from __future__ import annotations

from pathlib import Path

import pytest

from otel_concurrency._generators import drivers

PAGE = (Path(__file__).parents[2] / "docs" / "generators.md").read_text(encoding="utf-8")


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
