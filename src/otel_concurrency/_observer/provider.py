"""A tracer provider for a watched program that does not configure one.

Its spans are seen without any exporter. But the program may still set its own provider, even after
its first spans. That provider then replaces this one, with all that it exports, and tracers that
this one has made then use the program's provider.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

from opentelemetry import trace
from opentelemetry.util._once import Once


def provide() -> None:
    """Make a plain SDK provider the global one, unless one is set already.

    A provider that the program sets later replaces it. May raise.
    """
    from opentelemetry.sdk.trace import TracerProvider

    module: Any = trace  # it has no public way to check for a provider or to replace one
    if module._TRACER_PROVIDER is not None:
        return
    given: weakref.WeakKeyDictionary[trace.Tracer, tuple[Any, ...]] = weakref.WeakKeyDictionary()

    class Provider(TracerProvider):
        """The SDK's provider, which also remembers the tracers that it has made."""

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
    """A :class:`Once` that calls ``then`` after its function."""

    def __init__(self, then: Callable[[], None]) -> None:
        super().__init__()
        self._then = then

    def do_once(self, func: Callable[[], None]) -> bool:
        done = super().do_once(func)
        if done:
            self._then()
        return done
