"""A browser for the tests of the page; without one on the machine they are not collected."""

from __future__ import annotations

import browser
import pytest

from otel_concurrency._cli import page

collect_ignore = [] if browser.INSTALLED else ["test_page.py", "test_programs.py"]


@pytest.fixture(scope="session")
def window():
    """Return a window of headless Chromium, which all tests share."""
    with browser.browser() as opened:
        yield opened


@pytest.fixture
def show(window, tmp_path):
    """Return a function that writes reports as a page, and opens it."""

    def write_and_open(reports, **size):
        file = tmp_path / "report.html"
        page.write(reports, file)
        window.show(**size)
        window.open(file)
        window.wait_for("return 'ready' in document.documentElement.dataset", seconds=60)
        return window

    yield write_and_open
    assert window.complaints() == []
