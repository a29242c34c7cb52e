"""Fixtures that every test may use, and the rule that no test leaves a context behind."""

from __future__ import annotations

import contextvars
import gc
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from opentelemetry import context as context_api
from opentelemetry.instrumentation.asyncio import AsyncioInstrumentor
from opentelemetry.instrumentation.threading import ThreadingInstrumentor
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from interpreters import PYPY
from otel_concurrency import ConcurrencyInstrumentor, _settings
from otel_concurrency._core import faults, handoff
from otel_concurrency._linking import span_start

OFFICIAL = (ThreadingInstrumentor, AsyncioInstrumentor)

NO_CONTEXT = contextvars.Context().run(context_api.get_current)
"""What is current where nothing was ever attached."""

TESTS_BETWEEN_FREEZES = 100


def pytest_addoption(parser):
    """Have a suite run beside OpenTelemetry's own instrumentors of threads and asyncio."""
    parser.addoption(
        "--beside-official",
        choices=["before", "after"],
        help="switch the official instrumentors on before this library, or each time after it",
    )


def pytest_configure(config):
    """Let generated tests take their time; switch the official instrumentors on if that is asked.

    They are on for all of the session, or whenever this library is.
    """
    if config.pluginmanager.has_plugin("hypothesispytest"):
        from hypothesis import settings

        settings.register_profile("sample", deadline=None, max_examples=20)
        settings.register_profile("whole", deadline=None)
        settings.load_profile(config.getoption("--hypothesis-profile") or "whole")
    order = config.getoption("--beside-official")
    if order == "before":
        for official in OFFICIAL:
            official().instrument()
    elif order == "after":
        _have_the_official_ones_follow()


def _have_the_official_ones_follow():
    instrument, uninstrument = (
        ConcurrencyInstrumentor.instrument,
        ConcurrencyInstrumentor.uninstrument,
    )

    def on(self, **kwargs):
        instrument(self, **kwargs)
        for official in OFFICIAL:
            if not official().is_instrumented_by_opentelemetry:
                official().instrument()

    def off(self, **kwargs):
        for official in reversed(OFFICIAL):
            if official().is_instrumented_by_opentelemetry:
                official().uninstrument()
        uninstrument(self, **kwargs)

    ConcurrencyInstrumentor.instrument, ConcurrencyInstrumentor.uninstrument = on, off


def pytest_collection_modifyitems(config, items):
    """Leave out, beside the official ones, what is about a primitive that is off: they carry it."""
    if config.getoption("--beside-official"):
        left_out = [
            item for item in items if item.get_closest_marker("alone") or "futures off" in item.name
        ]
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


def pytest_ignore_collect(collection_path, config):
    """Leave out what patches this very process, as gevent does, unless it is what is asked for."""
    if collection_path.name == "adapters" and not any("adapters" in arg for arg in config.args):
        return True
    return None


def pytest_collection_finish():
    """Keep the tests themselves out of every collection that they make: they live to the end."""
    freeze()


def pytest_runtest_logstart():
    """Keep the reports of tests and what was imported out of collections, too: they add up.

    At the end of a suite a collection would take ten times as long as in a single test.
    """
    global started
    started += 1
    if started % TESTS_BETWEEN_FREEZES == 0:
        freeze()


started = 0


def freeze():
    """Take all that lives out of collections."""
    if hasattr(gc, "freeze"):  # PyPy has no generations to take it out of
        gc.collect()
        gc.freeze()


def pytest_sessionfinish():
    """Let hypothesis find what refers to trio's random numbers, as it does when all is over."""
    StaysOn.end()
    if hasattr(gc, "unfreeze"):
        gc.unfreeze()


