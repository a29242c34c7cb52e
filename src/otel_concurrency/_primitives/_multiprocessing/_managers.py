"""``multiprocessing.managers``: what a proxy asks of a manager's server, on this host or another.

A proxy sends each call to the server, whose thread makes it there. So a call carries the context of
its caller, as headers behind the pickle of the request: an item that is put to the server's queue,
or work that is handed to its pool, belongs to whoever has called. If the server's thread adopts the
context of an item on the way, that goes back behind the reply, and the caller adopts it.

Proxies of plain data and of locks hand nothing off, and carry nothing.
"""

from __future__ import annotations

import functools
import sys
import weakref
from types import ModuleType
from typing import Any

from opentelemetry.context import Context

from otel_concurrency._core import handoff
from otel_concurrency._core.handoff import Seam, adopted
from otel_concurrency._core.patching import Layer, Patch
from otel_concurrency._crossing import trailers, wire_format
from otel_concurrency._items import adoption
from otel_concurrency._primitives._multiprocessing._turns import Turn

_PLAIN = (
    "AcquirerProxy",
    "ArrayProxy",
    "BarrierProxy",
    "ConditionProxy",
    "DictProxy",
    "EventProxy",
    "IteratorProxy",
    "ListProxy",
    "NamespaceProxy",
    "SetProxy",
    "ValueProxy",
)
"""The proxies that carry nothing."""

_QUEUE = frozenset(("get", "put", "qsize"))
"""The methods by which the proxy of a queue is known."""

_ASKS = ("get", "get_nowait")


def _layers(managers: ModuleType, seam: Seam) -> list[Patch]:
    plain = frozenset(getattr(managers, name, None) for name in _PLAIN)
    consumed = _Consumed()
    return [
        Layer(managers.BaseProxy, "_callmethod", lambda raw: _call(raw, seam, plain, consumed)),
        Layer(managers.Server, "serve_client", lambda raw: _serve_client(raw, seam)),
        consumed,  # applied when these let go, and undone as long as they do
    ]


MODULES = {"multiprocessing.managers": _layers}


# What crosses: a message as `Connection.send` has it, and headers behind its pickle.


def _send_message(connection: Any, message: Any, context: Context | None) -> None:
    """Send a message over ``connection``, behind it ``context``, if there is any."""
    trailer = _trailer(context) if context and _is_plain(connection) else None
    if trailer is None:
        connection.send(message)
    else:
        pickler: Any = sys.modules["multiprocessing.reduction"].ForkingPickler
        connection.send_bytes(b"".join((pickler.dumps(message), trailer)))


def _receive_message(connection: Any) -> tuple[Any, bytes | None]:
    """Return the next message that comes over ``connection``, and what is behind it."""
    if not _is_plain(connection):
        return connection.recv(), None
    received = connection.recv_bytes()
    pickler: Any = sys.modules["multiprocessing.reduction"].ForkingPickler
    return pickler.loads(received), _behind(received)


def _is_plain(connection: Any) -> bool:
    """Whether it sends pickles, and not another format of the managers'. Never raises."""
    try:
        is_of_module = type(connection).__module__ == "multiprocessing.connection"
        return is_of_module and hasattr(connection, "_send_bytes")
    except Exception as error:
        handoff.report_fault("call", error)
        return False


def _trailer(context: Context) -> bytes | None:
    try:
        return trailers.pack(context)
    except Exception as error:
        handoff.report_fault("call", error)
        return None


def _behind(received: bytes) -> bytes | None:
    try:
        return wire_format.behind(received)
    except Exception as error:
        handoff.report_fault("call", error)
        return None


# In the server.


def _serve_client(original: Any, seam: Seam) -> Any:
    @functools.wraps(original)
    def serve_client(self: Any, conn: Any) -> Any:
        return original(self, _Requests(conn, seam) if seam.active else conn)

    return serve_client


class _Requests:
    """The connection over which a thread of the server gets requests, and replies."""

    def __init__(self, plain: Any, seam: Seam) -> None:
        self._plain = plain
        self._seam = seam
        self._turn = Turn()
        self._turn.end()  # what its thread is in now is its base

    def __getattr__(self, name: str) -> Any:
        return getattr(self._plain, name)

    def recv(self) -> Any:
        """Return the next request; from now on the thread is in the context of its sender."""
        if not self._seam.active:
            return self._plain.recv()
        request, trailer = _receive_message(self._plain)
        context = trailers.unpack(trailer)
        if context is not None:
            self._turn.begin(context)
        return request

    def send(self, message: Any) -> None:
        """Send a reply, behind it the context of the item that is in it."""
        _send_message(self._plain, message, _adopted())
        self._turn.end()


