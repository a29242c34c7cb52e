"""The tracer provider of a program that is looked at and does not configure one.

Its spans are seen without any exporter. But a program that sets a provider of its own, be it
after its first spans, keeps it, with all that it exports: this one then stands back, and the
tracers that it has given go over to the program's.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

from opentelemetry import trace
from opentelemetry.util._once import Once


def provide() -> None:
    """Make a plain provider of the SDK the global one, unless there is one, until one is set.

    May raise.
    """
    from opentelemetry.sdk.trace import TracerProvider

    module: Any = trace  # which has no public way to ask, or to take back
    if module._TRACER_PROVIDER is not None:
        return
    given: weakref.WeakKeyDictionary[trace.Tracer, tuple[Any, ...]] = weakref.WeakKeyDictionary()

    class Provider(TracerProvider):
        """The SDK's, which remembers what tracers it has given."""

        def get_tracer(self, *args: Any, **kwargs: Any) -> trace.Tracer:
            tracer: trace.Tracer = super().get_tracer(*args, **kwargs)
            given[tracer] = args, kwargs
            return tracer

    def stand_back() -> None:
        successor = trace.get_tracer_provider()
        for tracer, (args, kwargs) in list(given.items()):
            own: Any = tracer
            follower = successor.get_tracer(*args, **kwargs)
            own.start_span = follower.start_span
            own.start_as_current_span = follower.start_as_current_span

    module._TRACER_PROVIDER = Provider()
    module._TRACER_PROVIDER_SET_ONCE = _OnceThen(stand_back)


class _OnceThen(Once):
    """Like :class:`Once`, and calls ``then`` after it."""

    def __init__(self, then: Callable[[], None]) -> None:
        super().__init__()
        self._then = then

    def do_once(self, func: Callable[[], None]) -> bool:
        done = super().do_once(func)
        if done:
            self._then()
        return done
