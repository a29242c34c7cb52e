"""Headers after a pickle: how a context crosses with the messages of ``multiprocessing``.

Unpickling stops where the pickle ends. Only an instrumented receiver reads what follows. The pickle
itself is byte for byte the same as without this library: it is made, fails, and is unpickled in the
same way.

The standard library pickles and unpickles deep inside its methods. So data for the pickler is kept
per thread: :func:`send` sets the context that is to follow the thread's next pickle, and
:func:`receive` returns what followed the last one.
"""

from __future__ import annotations

import functools
import os
from _thread import get_ident
from collections.abc import Callable
from typing import Any, cast
from weakref import WeakSet

from opentelemetry.context import Context

from otel_concurrency._core import handoff
from otel_concurrency._core.patching import StandIn
from otel_concurrency._crossing import carrier, wire_format
from otel_concurrency._crossing.wire_format import STOP

_sending: dict[int, tuple[object, Context]] = {}
"""By thread: the object that is about to be pickled there, and its context."""

_receiving: dict[int, bytes | None] = {}
"""By thread that waits for a message: the trailer of the message that it has unpickled."""

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_sending.clear)
    os.register_at_fork(after_in_child=_receiving.clear)


def pack(context: Context) -> bytes | None:
    """Return ``context`` as a trailer, which can follow a pickle; None if nothing of it crosses.

    May raise.
    """
    headers = carrier.encoded(context)
    return None if headers is None else wire_format.trailer(headers)


def unpack(trailer: bytes | None) -> Context | None:
    """Return the context in a trailer that :func:`receive` has returned.

    None without a trailer, or after a reported fault.
    """
    if trailer is None:
        return None
    try:
        return carrier.decoded(trailer)
    except Exception as error:
        handoff.report_fault("extract", error)
        return None


def send(item: object, context: Context | None) -> None:
    """Have the pickle of ``item``, which this thread is about to make, followed by ``context``.

    With None as ``context``, no headers will follow this thread's next pickle. Never raises.
    """
    try:
        if context is None:
            _sending.pop(get_ident(), None)
        else:
            if not _sends:
                _begin_to_send()
            _sending[get_ident()] = item, context
    except Exception as error:
        handoff.report_fault("put", error)


def outstanding() -> tuple[object, Context] | None:
    """Return the object that this thread is about to pickle, and the context for its trailer."""
    return _sending.get(get_ident())


def receive(get: Callable[..., Any], *args: Any) -> tuple[Any, bytes | None]:
    """Return the result of ``get(*args)``, and the trailer of its message for :func:`unpack`."""
    thread = None
    try:
        thread = get_ident()
        if not _receives:
            _begin_to_receive()
        _receiving[thread] = None
    except Exception as error:
        handoff.report_fault("get", error)
    if thread is None:
        return get(*args), None
    try:
        item = get(*args)
    except BaseException:
        _receiving.pop(thread, None)
        raise
    return item, _receiving.pop(thread, None)


def is_received() -> bool:
    """Whether this thread is inside :func:`receive`, which takes the trailer of the message."""
    try:
        return get_ident() in _receiving
    except Exception as error:
        handoff.report_fault("get", error)
        return True


_stand_ins: WeakSet[Any] = WeakSet()
"""The classes that replace a pickler. They add no method until it is needed: one that reads when
something is received, and one that writes when the first context is sent."""


def pickler(plain: Any) -> Any:
    """Return a class that replaces ``plain``, the ``ForkingPickler`` of a module."""

    class ForkingPickler(plain, metaclass=StandIn):  # type: ignore[misc]  # a base known at run time
        stands_in_for = plain
        __module__ = plain.__module__

    _stand_ins.add(ForkingPickler)
    if _receives:
        _read_trailers(ForkingPickler)
    if _sends:
        _write_trailers(ForkingPickler)
    return ForkingPickler


_receives = _sends = False


def _begin_to_receive() -> None:
    """Have every pickler read trailers. A program that uses executors only never needs this.

    Threads that get here at the same time all do the whole work, with the same result. So none goes
    on before every pickler is ready. Never raises.
    """
    global _receives  # noqa: PLW0603
    try:
        for stand_in in list(_stand_ins):
            _read_trailers(stand_in)
        _receives = True
    except Exception as error:
        handoff.report_fault("get", error)


def _begin_to_send() -> None:
    """Have every pickler write trailers, as :func:`_begin_to_receive` has it read. May raise."""
    global _sends  # noqa: PLW0603
    for stand_in in list(_stand_ins):
        _write_trailers(stand_in)
    _sends = True


def _write_trailers(stand_in: Any) -> None:
    plain_dumps = cast(Any, super(stand_in, stand_in)).dumps

    @functools.wraps(getattr(plain_dumps, "__func__", plain_dumps))
    def dumps(cls: Any, obj: Any, protocol: Any = None) -> Any:
        pending = _sending.pop(get_ident(), None) if _sending else None
        try:
            message = plain_dumps(obj, protocol)
        except BaseException:
            pending = None  # a traceback of this frame must not keep the context alive
            raise
        if pending is None or pending[0] is not obj:
            return message
        try:
            trailer = pack(pending[1])
            return message if trailer is None else b"".join((message, trailer))
        except Exception as error:
            handoff.report_fault("pickle", error)
            return message

    stand_in.dumps = classmethod(dumps)


def _read_trailers(stand_in: Any) -> None:
    plain_loads = cast(Any, super(stand_in, stand_in)).loads

    @functools.wraps(plain_loads)
    def loads(message: Any, /, *args: Any, **kwargs: Any) -> Any:
        obj = plain_loads(message, *args, **kwargs)
        thread = get_ident()
        if thread in _receiving:
            try:
                if message[-1:] != STOP:  # no trailer ends like a pickle
                    _receiving[thread] = wire_format.behind(message)
            except Exception as error:
                handoff.report_fault("unpickle", error)
        return obj

    stand_in.loads = staticmethod(loads)
