"""Exports what a child process has recorded, before it ends.

Forked children of ``multiprocessing`` end without running exit handlers, and everything that the
SDK's batch processors still hold is lost. So the providers are flushed when the child's work is
done and its threads still run, since some exporters need a pool of threads. They are flushed again
if threads, exit handlers or finalizers run after that, since these may record more.

The SDK's time-outs do not stop an exporter that never returns (opentelemetry-sdk to 1.45), but a
child has to end. So each provider is flushed on a separate thread, which is left behind when the
time is up. It is a daemon thread: it delays neither a forked child, which ends by ``os._exit``, nor
the end of a spawned child's interpreter.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from otel_concurrency._child_exit import after_fork, providers
from otel_concurrency._core import faults

_logger = logging.getLogger(__name__)

timeout = 0
"""How many milliseconds all providers together may take; 0: they are not flushed at all."""

_process = os.getpid()
"""The process that imported this module. A forked child has its parent's id here."""


def before_child() -> None:
    """Make sure that a child which is about to be forked will be able to export. Never raises.

    The requests library (to 2.34) imports ``netrc`` at its first request. If the child is forked
    while a thread of the parent imports it, the child would wait for ever for that import to end.
    """
    if timeout > 0 and "requests" in sys.modules:
        try:
            import netrc  # noqa: F401  # pyright: ignore[reportUnusedImport]  # waits for that thread
        except Exception as error:
            _report_fault(error)


def at_start_of_child() -> None:
    """Make sure that a forked child exports only its telemetry, by its connections. Never raises.

    Call it before any of the user's code runs.
    """
    if timeout <= 0 or os.getpid() == _process:
        return
    if "urllib3" not in sys.modules and providers.METRICS.sdk not in sys.modules:
        return  # what is touched in a child is copied: most children are spared it
    try:
        for signal in providers.SIGNALS:
            for provider in providers.of(signal):
                after_fork.forget_connections(provider)
                after_fork.forget_measurements(provider)
    except Exception as error:
        _report_fault(error)


def is_needed() -> bool:
    """Whether a child may have something to export, as far as this process can tell."""
    return timeout > 0 and providers.are_in_use()


_Flush = tuple[Any, "Callable[[Exception], None]"]
"""A provider to flush, and what to call where that fails."""


class Departure:
    """The end of a child process: when it exports, within one time limit for all exports.

    ``new_spans`` returns whether a span was started in this child since its last call. If none ever
    was, traces are not flushed: a span processor that does not handle forks has a copy of the
    parent's spans and would export them. ``util`` is the module with the child's finalizers.
    Nothing here raises.
    """

    def __init__(self, new_spans: Callable[[], bool], util: str = "multiprocessing.util") -> None:
        self._new_spans = new_spans
        self._util = util
        self._has_spans = False
        self._left = timeout / 1000
        self._more_to_come = True
        try:
            if timeout > 0:
                self._before_threads_are_waited_for()
        except Exception as error:
            _report_fault(error)

    def _before_threads_are_waited_for(self) -> None:
        """Export when ``multiprocessing`` calls ``threading._shutdown``: the work is done then."""
        threads: Any = threading
        plain = threads._shutdown

        def _shutdown() -> None:
            if threads._shutdown is _shutdown:
                threads._shutdown = plain
            try:
                self._when_work_is_done()
            except Exception as error:
                _report_fault(error)
            plain()

        threads._shutdown = _shutdown

    def _when_work_is_done(self) -> None:
        if self._left > 0 and (found := self._recorded()):
            self._more_to_come = any(
                thread.ident != threading.get_ident() and not thread.daemon
                for thread in threading.enumerate()
            )
            self._flush(found)
        if os.getpid() != _process:
            # From 3.13 on, a forked child runs its exit handlers and finalizers after its threads.
            util: Any = sys.modules[self._util]
            handlers = getattr(atexit, "_ncallbacks", lambda: 0)()
            if handlers > 1 or util._finalizer_registry:
                util.Finalize(None, self._export, exitpriority=-sys.maxsize)

    def end(self) -> None:
        """Export what the child's threads have recorded since its work was done."""
        if self._more_to_come:
            self._export()

    def _export(self) -> None:
        if self._left > 0 and (found := self._recorded()):
            self._flush(found)

    def _recorded(self) -> list[_Flush]:
        """Return what is to be called for everything that was recorded and is not exported yet."""
        new_spans = self._new_spans()
        # If an earlier flush has exported all spans, a fault loses nothing and is not reported.
        report = _report_fault if new_spans or not self._has_spans else _say_nothing
        self._has_spans |= new_spans
        found: list[_Flush] = []
        try:
            for signal in providers.SIGNALS:
                if signal is not providers.TRACES or self._has_spans:
                    found += [(one, report) for one in providers.of(signal) if _holds(signal, one)]
        except Exception as error:
            _report_fault(error)
        return found

    def _flush(self, found: list[_Flush]) -> None:
        began = time.monotonic()
        try:
            self._flush_all(found, began + self._left)
        except Exception as error:
            _report_fault(error)
        except BaseException:  # a signal handler raised, to stop the child: it ends anyway
            self._left = 0
        self._left -= time.monotonic() - began

    def _flush_all(self, found: list[_Flush], deadline: float) -> None:
        threads = [
            threading.Thread(target=_flush, args=(provider, self._left, report), daemon=True)
            for provider, report in found
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(max(deadline - time.monotonic(), 0))
        # An exporter may have printed. A forked child does not flush its streams after this.
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(AttributeError, ValueError):
                stream.flush()


def _holds(signal: providers.Signal, provider: Any) -> bool:
    """Whether ``provider`` may have something to export."""
    if signal is providers.METRICS:
        return after_fork.has_measurements(provider)
    return signal is providers.TRACES or after_fork.has_log_records(provider)


def _flush(provider: Any, seconds: float, report: Callable[[Exception], None]) -> None:
    try:
        provider.force_flush(int(seconds * 1000))
    except Exception as error:
        report(error)


def _say_nothing(_error: Exception) -> None:
    pass


def _report_fault(error: Exception) -> None:
    faults.once(
        _logger,
        (type(error), str(error)),
        "Telemetry of a child process may not have been exported: %s: %s",
        type(error).__name__,
        error,
    )
