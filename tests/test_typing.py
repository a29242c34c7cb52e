"""Type checkers know the keywords of ``instrument()``, the assertions, and hand-offs by hand."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent / "typing"
REPOSITORY = Path(__file__).parents[1]
RIGHT, WRONG = HERE / "right.py", HERE / "wrong.py"


def by_mypy(directory):
    """Return the lines in which mypy finds errors, by file."""
    arguments = ["--strict", "--python-version", "3.10", "--no-error-summary"]
    config = ["--config-file", "", "--cache-dir", directory]
    run = subprocess.run(
        [sys.executable, "-m", "mypy", *arguments, *config, RIGHT, WRONG],
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
        env={"MYPYPATH": str(REPOSITORY / "src"), "PATH": ""},
    )
    assert run.returncode in (0, 1), run.stderr
    found = re.findall(r"(\w+\.py):(\d+): error:", run.stdout)
    return {(name, int(line)) for name, line in found if name in (RIGHT.name, WRONG.name)}


def by_pyright(_directory):
    """Return the lines in which pyright finds errors, by file."""
    run = subprocess.run(
        [sys.executable, "-m", "pyright", "--outputjson", "--pythonpath", sys.executable, HERE],
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
        cwd=REPOSITORY,  # which says how strict it is
    )
    assert run.returncode in (0, 1), run.stderr
    found = json.loads(run.stdout)["generalDiagnostics"]
    return {
        (Path(one["file"]).name, one["range"]["start"]["line"] + 1)
        for one in found
        if one["severity"] == "error"
    }


@pytest.mark.parametrize("check", [by_mypy, by_pyright])
def test_type_checkers_find_what_is_wrong_and_nothing_else(check, tmp_path):
    """A keyword that is misspelled, a word that is none, a span that is none, a wrong argument."""
    lines = WRONG.read_text().splitlines()
    marked = {(WRONG.name, number) for number, line in enumerate(lines, 1) if "# error" in line}
    assert len(marked) == 19

    assert check(tmp_path) == marked
