"""Libraries that patch what this one patches, or bring workers of their own, and what that changes.

A library is *found* where it is imported, and *active* where it has patched the standard library.
Not every library shows whether it has.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

from otel_concurrency import _official_threading


class Neighbour(NamedTuple):
    """A library that ``status`` names where the program imports it."""

    name: str
    module: str
    changes: str
    is_active: Callable[[], bool] | None = None
    is_set_aside: Callable[[], bool] = bool
    """Whether it has nothing to do as long as this library is on."""


def _instrumentor(module: str, name: str) -> Callable[[], bool]:
    def is_active() -> bool:
        instrumentor: Any = getattr(sys.modules[module], name)()
        return bool(instrumentor.is_instrumented_by_opentelemetry)

    return is_active


def _gevent_is_active() -> bool:
    monkey: Any = sys.modules.get("gevent.monkey")
    return monkey is not None and bool(monkey.is_module_patched("threading"))


def _eventlet_is_active() -> bool:
    patcher: Any = sys.modules.get("eventlet.patcher")
    return patcher is not None and bool(patcher.is_monkey_patched("thread"))


_OWN_CONTEXT = (
    "carries a context of its own to threads and pools, by patches beside this library's; spans of "
    "OpenTelemetry have the parent that this library gives them"
)
_OWN_WORKERS = "its own {} are covered where they use the standard library's"

NEIGHBOURS = (
    Neighbour(
        "opentelemetry-instrumentation-threading",
        _official_threading.MODULE,
        "this library sets it aside, carries context in its place, and gives it back when it is "
        f"switched off. Where it is kept ({_official_threading.SETTING}=true), it attaches the "
        "context that it captured itself, and `link` has no effect for pools, nor for the rounds "
        "of timers. It is not needed: OTEL_PYTHON_DISABLED_INSTRUMENTATIONS=threading",
        _instrumentor(_official_threading.MODULE, "ThreadingInstrumentor"),
        _official_threading.is_set_aside,
    ),
    Neighbour(
        "opentelemetry-instrumentation-asyncio",
        "opentelemetry.instrumentation.asyncio",
        "makes spans and metrics of coroutines; context is carried without it",
        _instrumentor("opentelemetry.instrumentation.asyncio", "AsyncioInstrumentor"),
    ),
    Neighbour("sentry-sdk", "sentry_sdk", _OWN_CONTEXT),
    Neighbour("ddtrace", "ddtrace", _OWN_CONTEXT),
    Neighbour("newrelic", "newrelic.agent", _OWN_CONTEXT),
    Neighbour("elastic-apm", "elasticapm", _OWN_CONTEXT),
    Neighbour(
        "gevent",
        "gevent",
        "where it has patched the standard library, threads are greenlets; "
        + _OWN_WORKERS.format("greenlets and pools"),
        _gevent_is_active,
    ),
    Neighbour(
        "eventlet",
        "eventlet",
        "where it has patched the standard library, threads are green; "
        + _OWN_WORKERS.format("green threads and pools"),
        _eventlet_is_active,
    ),
    Neighbour(
        "uvloop",
        "uvloop",
        "`run_in_executor` is covered with a thread pool, but not with an executor of your own",
    ),
    Neighbour("twisted", "twisted.internet", _OWN_WORKERS.format("threads and deferreds")),
    Neighbour("trio", "trio", _OWN_WORKERS.format("worker threads")),
)


def found() -> list[dict[str, Any]]:
    """Return the libraries that are imported in this process, as plain data."""
    return [_as_data(neighbour) for neighbour in NEIGHBOURS if neighbour.module in sys.modules]


def installed() -> list[str]:
    """Return the names of the libraries that are installed."""
    return [neighbour.name for neighbour in NEIGHBOURS if _is_installed(neighbour.module)]


def _as_data(neighbour: Neighbour) -> dict[str, Any]:
    active = _is_active(neighbour)
    return {
        "name": neighbour.name,
        "changes": neighbour.changes,
        "active": active,
        "set_aside": bool(active) and neighbour.is_set_aside(),
    }


def _is_active(neighbour: Neighbour) -> bool | None:
    """Return whether it has patched something; None where it does not show."""
    if neighbour.is_active is None:
        return None
    try:
        return neighbour.is_active()
    except Exception:  # theirs, in a version that is not known here
        return None


def _is_installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        return False
