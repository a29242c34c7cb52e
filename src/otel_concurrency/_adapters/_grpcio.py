"""gRPC: callbacks of calls, on the client's side and on the server's.

The setting FUTURES covers them. A client's callbacks run on a thread that polls for all calls of
its channel, in a copy of the context of the first call. A server's callbacks run on the serving
thread, when a call ends. Handlers run in the pool that the program gives to the server, and asyncio
carries the context for ``grpc.aio``.
"""

from __future__ import annotations

import functools
from types import ModuleType
from typing import Any

from otel_concurrency._core import handoff
from otel_concurrency._core.handoff import Seam
from otel_concurrency._core.patching import Layer, Patch

TESTED = ("1.66.2", "1.85.1")


def _channel_layers(channel: ModuleType, seam: Seam) -> list[Patch]:
    return [
        Layer(channel._Rendezvous, "add_callback", lambda raw: _add_callback(raw, seam)),
        *(
            Layer(kind, "add_done_callback", lambda raw: _add_done_callback(raw, seam))
            for kind in (channel._SingleThreadedRendezvous, channel._MultiThreadedRendezvous)
        ),
    ]


def _server_layers(server: ModuleType, seam: Seam) -> list[Patch]:
    return [Layer(server._Context, "add_callback", lambda raw: _add_callback(raw, seam))]


def _utilities_layers(utilities: ModuleType, seam: Seam) -> list[Patch]:
    future = utilities._ChannelReadyFuture
    return [Layer(future, "add_done_callback", lambda raw: _add_done_callback(raw, seam))]


MODULES = {
    "futures": {
        "grpc._channel": _channel_layers,
        "grpc._server": _server_layers,
        "grpc._utilities": _utilities_layers,
    }
}


# Also without a context: the thread that calls a callback may have another one.


def _add_callback(original: Any, seam: Seam) -> Any:
    @functools.wraps(original)
    def add_callback(self: Any, callback: Any) -> Any:
        return original(self, handoff.bind(seam, callback))

    return add_callback


def _add_done_callback(original: Any, seam: Seam) -> Any:
    @functools.wraps(original)
    def add_done_callback(self: Any, fn: Any) -> Any:
        return original(self, handoff.bind(seam, fn))

    return add_done_callback