def _adopted() -> Context | None:
    """Return the context of the item that this flow has adopted, if it is the current one."""
    try:
        record = adopted.get()
        current = handoff.get_current()
        return current if record is not None and record[0]() is current else None
    except Exception as error:
        handoff.report_fault("reply", error)
        return None


# In the caller.


class _Request:
    """The connection of a proxy, for one request and its reply."""

    def __init__(self, plain: Any, context: Context | None) -> None:
        self._plain = plain
        self._context = context
        self.trailer: bytes | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._plain, name)

    def send(self, message: Any) -> None:
        """Send the request, behind it the context of the caller."""
        context, self._context = self._context, None
        _send_message(self._plain, message, context)

    def recv(self) -> Any:
        """Return the reply, and keep what came behind it."""
        reply, self.trailer = _receive_message(self._plain)
        return reply


def _call(original: Any, seam: Seam, plain: frozenset[Any], consumed: _Consumed) -> Any:
    @functools.wraps(original)
    def _callmethod(self: Any, methodname: Any, args: Any = (), kwds: Any = {}) -> Any:  # noqa: B006
        if not seam.active or type(self) in plain:
            return original(self, methodname, args, kwds)
        is_queue = _is_queue(self)
        asks = is_queue and methodname in _ASKS
        if asks and adopted.get() is not None:
            adoption.let_go()
        if not hasattr(self._tls, "connection"):
            self._connect()
        connection = self._tls.connection
        request = self._tls.connection = _Request(connection, _context(seam))
        try:
            result = original(self, methodname, args, kwds)
        finally:
            self._tls.connection = connection
        if request.trailer or (asks and handoff.current_safely()):
            consumed.adopt(self, request.trailer)
        elif is_queue and methodname == "task_done":
            adoption.let_go()
        return result

    return _callmethod


def _context(seam: Seam) -> Context | None:
    """Return what a request is to carry. Never raises."""
    try:
        return seam.changed(seam.current()) or None
    except Exception as error:
        handoff.report_fault("call", error)
        return None


def _is_queue(proxy: Any) -> bool:
    try:
        exposed: Any = getattr(proxy, "_exposed_", None)
        return exposed is not None and _QUEUE.issubset(exposed)
    except Exception as error:
        handoff.report_fault("call", error)
        return False


class _Consumed:
    """The proxies whose items are adopted; applied and undone as a layer is."""

    layers = ()  # as of `QueueHooks`: it patches instances alone

    def __init__(self) -> None:
        self._proxies: dict[int, weakref.ref[Any]] = {}

    def adopt(self, proxy: Any, trailer: bytes | None) -> None:
        """Adopt the context of an item that has come through ``proxy``. Never raises."""
        try:
            if trailer is not None and id(proxy) not in self._proxies:
                key, proxies = id(proxy), self._proxies
                proxies[key] = weakref.ref(proxy, lambda _: proxies.pop(key, None))
            adoption.adopt(trailers.unpack(trailer))
        except Exception as error:
            adoption.cannot_tell(error)

    def apply(self) -> None:
        """Take away what :meth:`undo` has left.

        The proxies stay known: a consumer may not have asked one for an item since `undo`.
        """
        for proxy in self._alive():
            if type(proxy.__dict__.get("_callmethod")) is _LastCall:
                del proxy.__dict__["_callmethod"]

    def undo(self) -> None:
        """See to it that every consumer lets go of its last item."""
        for proxy in self._alive():
            proxy.__dict__.setdefault("_callmethod", _LastCall(proxy))
        adoption.let_go()  # no hook will make this flow do it any more

    def _alive(self) -> list[Any]:
        proxies = [reference() for reference in list(self._proxies.values())]
        return [proxy for proxy in proxies if proxy is not None]


class _LastCall:
    """Stays with a proxy after ``undo()``: some consumer may be in the context of its last item."""

    def __init__(self, proxy: Any) -> None:
        self._proxy = weakref.ref(proxy)

    def __call__(self, methodname: Any, *args: Any, **kwargs: Any) -> Any:
        if methodname in _ASKS:
            adoption.let_go()
        proxy: Any = self._proxy()
        return proxy.__class__._callmethod(proxy, methodname, *args, **kwargs)
