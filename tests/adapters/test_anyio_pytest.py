"""anyio under pytest, which loads it past the import hooks, since it brings a plugin."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from programs import plugins_of_pytest

TESTS = """
import pytest
from opentelemetry import baggage, context, trace
from opentelemetry.sdk.trace import TracerProvider

tracer = TracerProvider(shutdown_on_exit=False).get_tracer("tests")

@pytest.fixture(scope="module", params=["asyncio", "trio"])
def anyio_backend(request):
    return request.param

@pytest.fixture(scope="module")
async def runner(anyio_backend):
    yield "for all tests of the module"

@pytest.fixture
def origin(request):
    token = context.attach(baggage.set_baggage("tenant", request.param))
    with tracer.start_as_current_span("origin") as span:
        request.getfixturevalue("runner")  # the first of them starts it
        yield span
    context.detach(token)

@pytest.mark.anyio
@pytest.mark.parametrize("origin", ["a", "b"], indirect=True)
async def test_in_a_context(origin, request):
    parent = tracer.start_span("test").parent
    assert parent and parent.span_id == origin.get_span_context().span_id
    assert f"-{baggage.get_baggage('tenant')}]" in request.node.name

@pytest.mark.anyio
async def test_without_one(runner):
    assert not context.get_current()

def test_streams_and_processes_are_patched():
    import anyio.streams.memory, anyio.to_process
    from otel_concurrency._instrumentor import adapters_in_use
    patched = {module for (name, _), part in adapters_in_use.items() if name == "anyio"
               for module in part.layers}
    assert patched == {"anyio.streams.memory", "anyio.to_process"}
"""
ON = """
from otel_concurrency import ConcurrencyInstrumentor
ConcurrencyInstrumentor().instrument()
"""


def run(*command, directory):
    """Run a command in a directory, as a program that exports nothing."""
    # Other instrumentations import much that has no part in it.
    others = {entry.name for entry in entry_points(group="opentelemetry_instrumentor")}
    none = {f"OTEL_{signal}_EXPORTER": "none" for signal in ("TRACES", "METRICS", "LOGS")}
    none["OTEL_PYTHON_DISABLED_INSTRUMENTATIONS"] = ",".join(others - {"concurrency"})
    done = subprocess.run(
        [*command, "-m", "pytest", "-q", *plugins_of_pytest("anyio")],
        cwd=directory,
        env={**os.environ, **none},
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("how", ["opentelemetry-instrument", "conftest"])
def test_each_test_is_in_its_own_context(how, tmp_path):
    """Switched on before pytest begins, and after its plugins are loaded; under both backends.

    The task that runs all tests of a module was started in the context of the first of them.
    """
    (tmp_path / "test_anyio.py").write_text(TESTS, encoding="utf-8")
    command = [sys.executable]
    if how == "conftest":
        (tmp_path / "conftest.py").write_text(ON, encoding="utf-8")
    else:
        command.insert(0, str(Path(sys.executable).parent / how))
    assert "7 passed" in run(*command, directory=tmp_path)


def test_status_knows_of_it(tmp_path):
    """It does not say that what pytest has loaded is still to be imported."""
    (tmp_path / "test_nothing.py").write_text("def test_nothing(): import anyio.streams.memory\n")
    status = [sys.executable, "-m", "otel_concurrency", "status", "--json", "--"]
    printed = run(*status, sys.executable, directory=tmp_path)
    told = json.loads(printed[printed.index("\n{") :])
    (anyio,) = [each for each in told["adapters"] if each["name"] == "anyio"]
    assert "anyio.streams.memory" in anyio["patched"]
