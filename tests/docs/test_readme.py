"""The README: one page, and the first trace that it leads to."""

from __future__ import annotations

import json
import re
import subprocess
import sys

from pages import text

README = text("README")


def test_readme_is_one_page():
    """It has at most 150 lines; what is longer has a page of its own."""
    assert len(README.splitlines()) <= 150


def test_first_trace_is_one(tmp_path):
    """The program that a newcomer is told to write has two spans, in one trace."""
    (program,) = re.findall(r"^cat > app.py <<'EOF'\n(.*?)^EOF$", README, re.MULTILINE | re.DOTALL)
    (tmp_path / "app.py").write_text(program, encoding="utf-8")
    command = ["trace", "--json", "trace.json", "--fail-on", "orphans,leaks", "--"]
    ended = subprocess.run(
        [sys.executable, "-m", "otel_concurrency", *command, sys.executable, "app.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    report = json.loads((tmp_path / "trace.json").read_text(encoding="utf-8"))
    charge, order = sorted(report["spans"], key=lambda span: span["name"])
    assert (charge["name"], order["name"]) == ("charge", "order")
    assert charge["parent"] == order["id"]
