"""``concurrent.interpreters`` (3.14+): calls in another interpreter, and the queues between them.

Interpreters share no objects: what crosses is headers. A call crosses as a call of :func:`arrive`,
which gets them beside the callable and its arguments. The interpreter is instrumented first; if it
cannot import this library, calls cross as they are.

An item crosses as a pickle that makes the plain item, and tells the interpreter that gets it of the
headers, if that is instrumented. An item whose data stay shared (a ``memoryview``, a ``Queue``)
would be another one when pickled, and crosses without.
"""

from __future__ import annotations

import functools
import itertools
import os
import sys
from _thread import get_ident
from collections import deque
from types import ModuleType
from typing import Any

from otel_concurrency import _settings
from otel_concurrency._core import handoff
from otel_concurrency._core.callers import caller
from otel_concurrency._core.handoff import NO_CONTEXT, BodyCall, Seam, adopted
from otel_concurrency._core.patching import Layer, Patch
from otel_concurrency._crossing import carrier
from otel_concurrency._crossing.carrier import Headers
from otel_concurrency._items import adoption, known_queues

_POOL = "concurrent.futures.interpreter"
"""The module whose calls carry their context by other means (see ``_interpreters``)."""

_TRIES = "_otel_concurrency_tries"
"""How often it was tried to instrument an interpreter; None: it is."""

_MOST_TRIES = 3
"""A program may make the library importable there by the first thing that it calls."""

_INSTRUMENT = """\
from otel_concurrency import _child
from otel_concurrency._primitives._multiprocessing import _interpreter_calls
_child.instrument(settings)
"""


def _call_layers(interpreters: ModuleType, seam: Seam) -> list[Patch]:
    not_shareable = interpreters.NotShareableError
    return [Layer(interpreters.Interpreter, "_call", lambda raw: _call(raw, seam, not_shareable))]


def _queue_layers(queues: ModuleType, seam: Seam) -> list[Patch]:
    queue = queues.Queue
    from _interpreters import NotShareableError  # type: ignore[import-not-found]

    put = functools.partial(_put, seam, (queue, memoryview), NotShareableError)
    return [
        Layer(queue, "put", put),
        Layer(queue, "put_nowait", put),
        Layer(queue, "get", lambda raw: _get(raw, seam)),
        Layer(queue, "get_nowait", lambda raw: _get(raw, seam)),
    ]


MODULES = {
    "concurrent.interpreters": _call_layers,
    "concurrent.interpreters._queues": _queue_layers,
}
if sys.version_info < (3, 14):  # `status` would list modules that do not exist
    MODULES.clear()


# Calls.


def _call(original: Any, seam: Seam, not_shareable: Any) -> Any:
    @functools.wraps(original)
    def _call(self: Any, callable: Any, args: Any, kwargs: Any) -> Any:
        if (
            not (seam.active and handoff.is_concerned(seam))
            or _is_left_alone(callable)
            or not _is_instrumented(self, functools.partial(original, self))
        ):
            return original(self, callable, args, kwargs)
        headers = carrier.capture(seam, callable)
        if headers is None:
            return original(self, callable, args, kwargs)
        number = next(_numbers)
        try:
            return original(self, arrive, (number, headers, callable, args, kwargs), {})
        except not_shareable:
            # Of the callable and its arguments, or of the result?
            if original(self, has_arrived, (number,), {}):
                raise
        return original(self, callable, args, kwargs)  # it says what cannot be shared

    return _call


def _is_left_alone(function: Any) -> bool:
    """Whether a callable has to be passed to the interpreter as it is. Never raises."""
    try:
        if getattr(function, "__module__", None) == _POOL:
            return True
    except Exception:  # theirs
        return True
    return any(function is one for one in _READ_THEIR_CALLER)


_READ_THEIR_CALLER = (dir, eval, exec, globals, locals, vars)
"""Builtins that use the namespace of whoever calls them: that must be the interpreter itself."""

_numbers = itertools.count(int.from_bytes(os.urandom(6), "big"))
"""Of the calls that this interpreter sends; those of other interpreters are others."""

_arrived: deque[int] = deque(maxlen=1000)
"""The numbers of the last calls that have arrived in this interpreter."""


def arrive(number: int, headers: Headers, function: Any, args: Any, kwargs: Any) -> Any:
    """Call ``function`` in the context of ``headers``: in another interpreter."""
    _arrived.append(number)
    context = carrier.unpack_safely(headers) or NO_CONTEXT
    return BodyCall(context, function)(*args, **kwargs)


