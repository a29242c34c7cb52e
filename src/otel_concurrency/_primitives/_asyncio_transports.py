"""``asyncio``'s transports and servers: a connection stays in the context in which it was made.

A transport registers its callbacks in the context of the code that uses it. If a request calls
``resume_reading()``, its context stays with the connection, and all later requests on that
connection become its children: on CPython up to 3.14, and over TLS on 3.15 too. In the same way a
server accepts connections in the context of the code that started it, although that code has
nothing to do with the client that connects.

So a transport calls its protocol in the context in which the transport was made, and connections
that a listening socket accepts run in an empty context. Reading and writing are not touched.
"""

from __future__ import annotations

import functools
import sys
from types import ModuleType
from typing import Any

from opentelemetry.context import Context

from otel_concurrency._core import handoff
from otel_concurrency._core.handoff import (
    NO_CONTEXT,
    Call,
    Seam,
    adopted,
    as_flow_that_begins,
    attach,
    capture_nothing,
    detach,
    get_current,
)
from otel_concurrency._core.patching import Layer, Patch

_MADE_IN = "_otel_concurrency_made_in"
"""The attribute in which a transport keeps the context that it was made in, unless it is empty.

A transport that was made before instrumenting does not have it, since that context is unknown.
"""


def _selector_layers(selector_events: ModuleType, seam: Seam) -> list[Patch]:
    transport, datagram = (
        selector_events._SelectorTransport,
        selector_events._SelectorDatagramTransport,
    )
    return [
        Layer(
            selector_events.BaseSelectorEventLoop,
            "_start_serving",
            lambda raw: _start_serving(raw, seam),
        ),
        Layer(datagram, "__init__", lambda raw: _init_datagram(raw, seam)),
        Layer(transport, "__init__", lambda raw: _init(raw, seam)),
        Layer(transport, "_add_reader", lambda raw: _add_reader(raw, seam)),
        Layer(transport, "_call_connection_lost", lambda raw: _ends(raw, seam)),
    ]


def _pipe_layers(unix_events: ModuleType, seam: Seam) -> list[Patch]:
    read, write = unix_events._UnixReadPipeTransport, unix_events._UnixWritePipeTransport
    return [
        Layer(read, "__init__", lambda raw: _init(raw, seam)),
        Layer(read, "resume_reading", lambda raw: _resume_reading(raw, seam)),
        Layer(read, "_call_connection_lost", lambda raw: _ends(raw, seam)),
        Layer(write, "__init__", lambda raw: _init(raw, seam)),
        Layer(write, "_call_connection_lost", lambda raw: _ends(raw, seam)),
    ]


def _flow_control_layers(transports: ModuleType, seam: Seam) -> list[Patch]:
    control = transports._FlowControlMixin
    return [Layer(control, "_maybe_resume_protocol", lambda raw: _maybe_resume_protocol(raw, seam))]


def _tls_layers(sslproto: ModuleType, seam: Seam) -> list[Patch]:
    if sys.version_info < (3, 11):  # there TLS only uses the callbacks of the transport below it
        return []
    return [
        Layer(
            sslproto.SSLProtocol, "_resume_reading", lambda raw: _resume_reading_of_tls(raw, seam)
        )
    ]


MODULES = {
    "asyncio.selector_events": _selector_layers,
    "asyncio.sslproto": _tls_layers,
    "asyncio.transports": _flow_control_layers,
    "asyncio.unix_events": _pipe_layers,
}


def _init(original: Any, seam: Seam) -> Any:
    @functools.wraps(original)
    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:  # noqa: N807
        try:
            context = get_current() if seam.active else None
            if context:
                setattr(self, _MADE_IN, context)
            context = None
        except Exception as error:
            handoff.report_fault("make a transport", error)
        original(self, *args, **kwargs)

    return __init__


def _init_datagram(original: Any, seam: Seam) -> Any:
    @functools.wraps(original)
    def __init__(self: Any, loop: Any, sock: Any, *args: Any, **kwargs: Any) -> None:  # noqa: N807
        if handoff.is_concerned(seam) and seam.active and receives_from_everybody(sock):
            as_flow_that_begins(NO_CONTEXT, original, self, loop, sock, *args, **kwargs)
        else:
            original(self, loop, sock, *args, **kwargs)

    return __init__


