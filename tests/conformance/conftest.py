"""What the tests of items share."""

from __future__ import annotations

import gc

import pytest
from item_forms import Spans


@pytest.fixture
def spans(tracer):
    """Return what names spans and tells parents."""
    return Spans(tracer)


@pytest.fixture
def no_collector():
    """Switch the collector off: what dies then dies because nothing refers to it any more."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()
