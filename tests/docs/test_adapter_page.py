"""The page about adapters names helpers, adapters and suites that there are."""

from __future__ import annotations

import ast
import re
from importlib import import_module

import pytest
from pages import REPOSITORY, text

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
