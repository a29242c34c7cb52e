"""Tasks that a library pickles for its worker processes: headers travel in an attribute.

For libraries that wrap a function into a task object, and call that object in the worker. A worker
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


class FunctionWithHeaders:
    """A function that will become a task, and the headers for that task."""

    __slots__ = ("function", "headers")

    def __init__(self, function: Any, headers: Headers) -> None:
        self.function = function
        self.headers = headers


def with_headers(seam: Seam, function: Any) -> Any:
    """Return ``function`` with the headers of the current context, or itself without one.

    Never raises.
    """
    try:
        if not seam.active or isinstance(function, FunctionWithHeaders):
            return function
        headers = carrier.capture(seam, function)
        return function if headers is None else FunctionWithHeaders(function, headers)
    except Exception as error:
        handoff.report_fault("capture", error)
        return function


def attach_to(task: Any, headers: Headers | None) -> None:
    """Have ``task`` carry ``headers``. Never raises."""
    try:
        if headers is not None:
            task.__dict__[_HEADERS] = os.getpid(), headers
    except Exception as error:
        handoff.report_fault("capture", error)


def detach_from(task: Any) -> Headers | None:
    """Remove the headers from ``task``, and return them."""
    headers: Headers | None
    _, headers = task.__dict__.pop(_HEADERS, (None, None))
    return headers


def append(pickled: bytes, headers: Headers) -> bytes:
    """Return a pickle with ``headers`` after its end, where unpickling never looks. May raise."""
    return pickled + wire_format.trailer(wire_format.encode(headers))


def appended(pickled: bytes) -> Headers | None:
    """Return the headers after the end of a pickle, if there are any. May raise."""
    encoded = wire_format.behind(pickled)
    return None if encoded is None else wire_format.decode(encoded)


def layer(kind: type, seam: Seam, method: str = "__call__") -> Layer:
    """Return the layer that runs tasks of a class in the context that came with them.

    If a task is run in the process that created it, the current context of its thread is kept.
    """
    return Layer(kind, method, functools.partial(_in_worker, seam))


def _in_worker(seam: Seam, original: Any) -> Any:
    @functools.wraps(original)
    def run(self: Any, /, *args: Any, **kwargs: Any) -> Any:
        made_in, headers = self.__dict__.pop(_HEADERS, (None, None))
        if made_in == os.getpid() or not (headers or seam.active):
            return original(self, *args, **kwargs)
        # Without headers, attach the empty context: a context that one task forgets to detach must
        # not reach the next task.
        context = carrier.unpack_safely(headers) or NO_CONTEXT
        if not headers and handoff.current_safely():
            return original(self, *args, **kwargs)
        return BodyCall(context, original)(self, *args, **kwargs)

    return run


def run_in(headers: Headers | None, seam: Seam, function: Any, *args: Any, **kwargs: Any) -> Any:
    """Call ``function``, which does one task of a worker, in the context of ``headers``.

    Without headers that is the empty context. So a context that one task forgets to detach does not
    reach the next task.
    """
    if not (headers or seam.active):
        return function(*args, **kwargs)
    context = carrier.unpack_safely(headers) or NO_CONTEXT
    return BodyCall(context, function)(*args, **kwargs)
