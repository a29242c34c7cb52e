"""Whatever function of the library raises, the program's results are what they are without it.

The functions are found in the library's own code; ``injected.py`` has them raise one after the
other while a program uses the primitives, a process for each.
"""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from injected import PASS_ON, STAND_INS, modules

HERE = Path(__file__).parent

UNUSED = (
    "awaiting",
    "callers",
    "compiled",  # it is used when the library is imported
    "_child",
    "_instrumented",
    "_configuration",  # it is used where the SDK is configured by a file
    "records",  # as relays
    "relays",  # where no library is installed that uses them
    "faults",
    "tasks",  # as relays
    *(("_interpreters", "_interpreter_calls") if sys.version_info < (3, 14) else ()),
    *(("_tkinter", "posted") if find_spec("_tkinter") is None else ()),
    *(("bytecode", "monitoring", "owners") if sys.version_info < (3, 12) else ()),
)
"""Modules of which nothing but what cannot be guarded is used here, or nothing at all."""

every_module = pytest.mark.parametrize("module", modules())


@every_module
@pytest.mark.scale
@pytest.mark.timeout(600)
def test_a_function_that_raises_changes_no_result(module):
    """Wherever in a module a fault strikes, the program gets what it gets, and is told once."""
    run = subprocess.run(
        [sys.executable, HERE / "injected.py", module],
        capture_output=True,
        text=True,
        timeout=590,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    places = [json.loads(line) for line in run.stdout.splitlines()]

    assert places[0] == {"place": "nowhere", "wrong": [], "logged": [], "struck": False}
    for place in places:
        assert place["wrong"] == [], place["place"]
        assert len(set(place["logged"])) == len(place["logged"]), place
    if not module.endswith(UNUSED):
        assert any(place["struck"] for place in places)


def test_what_is_not_made_to_raise_is_there():
    """The lists of what cannot be guarded name nothing that is gone."""
    source = Path(sys.modules["injected"].SOURCE)
    code = "\n".join(path.read_text(encoding="utf-8") for path in source.rglob("*.py"))
    for name in (*STAND_INS, *PASS_ON):
        assert f"class {name}" in code or f"def {name}(" in code, name
