"""The pytest plugin: :mod:`otel_concurrency.testing` as a fixture, a marker and an option.

pytest loads this file wherever the library is installed. It does nothing, and imports neither the
library nor OpenTelemetry, until a test uses one of the three.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from otel_concurrency.testing import Spans

_OPTION = "otel_concurrency_fail_on_leaks"
_SETTINGS = "otel_concurrency"
_NO_LEAKS = "no_context_leaks"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option."""
    parser.addini(
        _OPTION,
        "Fail every test that leaves an OpenTelemetry context attached.",
        type="bool",
        default=False,
    )


def pytest_configure(config: pytest.Config) -> None:
    """Register the markers."""
    config.addinivalue_line(
        "markers",
        f"{_NO_LEAKS}: fail the test if it leaves an OpenTelemetry context attached.",
    )
    config.addinivalue_line(
        "markers",
        f"{_SETTINGS}(library=True, **settings): how the fixture `spans` switches otel-concurrency "
        "on; the settings are keywords of `ConcurrencyInstrumentor().instrument()`.",
    )


@pytest.fixture
def spans(request: pytest.FixtureRequest) -> Iterator[Spans]:
    """Watch the test: every span that is started in it, with assertions about how they hang
    together (`otel_concurrency.testing.Spans`)."""  # noqa: D205, D209 - `pytest --fixtures` shows it
    from otel_concurrency import testing

    item: Any = request.node
    marker = item.get_closest_marker(_SETTINGS)
    settings: dict[str, Any] = {} if marker is None else dict(marker.kwargs)
    unknown = testing.unknown_settings(settings)
    if unknown:
        pytest.fail(
            f"@pytest.mark.{_SETTINGS} does not know {', '.join(map(repr, unknown))}: its keywords "
            "are `library` and those of `ConcurrencyInstrumentor().instrument()`",
            pytrace=False,
        )
    with testing.watch(**settings) as watched:
        yield watched


def pytest_sessionstart() -> None:
    """Patch the modules that pytest has loaded or is about to load.

    pytest's assertion rewriting loads modules without calling the library's import hooks. This
    matters only if the library is on already.
    """
    imports: Any = sys.modules.get("otel_concurrency._core.imports")
    if imports is not None:
        imports.see_every_import()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_call(item: pytest.Item) -> None:
    """Make the test fail if it leaks a context and the option or the marker asks for the check."""
    if item.config.getini(_OPTION) or item.get_closest_marker(_NO_LEAKS) is not None:
        # A hook wrapper would not do: pytest has two kinds, and only the newer can fail a test.
        vars(item)["runtest"] = functools.partial(_run_without_leaks, item)


def _run_without_leaks(item: pytest.Item) -> None:
    __tracebackhide__ = True
    del vars(item)["runtest"]
    from otel_concurrency import testing

    try:
        with testing.no_leaks():
            item.runtest()
    except testing.ContextLeakError as leak:
        words = str(leak)
    else:
        return
    pytest.fail(words, pytrace=False)
