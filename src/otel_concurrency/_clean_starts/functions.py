"""The functions and tasks that start clean: data, and nothing else.

What an event loop runs is in the context of whoever has made it: a server's connections in that of
whoever has started the server, a client's reader task in that of the request that connected first.
Both outlive it. Where asyncio itself makes them, its own functions are patched; where a library
does, they cannot be told from the program's own by looking at them. So they are named here, apart
from the code that patches, which never changes when a library does.

How an entry is written
    By the module that defines the function, and its name in there, as ``__module__`` and
    ``__qualname__`` have it at run time.

What does not belong here
    What a request waits for, or what is over when it is: that is part of the request. Nor a
    function to which users hand work of theirs, which is to run in their context.

How an entry is verified
    In the source of the versions that its comment names, and by a test with the library itself, and
    its server, where that can be had. An entry for a name that only some of these versions have
    stays: it costs nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

FLOWS: Final[Mapping[str, tuple[str, ...]]] = {
    # gunicorn 23.0.0, 27.0.1: a worker's life, in a process that is forked
    "gunicorn.workers.base": ("Worker.init_process",),
    # tornado 6.4.0, 6.6.1: how it starts to listen
    "tornado.tcpserver": ("TCPServer.add_sockets",),
    # uvicorn 0.30.0, 0.54.0: these start the request that waits behind the one that has just been
    # answered (HTTP pipelining), in the middle of that one's task
    "uvicorn.protocols.http.h11_impl": ("H11Protocol.on_response_complete",),
    "uvicorn.protocols.http.httptools_impl": ("HttpToolsProtocol.on_response_complete",),
    "uvicorn.protocols.http.zttp_impl": ("ZttpProtocol.on_response_complete",),
}
"""By module: functions of which a call is a flow of its own, that begins in no context."""

TASKS: Final[Mapping[str, tuple[str, ...]]] = {}
"""By module: coroutine functions that begin in no context where a task has nothing else to do."""
