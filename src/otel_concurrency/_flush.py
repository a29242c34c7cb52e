"""Exports what a child process has recorded, before it ends.

The children of ``multiprocessing`` that were forked leave without running exit handlers, and with
them goes all that the SDK's batch processors still hold. So the providers are flushed at their end.
The SDK's own time-outs do not bound an exporter that never returns (opentelemetry-sdk to 1.45), and
a child has to end: each provider is flushed on a thread of its own, which is waited for until the
time is up and then left behind. As a daemon it keeps neither a forked child, which leaves by
``os._exit``, nor the end of a spawned child's interpreter.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

from otel_concurrency import _forked, _report

_logger = logging.getLogger(__name__)

timeout = 0
"""How many milliseconds all providers together may take; 0: they are not flushed at all."""

_SIGNALS = (
    ("opentelemetry.sdk.trace", "opentelemetry.trace", "get_tracer_provider"),
    ("opentelemetry.sdk.metrics", "opentelemetry.metrics", "get_meter_provider"),
    ("opentelemetry.sdk._logs", "opentelemetry._logs", "get_logger_provider"),
)
"""The SDK of a signal, its API, and what returns its global provider."""

_process = os.getpid()
"""The process that has imported this; in a forked child it is the parent."""


def before_child() -> None:
    """Make sure that a child which is about to be forked will be able to export. Never raises.

    With its first request requests (to 2.34) imports a module. A child that is forked while a
    thread of its parent is about it would wait for ever for that thread to finish.
    """
    if timeout > 0 and "requests" in sys.modules:
        try:
            import netrc  # noqa: F401  # pyright: ignore[reportUnusedImport]  # waits for that thread
        except Exception as error:
            _report_fault(error)


def at_start_of_child() -> None:
    """Make sure that a forked child exports what is its own, and in its own way. Never raises.

    To be called before any of the user's code.
    """
    if timeout <= 0 or os.getpid() == _process:
        return
    try:
        for provider in _providers():
            _forked.forget_connections(provider)
            _forked.forget_measurements(provider)
    except Exception as error:
        _report_fault(error)


def is_needed() -> bool:
    """Whether a child may have something to export, as far as this process can tell."""
    return timeout > 0 and any(sdk in sys.modules for sdk, _, _ in _SIGNALS)


def at_exit_of_child(*, spans: bool) -> None:
    """Flush the global providers, for ``timeout`` at most. Never raises.

    Without ``spans``, none having been started in this child, not that of traces: a processor that
    does not know of forks has a copy of its parent's spans, and would export those.

    To be called at the end of a child process, when its work and its threads are done. What an
    exporter has printed goes out as well: a forked child leaves without flushing its streams again.
    """
    if timeout <= 0:
        return
    try:
        deadline = time.monotonic() + timeout / 1000
        threads = [
            threading.Thread(target=_flush, args=(provider,), daemon=True)
            for provider in _providers(but=None if spans else _SIGNALS[0])
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(max(deadline - time.monotonic(), 0))
        if threads:
            util: Any = sys.modules.get("multiprocessing.util")
            util._flush_std_streams()
    except Exception as error:
        _report_fault(error)
    except BaseException:  # noqa: S110 - a signal's handler has had enough; the child leaves anyway
        pass


def _providers(but: tuple[str, str, str] | None = None) -> Iterator[Any]:
    """Yield the global providers that can be flushed, ``but`` that of one signal.

    Of a signal whose SDK is not imported nothing was recorded; to ask for its provider could
    import one.
    """
    for signal in _SIGNALS:
        sdk, api, getter = signal
        if signal is not but and sdk in sys.modules and api in sys.modules:
            provider = getattr(sys.modules[api], getter)()
            if callable(getattr(provider, "force_flush", None)):
                yield provider


def _flush(provider: Any) -> None:
    try:
        provider.force_flush(timeout)
    except Exception as error:
        _report_fault(error)


def _report_fault(error: Exception) -> None:
    _report.once(
        _logger,
        (type(error), str(error)),
        "What a child process records may not be exported: %s: %s",
        type(error).__name__,
        error,
    )