class StaysOn:
    """Whether the library is on, between two tests that want it on with the same settings.

    To switch it off and on again would take longer than most tests do. The tests of ``undo`` and
    others do that themselves.
    """

    keywords = settings = None
    """What it is on with; None: it is off."""

    @classmethod
    def begin(cls, **keywords):
        """Switch it on, unless the last test has left it on as it is wanted."""
        instrumentor = ConcurrencyInstrumentor()
        if cls.keywords != keywords:
            cls.end()
        if not instrumentor.is_instrumented_by_opentelemetry:
            instrumentor.instrument(**keywords)
        cls.keywords, cls.settings = keywords, _settings.in_force
        return instrumentor

    @classmethod
    def end(cls):
        """Switch it off, if it is on."""
        cls.keywords = cls.settings = None
        if ConcurrencyInstrumentor().is_instrumented_by_opentelemetry:
            ConcurrencyInstrumentor().uninstrument()

    @classmethod
    def is_as_it_was(cls):
        """Whether a test has left it on as it found it."""
        return cls.settings is not None and _settings.in_force is cls.settings


@pytest.fixture(autouse=True)
def _nothing_left_behind(request):
    """Fail a test that leaves a context attached, the instrumentor on or a fault in a seam."""
    if StaysOn.settings is not None and "switch_on" not in request.fixturenames:
        StaysOn.end()
    faults._reported.clear()
    assert not context_api.get_current(), "an earlier test left its context attached"
    seams = {**handoff.seams}
    yield
    instrumentor = ConcurrencyInstrumentor()
    was_on = instrumentor.is_instrumented_by_opentelemetry and not StaysOn.is_as_it_was()
    if not StaysOn.is_as_it_was():
        StaysOn.end()
    span_start.give_none()  # what links by hand patch stays for good
    left = context_api.get_current()
    if left is not NO_CONTEXT:  # an empty one that was attached counts as one that was asked for
        context_api.attach(NO_CONTEXT)
    assert not left, "the test left its context attached"
    assert not was_on, "the test left the instrumentor on"
    for seam in handoff.seams.values():
        stock = seam.current is seam.concerned is handoff.get_current
        assert stock, f"the test left something in the seam {seam.name!r}"
    replaced = [name for name in seams if handoff.seams.get(name) is not seams[name]]
    handoff.seams.update(seams)
    assert not replaced, f"the test left other seams in the place of {replaced}"


@pytest.fixture
def switch_on():
    """Return what switches the library on, with given keywords, for the length of a test."""
    yield StaysOn.begin
    if not StaysOn.is_as_it_was():
        StaysOn.end()


@pytest.fixture
def instrumented(switch_on):
    """Switch every primitive on, with its default policy, for the length of a test."""
    return switch_on()


@pytest.fixture
def exporter():
    """Return an in-memory exporter that holds every finished span of ``tracer``."""
    return InMemorySpanExporter()


@pytest.fixture
def tracer(exporter):
    """Return a tracer of a provider of its own; no global provider is set."""
    # Without a resource, since to find one reads the metadata of every package that is installed.
    provider = TracerProvider(resource=Resource.get_empty(), shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    yield provider.get_tracer("tests")
    provider.shutdown()


@pytest.fixture
def official(pytestconfig):
    """Return OpenTelemetry's own instrumentor of threads and pools; undo whatever it has left."""
    if pytestconfig.getoption("--beside-official"):
        pytest.skip("the whole suite runs beside it")
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


@pytest.fixture
def instrument():
    """Return what switches the library on, for the length of the test."""
    yield ConcurrencyInstrumentor().instrument
    ConcurrencyInstrumentor().uninstrument()


@pytest.fixture
def clock(monkeypatch):
    """Return a function that lets time pass, in nanoseconds, for who asks whether a span is old."""
    from otel_concurrency._linking import origins, span_start

    passed = []
    real = origins.time.time_ns

    class Clock:
        @staticmethod
        def time_ns():
            return real() + sum(passed)

    monkeypatch.setattr(origins, "time", Clock)
    monkeypatch.setattr(span_start, "time", Clock)
    return passed.append


@pytest.fixture
def no_collector():
    """Switch the collector off: what dies then dies because nothing refers to it any more.

    On PyPy nothing dies without it: there a weak reference collects before it is looked at.
    """
    if PYPY:
        yield
        return
    gc.collect()
    gc.disable()
    yield
    gc.enable()
