"""What several files of tests share."""

from __future__ import annotations

import gc
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from item_forms import Spans
from opentelemetry.instrumentation.threading import ThreadingInstrumentor

from otel_concurrency import ConcurrencyInstrumentor, _links, _spans

collect_ignore = [] if sys.version_info >= (3, 14) else ["test_interpreters.py"]
"""What is about something that this version of Python does not have."""


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


@pytest.fixture
def instrument():
    """Return what switches the library on, for the length of the test."""
    yield ConcurrencyInstrumentor().instrument
    ConcurrencyInstrumentor().uninstrument()


@pytest.fixture
def clock(monkeypatch):
    """Return a function that lets time pass, in nanoseconds, for who asks whether a span is old."""
    passed = []
    real = _links.time.time_ns

    class Clock:
        @staticmethod
        def time_ns():
            return real() + sum(passed)

    monkeypatch.setattr(_links, "time", Clock)
    monkeypatch.setattr(_spans, "time", Clock)
    return passed.append


@pytest.fixture
def official():
    """Return OpenTelemetry's own instrumentor of threads and pools; undo whatever it has left."""
    places = [
        (threading.Thread, ("start", "run")),
        (threading.Timer, ("start", "run")),
        (ThreadPoolExecutor, ("submit",)),
    ]
    before = {owner: {n: vars(owner).get(n) for n in names} for owner, names in places}
    yield ThreadingInstrumentor()
    if ThreadingInstrumentor().is_instrumented_by_opentelemetry:
        ThreadingInstrumentor().uninstrument()
    for owner, attributes in before.items():
        for name, attribute in attributes.items():
            if attribute is not None:
                setattr(owner, name, attribute)
            elif name in vars(owner):
                delattr(owner, name)
