"""A temporary tracer provider for a program that has none, while it is watched.

Without a provider no spans are recorded. Programs keep the tracers that they get, even after this
provider is removed. So each tracer uses the provider that is global when a span is started.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

from opentelemetry import trace

from otel_concurrency._observer.shared import Shared

_api: Any = trace  # it has no public way to check for a provider or to remove one


_lending = Shared()


@contextmanager
def provider() -> Generator[None, None, None]:
    """Set a tracer provider inside the ``with`` block, unless the program has one.

    A provider that the program sets inside the block replaces it. Needs the SDK.
    """
    trace.get_tracer_provider()  # this loads a provider that the environment names
    if _api._TRACER_PROVIDER is not None and not _lending.is_used:
        yield
        return
    with _lending.used(_lend):
        yield


def _lend() -> Callable[[], None]:
    lent = _lent_provider()
    _api._TRACER_PROVIDER = lent

    def take_back() -> None:
        if _api._TRACER_PROVIDER is lent:
            _api._TRACER_PROVIDER = None

    return take_back


@functools.cache
def _lent_provider() -> Any:
    from opentelemetry.sdk.trace import TracerProvider, sampling

    class Lent(TracerProvider):
        """A provider whose tracers use it only while it is the global provider."""

        def get_tracer(self, *args: Any, **kwargs: Any) -> Any:
            return _LentTracer(super().get_tracer(*args, **kwargs), self, args, kwargs)

    return Lent(sampler=sampling.ALWAYS_ON, shutdown_on_exit=False)


class _LentTracer(trace.Tracer):
    """Delegates to a tracer of the provider that is global at the time of the call."""

    def __init__(self, own: Any, lent: Any, args: Any, kwargs: Any) -> None:
        self._own = own
        self._lent = lent
        self._arguments = args, kwargs

    def _tracer(self) -> Any:
        present = _api._TRACER_PROVIDER
        if present is self._lent:
            return self._own
        args, kwargs = self._arguments
        return (present or trace.NoOpTracerProvider()).get_tracer(*args, **kwargs)

    def start_span(self, *args: Any, **kwargs: Any) -> Any:
        return self._tracer().start_span(*args, **kwargs)

    def start_as_current_span(self, *args: Any, **kwargs: Any) -> Any:
        return self._tracer().start_as_current_span(*args, **kwargs)
