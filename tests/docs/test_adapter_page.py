"""The page about adapters names helpers, adapters and suites that there are."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from importlib import import_module

import pytest
from pages import REPOSITORY, blocks, text

from programs import plugins_of_pytest

TESTS = REPOSITORY / "tests" / "adapters"
PAGE = text("write-an-adapter")
TABLE = PAGE[PAGE.index("| shape |") : PAGE.index("A library often")]
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")] for line in TABLE.splitlines()[2:] if line
]


def words(cell):
    """Return the words of a cell that are written as code."""
    return re.findall(r"`([^`]+)`", cell)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_helpers_of_a_shape_are_there(row):
    """A dotted name is an attribute of a module of the library; others are of the same module."""
    module = None
    for word in words(row[2]):
        if "." in word:
            path, _, name = word.rpartition(".")
            try:
                module = import_module(f"otel_concurrency.{word}")
                continue
            except ModuleNotFoundError:
                module = import_module(f"otel_concurrency.{path}")
            assert hasattr(module, name), word
        else:
            assert hasattr(module, word), word
    assert module is not None


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_examples_and_suites_of_a_shape_are_there(row):
    """Files are adapters that use the helper, or tests; a suite is a class or a function."""
    modules = {word.split(".")[1] for word in words(row[2]) if "." in word}
    for word in words(row[3]):
        source = REPOSITORY / "src" / "otel_concurrency" / "_adapters" / word
        assert any(module in source.read_text(encoding="utf-8") for module in modules), word
    for word in words(row[4]):
        file, _, name = word.partition(".")
        if name == "py":
            assert (TESTS / word).exists()
            continue
        tree = ast.parse((TESTS / f"{file}.py").read_text(encoding="utf-8"))
        kinds = (ast.ClassDef, ast.FunctionDef)
        assert name in {node.name for node in tree.body if isinstance(node, kinds)}, word


CONVEYOR = """
import threading


class Belt:
    def __init__(self):
        self._items = []
        self._changed = threading.Condition()

    def put(self, item):
        with self._changed:
            self._items.append(item)
            self._changed.notify()

    def get(self, block=True):
        with self._changed:
            while not self._items:
                if not block:
                    raise LookupError("nothing there")
                self._changed.wait()
            return self._items.pop(0)
"""

CONFTEST = """
import sys, types

import otel_concurrency._adapters as adapters

name = "otel_concurrency._adapters._conveyor"
sys.modules[name] = module = types.ModuleType(name)
exec(open("adapter.py").read(), vars(module))
adapters.ADAPTERS = {**adapters.ADAPTERS, "conveyor": {"queue": ("conveyor",)}}

from root_conftest import *  # the fixtures of the tests
"""


def test_the_adapter_of_a_queue_meets_what_is_expected_of_all(tmp_path):
    """The adapter of the page passes the suite for items, in the test that the page shows."""
    adapter, test = (block.code for block in blocks("python") if block.page == "write-an-adapter")
    names = {"adapter.py": adapter, "conveyor.py": CONVEYOR, "test_conveyor.py": test}
    names |= {"conftest.py": CONFTEST, "pytest.ini": "[pytest]\n"}
    names["root_conftest.py"] = (REPOSITORY / "tests" / "conftest.py").read_text(encoding="utf-8")
    for name, content in names.items():
        (tmp_path / name).write_text(content, encoding="utf-8")
    path = [str(tmp_path), str(TESTS), str(REPOSITORY / "tests"), *sys.path]
    ended = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", *plugins_of_pytest(), "test_conveyor.py"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path)},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout
    assert re.search(r"^1\d passed", ended.stdout, re.MULTILINE), ended.stdout
