"""Conditions of tests that count on what not every interpreter has, each with its reason."""

from __future__ import annotations

import sys

import pytest

PYPY = sys.implementation.name == "pypy"

counts_references = pytest.mark.skipif(
    PYPY, reason="PyPy frees what nothing refers to when it collects, not at once"
)
measures_memory = pytest.mark.skipif(PYPY, reason="PyPy has no tracemalloc; sizes are CPython's")
