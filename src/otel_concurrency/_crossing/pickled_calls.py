"""Calls that are pickled together with their context, by whatever pickles them.

For libraries that pickle a function and its arguments, in a message whose every byte counts. What
is unpickled is a callable that runs in the context; where this library cannot be imported it is the
plain function. What crosses is text for ``exec``, plain values, and the function as it would be
pickled by itself.
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
    """A function with headers; where it is unpickled, what ``receiver.received()`` returns.

    ``receiver`` is the name of a module of ours. The process that unpickles is instrumented like
    this one, after the function's own modules have been imported there.
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


def sent(seam: Seam, function: Any, receiver: str = __name__, *, empty: bool = True) -> Any:
    """Return ``function`` as a portable call in the current context, if that is ``empty`` too.

    Itself where nothing is to be carried. Never raises.
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
        handoff.report("capture", error)
        return function


def received(function: Callable[..., Any], headers: Headers | None) -> Callable[..., Any]:
    """Return what calls ``function`` in the context of ``headers``, as often as it is called.

    Also without headers: what it forgets to detach is not for the next one.
    """
    context = carrier.unpack_safely(headers) or NO_CONTEXT

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        return BodyCall(context, function)(*args, **kwargs)

    return call
