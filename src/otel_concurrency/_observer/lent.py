"""A tracer provider for a program that has none, for as long as it is watched.

Without one a program's spans are not even made. Tracers that are asked for meanwhile are kept by
programs for good, so these stand for whichever provider is there when a span is started.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

from opentelemetry import trace

from otel_concurrency._observer.shared import Shared

_api: Any = trace  # which has no public way to ask, or to take back


_lending = Shared()


@contextmanager
def provider() -> Generator[None, None, None]:
    """See to it that spans are made: lend the program a provider, unless it has one.

    What the program configures itself meanwhile takes its place. Needs the SDK.
    """
    trace.get_tracer_provider()  # one that the environment names is loaded
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
        """Makes spans, for as long as it is the global one."""

        def get_tracer(self, *args: Any, **kwargs: Any) -> Any:
            return _LentTracer(super().get_tracer(*args, **kwargs), self, args, kwargs)

    return Lent(sampler=sampling.ALWAYS_ON, shutdown_on_exit=False)


class _LentTracer(trace.Tracer):
    """The tracer of whichever provider is there."""

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
