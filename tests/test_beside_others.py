"""Beside others who patch the same primitives: in every order, each in a process of its own."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).parent / "apps" / "beside.py"
OTHERS = ["sentry", "gevent", "debugpy", "coverage"]
if sys.version_info < (3, 15):
    OTHERS.append("ddtrace")
FORMS = ("thread", "timer", "raw thread", "submit", "done-callback", "item")
ORDERS = [*itertools.product(("ours", "theirs"), repeat=2)]


@pytest.mark.parametrize("library", OTHERS)
@pytest.mark.parametrize(("on", "off"), ORDERS, ids=lambda who: who)
def test_work_has_its_parent_and_no_other(library, on, off):
    """As long as we are on, work is where it belongs; afterwards nowhere; our undo is exact."""
    run = subprocess.run(
        [sys.executable, PROGRAM, library, on, off],
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    told = json.loads(run.stdout.splitlines()[-1])

    nowhere = {f"{form}, afterwards": "none" for form in FORMS}
    everywhere = dict.fromkeys(FORMS, "right") | nowhere
    without = dict.fromkeys(FORMS, "none") | nowhere
    assert told["both"] == everywhere
    one = everywhere if off == "theirs" else without
    assert told["one"] == one
    assert told["neither"] == without
    assert told["again"] == everywhere
    if (on, off) == ("theirs", "ours"):
        assert told["left"] == []
