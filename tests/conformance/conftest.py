"""What several files of tests share."""

from __future__ import annotations

import sys

import pytest
from item_forms import Spans

collect_ignore = (
    []
    if sys.version_info >= (3, 14)
    else [
        "test_interpreter_calls.py",
        "test_interpreters.py",
        "test_interpreters_alike.py",
        "test_map_buffersize.py",
        "test_terminated_workers.py",
    ]
)
"""What is about something that this version of Python does not have."""


@pytest.fixture
def spans(tracer):
    """Return what names spans and tells parents."""
    return Spans(tracer)
