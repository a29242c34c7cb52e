"""gRPC: callbacks of calls, on the client's side and on the server's.

They go by FUTURES. A client's callbacks run on a thread that polls for all calls of its channel, in
a copy of the context of the first of these; a server's on the thread that serves, when a call ends.
Handlers run in the pool that the server is given, and asyncio carries for ``grpc.aio``.
"""

from __future__ import annotations

import functools
from types import ModuleType
from typing import Any

from otel_concurrency._core import handoff
from otel_concurrency._core.handoff import Seam
from otel_concurrency._core.patching import Layer, Patch

TESTED = ("1.66.2", "1.85.1")


def _layer(owner: Any, name: str, seam: Seam) -> Patch:
    return Layer(owner, name, functools.partial(_registering, seam))


def _channel_layers(channel: ModuleType, seam: Seam) -> list[Patch]:
    return [
        _layer(channel._Rendezvous, "add_callback", seam),
        _layer(channel._SingleThreadedRendezvous, "add_done_callback", seam),
        _layer(channel._MultiThreadedRendezvous, "add_done_callback", seam),
    ]


def _server_layers(server: ModuleType, seam: Seam) -> list[Patch]:
    return [_layer(server._Context, "add_callback", seam)]


def _utilities_layers(utilities: ModuleType, seam: Seam) -> list[Patch]:
    return [_layer(utilities._ChannelReadyFuture, "add_done_callback", seam)]


MODULES = {
    "futures": {
        "grpc._channel": _channel_layers,
        "grpc._server": _server_layers,
        "grpc._utilities": _utilities_layers,
    }
}


def _registering(seam: Seam, original: Any) -> Any:
    @functools.wraps(original)
    def register(self: Any, callback: Any) -> Any:
        # Also without a context: whoever calls it may be in somebody's.
        return original(self, handoff.own(seam, callback))

    return register
