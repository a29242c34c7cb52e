"""Generators that are context managers or coroutines in another shape, in the real libraries.

Each test says what is current where, with the library and without it: that does not differ.
"""

import asyncio
import contextlib
import logging
import subprocess
import sys
import textwrap
from typing import Annotated

import pytest
from fastapi import Depends, FastAPI
from opentelemetry import trace
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from tornado import gen
from twisted.internet.defer import Deferred, inlineCallbacks
from web import client, get, serving

from otel_concurrency import ConcurrencyInstrumentor
from programs import plugins_of_pytest


@pytest.fixture(params=[True, False], ids=["with the library", "without it"])
def library(request):
    """Have the library on, or off."""
    if request.param:
        ConcurrencyInstrumentor().instrument()
    yield request.param
    if request.param:
        ConcurrencyInstrumentor().uninstrument()


def current_name():
    """Return the name of the span that is current, if there is one."""
    return getattr(trace.get_current_span(), "name", None)


CONFTEST = """
import asyncio
import contextlib
import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider

tracer = TracerProvider(shutdown_on_exit=False).get_tracer("tests")

def current_name():
    return getattr(trace.get_current_span(), "name", None)
"""
ON = """
from otel_concurrency import ConcurrencyInstrumentor
ConcurrencyInstrumentor().instrument()
"""


def run_pytest(directory, tests, plugin, *, library):
    """Run pytest with one of the plugins, in a process of its own."""
    (directory / "conftest.py").write_text(CONFTEST + (ON if library else ""), encoding="utf-8")
    (directory / "test_it.py").write_text(textwrap.dedent(tests), encoding="utf-8")
    (directory / "pytest.ini").write_text(
        "[pytest]\n" + "asyncio_default_fixture_loop_scope = function\n" * (plugin == "asyncio")
    )
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", *plugins_of_pytest(plugin)],
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    assert "Failed to detach" not in said


def test_fixtures_of_pytest_asyncio(library, tmp_path):
    """The span of a fixture that yields is current in the test, and gone in the next one."""
    run_pytest(
        tmp_path,
        """
        import asyncio
        import pytest
        import pytest_asyncio
        from conftest import current_name, tracer

        @pytest_asyncio.fixture
        async def held():
            await asyncio.sleep(0)
            with tracer.start_as_current_span("fixture"):
                await asyncio.sleep(0)
                yield
                assert current_name() == "fixture"

        @pytest_asyncio.fixture
        async def nested(held):
            with tracer.start_as_current_span("nested"):
                yield

        @pytest.mark.asyncio
        async def test_held(held):
            await asyncio.sleep(0)
            assert current_name() == "fixture"

        @pytest.mark.asyncio
        async def test_none():
            assert current_name() is None

        @pytest.mark.asyncio
        async def test_nested(nested):
            assert current_name() == "nested"

        @pytest.mark.asyncio
        async def test_none_again():
            assert current_name() is None
        """,
        "asyncio",
        library=library,
    )


def test_fixtures_of_anyio(library, tmp_path):
    """So it is under anyio, on both backends."""
    run_pytest(
        tmp_path,
        """
        import anyio
        import pytest
        from conftest import current_name, tracer

        pytestmark = pytest.mark.anyio

        @pytest.fixture(params=["asyncio", "trio"])
        def anyio_backend(request):
            return request.param

        @pytest.fixture
        async def held(anyio_backend):
            await anyio.sleep(0)
            with tracer.start_as_current_span("fixture"):
                await anyio.sleep(0)
                yield
                assert current_name() == "fixture"

        @pytest.fixture
        async def nested(held):
            with tracer.start_as_current_span("nested"):
                yield

        async def test_held(held):
            await anyio.sleep(0)
            assert current_name() == "fixture"

        async def test_none():
            assert current_name() is None

        async def test_nested(nested):
            assert current_name() == "nested"

        async def test_none_again():
            assert current_name() is None
        """,
        "anyio",
        library=library,
    )


