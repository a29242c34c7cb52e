"""Calls that are pickled together with their context, by any pickler.

For libraries that pickle a function and its arguments, and whose messages cannot carry additional
bytes. Unpickling gives a callable that runs in the context, or the plain function if this library
cannot be imported there. The pickle contains source text for ``exec``, plain values, and the
function as it would be pickled without this library.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

from otel_concurrency import _settings
from otel_concurrency._core import handoff
from otel_concurrency._core.handoff import NO_CONTEXT, BodyCall, Seam
from otel_concurrency._crossing import carrier
from otel_concurrency._crossing.carrier import Headers

_RECEIVE = """\
try:
    from importlib import import_module
    from otel_concurrency import _child
    _child.instrument(settings)
    call = import_module(receiver).received(function, headers)
except Exception:
    call = function
"""

_CALL = "(exec(text, scope), scope['call'])[1]"


class PortableCall:
    """A function with headers. Unpickling it gives the result of ``receiver.received()``.

    ``receiver`` is the name of a module of this library. The process that unpickles is instrumented
    like this one, after the modules of the function have been imported there.
    """

    __slots__ = ("_function", "_headers", "_receiver", "_settings")

    def __init__(
        self,
        function: Callable[..., Any],
        headers: Headers | None,
        settings: Mapping[str, Any],
        receiver: str = __name__,
    ) -> None:
        self._function = function
        self._headers = headers
        self._settings = settings
        self._receiver = receiver

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._function(*args, **kwargs)

    def __reduce__(self) -> tuple[Any, ...]:
        scope = {
            "function": self._function,
            "headers": self._headers,
            "settings": self._settings,
            "receiver": self._receiver,
        }
        return eval, (_CALL, {"text": _RECEIVE, "scope": scope})


def portable(seam: Seam, function: Any, receiver: str = __name__, *, empty: bool = True) -> Any:
    """Return ``function`` as a portable call in the current context.

    Returns ``function`` itself if hand-offs are not captured, or if there is no context to carry
    and ``empty`` is false. Never raises.
    """
    try:
        settings = _settings.in_force
        if not seam.active or settings is None or not callable(function):
            return function
        headers = carrier.capture(seam, function)
        if headers is None and not empty:
            return function
        return PortableCall(function, headers, settings.as_keywords(), receiver)
    except Exception as error:
        handoff.report_fault("capture", error)
        return function


def received(function: Callable[..., Any], headers: Headers | None) -> Callable[..., Any]:
    """Return a function that calls ``function`` in the context of ``headers``, any number of times.

    Without headers that is the empty context. So a context that one call forgets to detach does not
    reach the next call.
    """
    context = carrier.unpack_safely(headers) or NO_CONTEXT

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        return BodyCall(context, function)(*args, **kwargs)

    return call
