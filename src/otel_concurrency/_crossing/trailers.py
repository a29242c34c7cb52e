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
from io import BytesIO
from typing import Any, cast
from weakref import WeakSet

from opentelemetry.context import Context

from otel_concurrency._core import compiled, handoff
from otel_concurrency._core.patching import StandIn
from otel_concurrency._crossing import carrier, wire_format

sending: dict[int, tuple[object, Context]] = {}
"""By thread: the object that is about to be pickled there, and its context."""

receiving: dict[int, Any] = {}
"""By thread that waits for a message: the message that it has unpickled, if it has a trailer.

What waits looks for an entry first, and leaves the call to :func:`apart` if there is one. It sets
its entry to None, calls :func:`begin_to_receive` unless :data:`receives`, and takes its entry out
afterwards, whatever happens. :func:`behind` returns the headers in it.
"""

_FOR_THE_CALLER = object()
"""Stands for the message of a thread until the method is called that receives it."""

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=sending.clear)
    os.register_at_fork(after_in_child=receiving.clear)


def pack(context: Context) -> bytes | None:
    """Return ``context`` as a trailer, which can follow a pickle; None if nothing of it crosses.

    May raise.
    """
    packed = carrier.encoded_with_trailer(context)
    return None if packed is None else packed[1]


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
            sending.pop(get_ident(), None)
        else:
            send_with_context((item, context))
    except Exception as error:
        handoff.report_fault("put", error)


def send_with_context(put: tuple[object, Context]) -> None:
    """Do what :func:`send` does with an item and its context. May raise."""
    if not sends:
        begin_to_send()
    sending[get_ident()] = put


def outstanding() -> tuple[object, Context] | None:
    """Return the object that this thread is about to pickle, and the context for its trailer."""
    return sending.get(get_ident())


def receive(get: Callable[..., Any], *args: Any) -> tuple[Any, bytes | None]:
    """Return the result of ``get(*args)``, and the trailer of its message for :func:`unpack`."""
    thread = get_ident()
    if not receives:
        begin_to_receive()
    receiving[thread] = _FOR_THE_CALLER
    try:
        item = get(*args)
    except BaseException:
        receiving.pop(thread, None)
        raise
    message = receiving.pop(thread, None)
    return item, behind(message) if type(message) is bytes else None


def apart(original: Callable[..., Any], get: Callable[..., Any], *args: Any) -> Any:
    """Call the method ``get`` of a queue in the middle of another call that receives.

    The program has called it where an item is unpickled, or in a signal handler. What it receives
    is not the other one's. If it is called by :func:`receive`, call its ``original`` instead.
    """
    thread = get_ident()
    outer = receiving.pop(thread, None)
    if outer is _FOR_THE_CALLER:
        receiving[thread] = None
        return original(*args)
    try:
        return get(*args)
    finally:
        receiving[thread] = outer


_stand_ins: WeakSet[Any] = WeakSet()
"""The classes that replace a pickler. They add no method until it is needed: one that reads when
something is received, and one that writes when the first context is sent."""


def pickler(plain: Any) -> Any:
    """Return a class that replaces ``plain``, the ``ForkingPickler`` of a module."""

    class ForkingPickler(plain, metaclass=StandIn):  # type: ignore[misc]  # a base known at run time
        stands_in_for = plain
        __module__ = plain.__module__

    _stand_ins.add(ForkingPickler)
    if receives:
        _read_trailers(ForkingPickler)
    if sends:
        _write_trailers(ForkingPickler)
    return ForkingPickler


receives = sends = False
"""Whether every pickler reads trailers, and whether each writes them."""


def begin_to_receive() -> None:
    """Have every pickler read trailers. A program that uses executors only never needs this.

    Threads that get here at the same time all do the whole work, with the same result. So none goes
    on before every pickler is ready. Never raises.
    """
    global receives  # noqa: PLW0603
    try:
        for stand_in in list(_stand_ins):
            _read_trailers(stand_in)
        receives = True
    except Exception as error:
        handoff.report_fault("get", error)


def begin_to_send() -> None:
    """Have every pickler write trailers, as :func:`begin_to_receive` has it read. May raise."""
    global sends  # noqa: PLW0603
    for stand_in in list(_stand_ins):
        _write_trailers(stand_in)
    sends = True


known_trailer = getattr(compiled.functions, "known_trailer", None)
"""What ``dumps`` calls where there is a compiled part, which says what it does. Otherwise None."""

_OF_DUMPS = ("io", "BytesIO", "dump", "getbuffer")
"""The names in the code of ``dumps``, by which it is recognized: the stand-in has the same body."""


def _write_trailers(stand_in: Any) -> None:
    plain_dumps = cast(Any, super(stand_in, stand_in)).dumps
    plain_function = getattr(plain_dumps, "__func__", plain_dumps)
    encoded = vars(carrier)
    is_known = getattr(getattr(plain_function, "__code__", None), "co_names", ()) == _OF_DUMPS

    @functools.wraps(plain_function)
    def dumps(cls: Any, obj: Any, protocol: Any = None) -> Any:
        pending = sending.pop(get_ident(), None) if sending else None
        try:
            message = BytesIO()
            if is_known:
                cls(message, protocol).dump(obj)
            else:
                message.write(plain_dumps(obj, protocol))
        except BaseException:
            pending = None  # a traceback of this frame must not keep the context alive
            raise
        if pending is not None and pending[0] is obj:
            try:
                trailer = None
                if known_trailer is not None:
                    trailer = known_trailer(pending[1], encoded)
                if trailer is None:
                    trailer = pack(pending[1])
                if trailer is not None:
                    message.write(trailer)
            except Exception as error:
                handoff.report_fault("pickle", error)
        return message.getbuffer()

    stand_in.dumps = classmethod(dumps)


def _read_trailers(stand_in: Any) -> None:
    plain_loads = cast(Any, super(stand_in, stand_in)).loads

    @functools.wraps(plain_loads)
    def loads(message: Any, /, *args: Any, **kwargs: Any) -> Any:
        obj = plain_loads(message, *args, **kwargs) if args or kwargs else plain_loads(message)
        try:
            if message[-1] != _STOP:  # no trailer ends like a pickle
                thread = get_ident()
                if thread in receiving:
                    receiving[thread] = message if type(message) is bytes else _end_of(message)
        except Exception as error:
            handoff.report_fault("unpickle", error)
        return obj

    stand_in.loads = staticmethod(loads)


_STOP = wire_format.STOP[0]

_last_read: tuple[bytes | tuple[()], bytes | None] = (), None
"""The trailer that was read last, and the headers in it; no message ends with an empty tuple."""


def _end_of(message: Any) -> bytes | None:
    """Return the trailer of a message, which may be large; None without one. May raise."""
    headers = wire_format.behind(message)
    return None if headers is None else wire_format.trailer(headers)


def behind(message: bytes) -> bytes | None:
    """Return the headers in the trailer of ``message``; None without one, or after a fault."""
    global _last_read  # noqa: PLW0603
    try:
        last = _last_read
        if message.endswith(last[0]):
            return last[1]
        headers = wire_format.behind(message)
        if headers is not None:
            trailer = wire_format.trailer(headers)
            if message.endswith(trailer):  # not in a format of 0.1
                _last_read = trailer, headers
    except Exception as error:
        handoff.report_fault("unpickle", error)
        return None
    return headers
