"""Makes the pictures on the page of ``otel-concurrency trace``: ``python tests/pictures``.

The program beside this file is run, once without the library and once with it; what is in the
pictures is what was seen of it. Needs Debian's Chromium, as the tests of the page do.
"""

from __future__ import annotations

import io
import os
import re
import sys
import tempfile
from pathlib import Path

from rich.console import Console

from otel_concurrency._cli import page, report
from otel_concurrency._cli.trace import _Interrupts, _observe

HERE = Path(__file__).parent
DOCS = HERE.parents[1] / "docs"
SIZE = {"width": 1320, "height": 640}

sys.path.insert(0, str(HERE.parent / "page"))

from browser import browser  # noqa: E402


def main():
    """Write the pictures of both runs to ``docs``."""
    # Only this library, so that the run without it shows what the standard library does.
    os.environ["OTEL_PYTHON_DISABLED_INSTRUMENTATIONS"] = "threading,asyncio"
    os.chdir(HERE)
    reports = {
        f"library {'on' if library else 'off'}": _observe(
            ["python", "orders.py"], _Interrupts(), library=library, limit=None
        )
        for library in (False, True)
    }
    DOCS.mkdir(exist_ok=True)
    draw_terminal(reports["library on"])
    with tempfile.TemporaryDirectory() as directory:
        draw_page(reports, Path(directory) / "report.html")


def draw_terminal(of):
    """Write what the terminal shows as SVG."""
    console = Console(
        record=True, file=io.StringIO(), width=112, force_terminal=True, color_system="truecolor"
    )
    report.show(console, of)
    drawn = console.export_svg(title="otel-concurrency trace -- python orders.py")
    without_fonts = re.sub(r"@font-face \{.*?\}\s*", "", drawn, flags=re.DOTALL)  # of a server
    (DOCS / "trace.svg").write_text(without_fonts, encoding="utf-8")


def draw_page(reports, file):
    """Write what the page shows of the run with the library, light and dark."""
    page.write(reports, file)
    with browser() as window:
        for scheme in ("light", "dark"):
            window.show(**SIZE, scheme=scheme)
            window.open(file)
            window.click("#runs button:last-child")
            (DOCS / f"page-{scheme}.png").write_bytes(window.screenshot())


if __name__ == "__main__":
    main()