def receives_from_everybody(sock: Any) -> bool:
    """Whether a datagram socket has no peer. Never raises: False for what is not a socket."""
    try:
        sock.getpeername()
    except OSError:
        return True
    except Exception:
        return False
    return False


def _start_serving(original: Any, seam: Seam) -> Any:
    @functools.wraps(original)
    def _start_serving(self: Any, *args: Any, **kwargs: Any) -> Any:
        if not seam.active:
            return original(self, *args, **kwargs)
        try:
            # From 3.15 on the server has its own contextvars context; each connection copies it.
            context = kwargs.get("context")
            if context is not None:
                context.run(handoff.begin_in, NO_CONTEXT)
        except Exception as error:
            handoff.report_fault("start a server", error)
        return as_flow_that_begins(NO_CONTEXT, original, self, *args, **kwargs)

    return _start_serving


def _resume_reading(original: Any, seam: Seam) -> Any:
    @functools.wraps(original)
    def resume_reading(self: Any) -> Any:
        made_in = _other_context(self, seam)
        return original(self) if made_in is None else as_flow_that_begins(made_in, original, self)

    return resume_reading


def _add_reader(original: Any, seam: Seam) -> Any:
    # As `as_flow_that_begins` in `_other_context`, without their calls: whoever reads a large body
    # comes here again and again.
    @functools.wraps(original)
    def _add_reader(self: Any, fd: Any, callback: Any, *args: Any) -> Any:
        token: Any = None
        record = None
        try:
            own = self.__dict__
            if (
                (get_current() or _MADE_IN in own)
                and seam.capture is not capture_nothing
                and not (_SOME_KEEP and _keeps_its_own(self))
            ):
                token = attach(own.get(_MADE_IN, NO_CONTEXT))
                if handoff.any_adopted:
                    record = adopted.get()
                    adopted.set(None)
        except Exception as error:
            handoff.report_fault("find the context of a transport", error)
        try:
            return original(self, fd, callback, *args)
        finally:
            if token is not None:
                if record is not None:
                    adopted.set(record)
                try:
                    detach(token)
                except Exception as error:
                    handoff.report_fault("detach", error)

    return _add_reader


def _keeps_its_own(transport: Any) -> bool:
    """Whether a transport runs its callbacks in a copy of what it was made in: from 3.15 on."""
    return _SOME_KEEP and getattr(transport, "_context", None) is not None


_SOME_KEEP = sys.version_info >= (3, 15)


def _ends(original: Any, seam: Seam) -> Any:
    @functools.wraps(original)
    def _call_connection_lost(self: Any, *args: Any, **kwargs: Any) -> Any:
        made_in = _other_context(self, seam)
        self.__dict__.pop(_MADE_IN, None)
        function = original if made_in is None else Call(made_in, original)
        made_in = None  # this frame lives as long as a traceback of what the protocol raises
        return function(self, *args, **kwargs)

    return _call_connection_lost


def _maybe_resume_protocol(original: Any, seam: Seam) -> Any:
    @functools.wraps(original)
    def _maybe_resume_protocol(self: Any) -> Any:
        made_in = _other_context(self, seam) if self._protocol_paused else None
        return original(self) if made_in is None else Call(made_in, original)(self)

    return _maybe_resume_protocol


def _resume_reading_of_tls(original: Any, seam: Seam) -> Any:
    @functools.wraps(original)
    def _resume_reading(self: Any) -> Any:
        made_in = _other_context(self._transport, seam, over=True)
        return original(self) if made_in is None else as_flow_that_begins(made_in, original, self)

    return _resume_reading


def _other_context(transport: Any, seam: Seam, *, over: bool = False) -> Context | None:
    """Return the context of ``transport``, or None where there is no need to change to it.

    TLS has the context of the transport that it is ``over``, whatever that keeps for itself. Never
    raises.
    """
    try:
        if seam.capture is capture_nothing or (_keeps_its_own(transport) and not over):
            return None
        made_in: Any = getattr(transport, _MADE_IN, NO_CONTEXT)
        current = get_current()
        return None if current is made_in or not (current or made_in) else made_in
    except Exception as error:
        handoff.report_fault("find the context of a transport", error)
        return None
