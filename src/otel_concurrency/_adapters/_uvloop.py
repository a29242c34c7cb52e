"""uvloop: its loops, which do not derive from asyncio's. The setting ASYNCIO covers them too.

``run_in_executor`` is treated as asyncio's. A transport keeps the context that it was made in, even
if a request resumes reading. But all connections that a server accepts share one
:class:`contextvars.Context`, a copy of that of the code that started the server. So an empty
context is attached there when a connection is accepted. A datagram socket without a peer is made in
an empty context.
"""

from __future__ import annotations

import functools
import importlib
import inspect
from types import ModuleType
from typing import Any

from otel_concurrency._core import handoff
from otel_concurrency._core.handoff import NO_CONTEXT, Seam, attach_safely, leave
from otel_concurrency._core.patching import Layer, Patch
from otel_concurrency._primitives import _asyncio
from otel_concurrency._primitives._asyncio_transports import receives_from_everybody

TESTED = ("0.21.0", "0.23.0")


def _layers(uvloop: ModuleType, seam: Seam) -> list[Patch]:
    futures = importlib.import_module("concurrent.futures")  # asyncio has imported it
    covered = functools.partial(_is_covered, futures)
    loop = vars(uvloop)["Loop"]
    return [
        Layer(loop, "run_in_executor", lambda raw: _asyncio.run_in_executor(raw, seam, covered)),
        Layer(loop, "create_server", lambda raw: _create_server(raw, seam)),
        Layer(loop, "create_unix_server", lambda raw: _create_server(raw, seam)),
        Layer(loop, "create_datagram_endpoint", lambda raw: _create_datagram_endpoint(raw, seam)),
    ]


MODULES = {"asyncio": {"uvloop": _layers}}


def _is_covered(futures: ModuleType, loop: Any, executor: Any, func: Any) -> bool:
    # The loop refuses a coroutine function. A call around it would hide it.
    return inspect.iscoroutinefunction(func) or _asyncio.is_covered(futures, loop, executor, func)


def _create_server(original: Any, seam: Seam) -> Any:
    @functools.wraps(original)
    def create_server(self: Any, protocol_factory: Any, *args: Any, **kwargs: Any) -> Any:
        if seam.active and callable(protocol_factory):
            protocol_factory = _accepting(protocol_factory, seam)
        return original(self, protocol_factory, *args, **kwargs)

    return create_server


def _accepting(protocol_factory: Any, seam: Seam) -> Any:
    """Return a protocol factory that empties the server's context for each new connection."""

    def accept() -> Any:
        if seam.active:
            handoff.begin_in(NO_CONTEXT)
        return protocol_factory()

    return accept


def _create_datagram_endpoint(original: Any, seam: Seam) -> Any:
    @functools.wraps(original)
    async def create_datagram_endpoint(self: Any, *args: Any, **kwargs: Any) -> Any:
        clean = handoff.is_concerned(seam) and seam.active and _is_open_to_all(*args, **kwargs)
        token = attach_safely(NO_CONTEXT) if clean else None
        try:
            return await original(self, *args, **kwargs)
        finally:
            leave(token)

    return create_datagram_endpoint


def _is_open_to_all(
    protocol_factory: Any = None,
    local_addr: Any = None,
    remote_addr: Any = None,
    *,
    sock: Any = None,
    **_: Any,
) -> bool:
    """Whether the endpoint for these arguments has no peer, and so receives from any address."""
    return not remote_addr if sock is None else receives_from_everybody(sock)
