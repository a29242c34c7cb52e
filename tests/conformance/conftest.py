"""What several files of tests share."""

from __future__ import annotations

import gc
import sys

import pytest
from item_forms import Spans

from otel_concurrency import ConcurrencyInstrumentor
from otel_concurrency._linking import origins, span_start

collect_ignore = (
    []
    if sys.version_info >= (3, 14)
    else [
        "test_interpreter_calls.py",
        "test_interpreters.py",
        "test_map_buffersize.py",
        "test_terminated_workers.py",
    ]
)
"""What is about something that this version of Python does not have."""


@pytest.fixture
def spans(tracer):
    """Return what names spans and tells parents."""
    return Spans(tracer)


@pytest.fixture
def no_collector():
    """Switch the collector off: what dies then dies because nothing refers to it any more."""
    gc.disable()
    yield
    gc.enable()


@pytest.fixture
def instrument():
    """Return what switches the library on, for the length of the test."""
    yield ConcurrencyInstrumentor().instrument
    ConcurrencyInstrumentor().uninstrument()


@pytest.fixture
def clock(monkeypatch):
    """Return a function that lets time pass, in nanoseconds, for who asks whether a span is old."""
    passed = []
    real = origins.time.time_ns

    class Clock:
        @staticmethod
        def time_ns():
            return real() + sum(passed)

    monkeypatch.setattr(origins, "time", Clock)
    monkeypatch.setattr(span_start, "time", Clock)
    return passed.append