def has_arrived(number: int) -> bool:
    """Whether the call of that number has arrived here: in another interpreter."""
    return number in _arrived


def _is_instrumented(interpreter: Any, call: Any) -> bool:
    """Whether an interpreter is instrumented like this one, or can be now. Never raises."""
    try:
        tries = interpreter.__dict__.get(_TRIES, 0)
        if tries is None:
            return True
        if tries >= _MOST_TRIES or _settings.in_force is None:
            return False
        interpreter.__dict__[_TRIES] = tries + 1
        try:
            call(exec, (_INSTRUMENT, {"settings": _settings.in_force.as_keywords()}), {})
        except Exception:
            if tries + 1 < _MOST_TRIES:
                return False
            raise
        interpreter.__dict__[_TRIES] = None
    except Exception as error:
        handoff.report_fault("instrument an interpreter", error)
        return False
    else:
        return True


# Items.

_ARRIVE = f"""\
import sys
_receiver = sys.modules.get({__name__!r})
if _receiver is not None:
    _receiver.item_arrives(headers)
"""

_ITEM = "(exec(text, scope), scope['item'])[1]"


class _WithHeaders:
    """An item with headers; the plain item where it is unpickled."""

    __slots__ = ("_headers", "_item")

    def __init__(self, item: Any, headers: Headers) -> None:
        self._item = item
        self._headers = headers

    def __reduce__(self) -> tuple[Any, ...]:
        scope = {"item": self._item, "headers": self._headers}
        return eval, (_ITEM, {"text": _ARRIVE, "scope": scope})


def _put(seam: Seam, shared: Any, not_shareable: Any, original: Any) -> Any:
    @functools.wraps(original)
    def put(self: Any, obj: Any, *args: Any, **kwargs: Any) -> Any:
        wrapped = _with_headers(seam, obj, shared)
        if wrapped is None:
            return original(self, obj, *args, **kwargs)
        try:
            return original(self, wrapped, *args, **kwargs)
        except not_shareable:
            pass
        return original(self, obj, *args, **kwargs)

    return put


def _with_headers(seam: Seam, item: Any, shared: Any) -> _WithHeaders | None:
    """Return what is to be put in the place of ``item``; None: itself. Never raises."""
    try:
        if (
            not seam.active
            or type(item) is _WithHeaders
            or not seam.concerned()
            or _is_any_shared(item, shared)
            or known_queues.is_plumbing(caller(1))
        ):
            return None
        context = seam.changed(seam.current())
        headers = carrier.pack(context) if context else None
        return None if headers is None else _WithHeaders(item, headers)
    except Exception as error:
        handoff.report_fault("put", error)
        return None


def _is_any_shared(item: Any, shared: Any) -> bool:
    """Whether the data of an item stay shared; of containers only tuples cross without a pickle."""
    if isinstance(item, shared):
        return True
    return type(item) is _TUPLE and any(_is_any_shared(part, shared) for part in item)


_TUPLE: Any = tuple


_receiving: dict[int, list[Any]] = {}
"""By thread of this interpreter that gets an item: the queue, and the headers that have come with
the item."""


def item_arrives(headers: Headers) -> None:
    """Note the headers of the item that this thread gets: called where that is unpickled."""
    try:
        arriving = _receiving.get(get_ident())
        if arriving is not None:
            arriving[1] = headers
    except Exception as error:
        handoff.report_fault("get", error)


def _get(original: Any, seam: Seam) -> Any:
    @functools.wraps(original)
    def get(self: Any, *args: Any, **kwargs: Any) -> Any:
        thread = get_ident()
        outer = _receiving.get(thread)
        if outer is not None and outer[0] is self:  # one of these methods calls another
            return original(self, *args, **kwargs)
        if adopted.get() is not None:
            adoption.let_go()
        if not seam.active:
            return original(self, *args, **kwargs)
        _receiving[thread] = arriving = [self, None]
        try:
            item = original(self, *args, **kwargs)
        finally:
            _receiving.pop(thread, None)
            if outer is not None:  # this was called where an item of another queue is unpickled
                _receiving[thread] = outer
        headers = arriving[1]
        if (headers or handoff.current_safely()) and not _is_called_by_plumbing():
            _adopt(headers)
        return item

    return get


def _adopt(headers: Headers | None) -> None:
    try:
        adoption.adopt(carrier.unpack_safely(headers))
    except Exception as error:
        adoption.cannot_tell(error)


def _is_called_by_plumbing() -> bool:
    try:
        return known_queues.is_plumbing(caller(1))
    except Exception as error:
        handoff.report_fault("get", error)
        return True