def test_dependencies_of_fastapi(library, tracer, caplog):
    """The span of an asynchronous dependency that yields is current in the endpoint."""

    async def outer():
        with tracer.start_as_current_span("outer"):
            yield
            ended.append(current_name())

    async def inner(_: Annotated[None, Depends(outer)]):
        await asyncio.sleep(0)
        with tracer.start_as_current_span("inner"):
            await asyncio.sleep(0)
            yield
            ended.append(current_name())

    ended = []
    app = FastAPI()

    @app.get("/both", dependencies=[Depends(inner)])
    async def both():
        return current_name()

    @app.get("/none")
    async def none():
        return current_name()

    with caplog.at_level(logging.WARNING), serving(app) as address, client(address) as connection:
        for _ in range(2):
            assert get(connection, "/both") == ['"inner"']
            assert get(connection, "/none") == ["null"]
    assert ended == ["inner", "outer"] * 2
    assert not caplog.records


def test_synchronous_dependencies_of_fastapi(library, tracer, caplog):
    """It enters and leaves them in threads, each in a context that nobody else is in."""

    def dependency():
        with tracer.start_as_current_span("dependency"):
            seen.append(current_name())
            yield

    seen = []
    app = FastAPI()

    @app.get("/", dependencies=[Depends(dependency)])
    async def endpoint():
        return current_name()

    with serving(app) as address, client(address) as connection:
        for _ in range(2):
            assert get(connection, "/") == ["null"]
    assert seen == ["dependency"] * 2
    # As OpenTelemetry logs it without the library: the context is left elsewhere.
    assert [record.message for record in caplog.records] == ["Failed to detach context"] * 2


def test_lifespan_of_starlette(library, tracer, caplog):
    """The span over its `yield` is current in the lifespan's own task, and in no request."""

    @contextlib.asynccontextmanager
    async def lifespan(_app):
        with tracer.start_as_current_span("lifespan"):
            await asyncio.sleep(0)
            yield
            seen.append(current_name())
        seen.append(current_name())

    async def endpoint(_request):
        return PlainTextResponse(str(current_name()))

    seen = []
    app = Starlette(routes=[Route("/", endpoint)], lifespan=lifespan)
    with (
        caplog.at_level(logging.WARNING),
        serving(app, lifespan="on") as address,
        client(address) as connection,
    ):
        assert get(connection, "/") == ["None"]
    assert seen == ["lifespan", None]
    assert not caplog.records


def test_inline_callbacks_of_twisted(library, tracer, caplog):
    """Such a generator keeps its span, whoever fires what it waits for keeps its own."""

    @inlineCallbacks
    def work():
        with tracer.start_as_current_span("work"):
            for deferred in waits:
                seen.append(current_name())
                yield deferred
            seen.append(current_name())
        seen.append(current_name())
        return "done"

    waits, seen, results = [Deferred(), Deferred()], [], []
    with tracer.start_as_current_span("caller"):
        work().addCallback(results.append)
        assert current_name() == "caller"
    for deferred in waits:
        with tracer.start_as_current_span("other"):
            deferred.callback(None)
            assert current_name() == "other"
    assert seen == ["work", "work", "work", "caller"]
    assert results == ["done"]
    assert current_name() is None
    assert not caplog.records


def test_coroutines_of_tornado(library, tracer, caplog):
    """Such a generator keeps its span, and its caller goes on in the caller's own."""

    @gen.coroutine
    def work():
        with tracer.start_as_current_span("work"):
            for future in waits:
                seen.append(current_name())
                yield future
            seen.append(current_name())
        seen.append(current_name())
        return "done"

    async def main():
        waits.extend(asyncio.get_running_loop().create_future() for _ in range(2))
        with tracer.start_as_current_span("caller"):
            working = work()
            assert current_name() == "caller"
        for future in waits:
            with tracer.start_as_current_span("other"):
                future.set_result(None)
                await asyncio.sleep(0)
                assert current_name() == "other"
        assert await working == "done"
        assert current_name() is None

    waits, seen = [], []
    asyncio.run(main())
    assert seen == ["work", "work", "work", "caller"]
    assert not caplog.records
