"""Generators that are context managers in another shape: what they attach is their user's.

Those of other libraries than every run of the tests has are in
``tests/adapters/test_generators.py``.
"""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
import textwrap

import pluggy
import pytest
from opentelemetry import trace

from otel_concurrency import ConcurrencyInstrumentor
from otel_concurrency._generators import monitoring
from programs import plugins_of_pytest

pytestmark = pytest.mark.usefixtures("instrumented")


def current_name():
    """Return the name of the span that is current, if there is one."""
    return getattr(trace.get_current_span(), "name", None)


@contextlib.contextmanager
def manager(tracer):
    """Hold a span for whoever enters."""
    with tracer.start_as_current_span("manager"):
        yield


@contextlib.asynccontextmanager
async def async_manager(tracer):
    """Hold a span for whoever enters."""
    await asyncio.sleep(0)
    with tracer.start_as_current_span("manager"):
        await asyncio.sleep(0)
        yield
    await asyncio.sleep(0)


def test_a_context_manager_holds_its_span_for_the_block(tracer):
    """The span is current in the block, for functions that it decorates, and not afterwards."""
    with manager(tracer):
        assert current_name() == "manager"

    @manager(tracer)
    def decorated():
        return current_name()

    assert decorated() == "manager"
    assert current_name() is None


def test_an_exit_stack_holds_its_span_for_the_block(tracer):
    """Whether it is entered at once, later, or handed on."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(manager(tracer))
        assert current_name() == "manager"
        later = stack.pop_all()
    assert current_name() == "manager"
    later.close()
    assert current_name() is None


def test_an_asynchronous_context_manager_holds_its_span_for_the_block(tracer):
    """The same for `async with`, and an `AsyncExitStack`."""

    async def main():
        names = []
        async with async_manager(tracer):
            names.append(current_name())
        async with contextlib.AsyncExitStack() as stack:
            await stack.enter_async_context(async_manager(tracer))
            stack.enter_context(manager(tracer))
            names.append(current_name())
        return [*names, current_name()]

    assert asyncio.run(main()) == ["manager", "manager", None]


@pytest.mark.skipif(
    not monitoring.IS_THERE, reason="before CPython 3.12 a suspension is not heard of"
)
def test_a_generator_inside_a_context_manager_keeps_its_own(tracer):
    """What a context manager reads from is no context manager."""

    def stream():
        with tracer.start_as_current_span("stream"):
            yield current_name()
            yield current_name()

    @contextlib.contextmanager
    def reading():
        chunks = stream()
        with tracer.start_as_current_span("manager"):
            assert next(chunks) == "stream"
            yield chunks

    with reading() as chunks:
        assert current_name() == "manager"
        assert next(chunks) == "stream"
        assert current_name() == "manager"
    assert current_name() is None


def test_a_wrapper_of_a_hook_holds_its_span_for_what_it_wraps(tracer):
    """pluggy: both kinds of wrappers."""
    specification, implementation = pluggy.HookspecMarker("x"), pluggy.HookimplMarker("x")

    class Specification:
        @specification
        def hook(self):
            """Do something."""

    class Old:
        @implementation(hookwrapper=True)
        def hook(self):
            with tracer.start_as_current_span("old"):
                yield

    class New:
        @implementation(wrapper=True)
        def hook(self):
            with tracer.start_as_current_span("new"):
                return (yield)

    class Plain:
        @implementation
        def hook(self):
            return current_name()

    for wrapper, name in ((Old, "old"), (New, "new")):
        manager = pluggy.PluginManager("x")
        manager.add_hookspecs(Specification)
        for plugin in (Plain(), wrapper()):
            manager.register(plugin)
        assert manager.hook.hook() == [name]
    assert current_name() is None


def test_more_is_excluded_by_the_setting(tracer):
    """By the name of the generator function, or of the function that resumes it."""

    def driver(generator):
        next(generator)

    def mine():
        with tracer.start_as_current_span("mine"):
            yield

    ConcurrencyInstrumentor().uninstrument()
    for excluded in (f"{__name__}.{mine.__qualname__}", f"{__name__}.{driver.__qualname__}"):
        ConcurrencyInstrumentor().instrument(excluded=excluded)
        generator = mine()
        driver(generator)
        assert current_name() == "mine"
        generator.close()
        assert current_name() is None
        ConcurrencyInstrumentor().uninstrument()


CONFTEST = """
import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from otel_concurrency import ConcurrencyInstrumentor

ConcurrencyInstrumentor().instrument()
tracer = TracerProvider().get_tracer("tests")

def current_name():
    return getattr(trace.get_current_span(), "name", None)

@pytest.fixture
def held():
    with tracer.start_as_current_span("fixture"):
        yield

@pytest.fixture(scope="session")
def held_for_all():
    with tracer.start_as_current_span("session"):
        yield
"""


def run_pytest(path, tests, *plugins):
    """Run pytest with these plugins, in a process of its own, and return what it says."""
    (path / "conftest.py").write_text(CONFTEST)
    (path / "test_it.py").write_text(textwrap.dedent(tests))
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", *plugins_of_pytest(*plugins), str(path)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        cwd=path,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "Failed to detach" not in ran.stdout + ran.stderr
    return ran.stdout


def test_a_fixture_of_pytest_holds_its_span_for_the_test(tmp_path):
    """In tests, in `unittest`'s, and under hypothesis; not in the next test."""
    said = run_pytest(
        tmp_path,
        """
        import unittest
        import hypothesis
        import pytest
        from conftest import current_name, tracer
        from otel_concurrency._generators import monitoring

        def test_none():
            assert current_name() is None

        def test_held(held):
            assert current_name() == "fixture"

        def test_none_again():
            assert current_name() is None

        def test_nested(held_for_all, held):
            assert current_name() == "fixture"

        def test_session_goes_on():
            assert current_name() == "session"

        def test_a_generator_in_a_test_keeps_its_own(held):
            def stream():
                with tracer.start_as_current_span("stream"):
                    yield current_name()
            chunks = stream()
            assert next(chunks) == "stream"
            assert current_name() == ("fixture" if monitoring.IS_THERE else "stream")
            chunks.close()

        @hypothesis.settings(suppress_health_check=list(hypothesis.HealthCheck), max_examples=5)
        @hypothesis.given(hypothesis.strategies.integers())
        def test_hypothesis(held, number):
            assert current_name() == "fixture"

        class Case(unittest.TestCase):
            @pytest.fixture(autouse=True)
            def fixture(self):
                with tracer.start_as_current_span("case"):
                    yield

            def setUp(self):
                self.enterContext(tracer.start_as_current_span("setUp"))

            def test_case(self):
                assert current_name() == "setUp"
        """
        if sys.version_info >= (3, 11)
        else """
        from conftest import current_name

        def test_held(held):
            assert current_name() == "fixture"
        """,
        "hypothesispytest",
    )
    assert "passed" in said
