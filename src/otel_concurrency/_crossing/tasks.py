"""Tasks that a library pickles for its worker processes: headers go along in an attribute.

For libraries that make an object of what is handed to them, and call that in the worker. A worker
without this library never looks at the attribute.
"""

from __future__ import annotations

import functools
import os
from typing import Any

from otel_concurrency._core import handoff
from otel_concurrency._core.handoff import NO_CONTEXT, BodyCall, Seam
from otel_concurrency._core.patching import Layer
from otel_concurrency._crossing import carrier, wire_format
from otel_concurrency._crossing.carrier import Headers

_HEADERS = "_otel_concurrency_headers"


class Sent:
    """A function on its way into a task, with the headers that are to go with it."""

    __slots__ = ("function", "headers")

    def __init__(self, function: Any, headers: Headers) -> None:
        self.function = function
        self.headers = headers


def sent(seam: Seam, function: Any) -> Any:
    """Return ``function`` with the headers of the current context, or itself without one.

    Never raises.
    """
    try:
        if not seam.active or isinstance(function, Sent):
            return function
        headers = carrier.capture(seam, function)
        return function if headers is None else Sent(function, headers)
    except Exception as error:
        handoff.report("capture", error)
        return function


def attach_to(task: Any, headers: Headers | None) -> None:
    """Have ``task`` carry ``headers``. Never raises."""
    try:
        if headers is not None:
            task.__dict__[_HEADERS] = os.getpid(), headers
    except Exception as error:
        handoff.report("capture", error)


def detach_from(task: Any) -> Headers | None:
    """Return the headers that came with ``task``, which no longer has them."""
    headers: Headers | None
    _, headers = task.__dict__.pop(_HEADERS, (None, None))
    return headers


def append(pickled: bytes, headers: Headers) -> bytes:
    """Return a pickle with ``headers`` behind its end, where nobody else looks. May raise."""
    return pickled + wire_format.trailer(wire_format.encode(headers))


def appended(pickled: bytes) -> Headers | None:
    """Return the headers behind the end of a pickle, if there are any. May raise."""
    encoded = wire_format.behind(pickled)
    return None if encoded is None else wire_format.decode(encoded)


def layer(kind: type, seam: Seam, method: str = "__call__") -> Layer:
    """Return the layer that has tasks of a class run in what came with them.

    In the process where it was made, a task is run in whatever its thread was handed off in.
    """
    return Layer(kind, method, functools.partial(_in_worker, seam))


def _in_worker(seam: Seam, original: Any) -> Any:
    @functools.wraps(original)
    def run(self: Any, /, *args: Any, **kwargs: Any) -> Any:
        made_in, headers = self.__dict__.pop(_HEADERS, (None, None))
        if made_in == os.getpid() or not (headers or seam.active):
            return original(self, *args, **kwargs)
        # Also without headers: what it forgets to detach is not for the next one.
        context = carrier.unpack_safely(headers) or NO_CONTEXT
        if not headers and handoff.current_safely():
            return original(self, *args, **kwargs)
        return BodyCall(context, original)(self, *args, **kwargs)

    return run


def run_in(headers: Headers | None, seam: Seam, function: Any, *args: Any, **kwargs: Any) -> Any:
    """Call ``function``, which does one task of a worker, in what came with that.

    Also without headers: what it forgets to detach is not for the next one.
    """
    if not (headers or seam.active):
        return function(*args, **kwargs)
    context = carrier.unpack_safely(headers) or NO_CONTEXT
    return BodyCall(context, function)(*args, **kwargs)
