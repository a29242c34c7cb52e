"""The functions and tasks that start clean, as data only.

An event loop runs a task or callback in the context of its creator. A server's connections run in
the context in which the server was started, and a client's reader in that of the request that
connected first. Both outlive that context's span, and would make the work of every later request a
child of it. If asyncio itself creates such tasks, its functions are patched. If a library creates
them, they look the same as the program's tasks, so they are listed here. The list is kept apart
from the code that patches, which need not change when a library does.

How an entry is written
    The module that defines the function, and the function's ``__qualname__`` in it: with the class,
    and for a private method with the mangled name.

What does not belong here
    A function that a request waits for, or that ends with the request: it is part of the request.
    Nor a function to which users hand their work, which has to run in their context.

How an entry is verified
    In the source of the versions that its comment names: find the statement that creates the task
    or registers the callback, and the code that runs there for ever. The tests start the tasks of
    the libraries in the ``dev-adapters`` extra for real, with real servers, and resolve the entries
    of the others. An entry for a name that only some of these versions have stays: it costs
    nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

Table = Mapping[str, tuple[str, ...]]

FLOWS: Final[Table] = {
    # Standard library: a server that serves in the thread that has started it
    "socketserver": ("BaseServer.serve_forever",),
    # aiomqtt 2.0.0, 2.5.1: these hand the socket, and with it all that arrives, to the loop
    "aiomqtt.client": ("Client._on_socket_open", "Client._on_socket_register_write"),
    # anyio 4.4.0, 4.16.0: it serves
    "anyio.abc._sockets": ("SocketListener.serve",),
    # asyncpg 0.29.0, 0.32.0: these call the listeners of a connection
    "asyncpg.connection": (
        "Connection._call_termination_listeners",
        "Connection._process_log_message",
        "Connection._process_notification",
    ),
    # grpcio 1.66.2, 1.85.3: it begins to serve
    "grpc.aio._server": ("Server.start",),
    # ccxt 4.5.90: it begins to receive
    "ccxt.async_support.base.ws.client": ("Client.receive_loop",),
    # gunicorn 23.0.0, 27.0.1: a worker's life, in a process that is forked
    "gunicorn.workers.base": ("Worker.init_process",),
    # redis 6.4.0, 8.1.0: these begin to renew a token, and to look after databases
    "redis.auth.token_manager": ("TokenManager.start", "TokenManager.start_async"),
    "redis.background": (
        "BackgroundScheduler.run_recurring",
        "BackgroundScheduler.run_recurring_async",
        "BackgroundScheduler.run_recurring_coro",
    ),
    # tornado 6.4.0, 6.6.1: it begins to listen
    "tornado.tcpserver": ("TCPServer.add_sockets",),
    # trio 0.26.2, 0.35.0: it serves
    "trio._highlevel_serve_listeners": ("_serve_one_listener",),
    # uvicorn 0.30.0, 0.54.0: these begin the request that waits behind the one that has just been
    # answered (HTTP pipelining), in the middle of that one's task
    "uvicorn.protocols.http.h11_impl": ("H11Protocol.on_response_complete",),
    "uvicorn.protocols.http.httptools_impl": ("HttpToolsProtocol.on_response_complete",),
    "uvicorn.protocols.http.zttp_impl": ("ZttpProtocol.on_response_complete",),
}
"""By module: functions of which each call is a separate flow, which begins in the empty context."""

ROUNDS: Final[Table] = {
    # aiocron 1.8, 2.1
    "aiocron": ("Cron.start",),
    # aiotools 1.7.0, 2.2.4
    "aiotools.timer": ("create_timer",),
    # bokeh 3.4.0 (the second module), 3.10.2
    "bokeh.util.asyncio": ("_AsyncPeriodic.start",),
    "bokeh.util.tornado": ("_AsyncPeriodic.start",),
    # discord.py 2.3.2, 2.7.1; disnake 2.12.2 and nextcord 3.2.0, which are made from it
    "discord.ext.tasks": ("Loop.start",),
    "disnake.ext.tasks": ("Loop.start",),
    "nextcord.ext.tasks": ("Loop.start",),
    # tornado 6.4.0, 6.6.1
    "tornado.ioloop": ("PeriodicCallback.start",),
}
"""By module: functions that start periodic work. The work keeps the baggage of its starter, but has
no parent: its root spans have a link to the span in which it was started."""

SOURCES: Final[Table] = {
    # aiokafka 0.14.0
    "aiokafka.consumer.consumer": ("AIOKafkaConsumer.getmany", "AIOKafkaConsumer.getone"),
    # aiomqtt 2.0.0, 2.5.1
    "aiomqtt.client": ("MessagesIterator.__anext__",),
    # nats-py 2.9.0, 2.16.0
    "nats.aio.subscription": ("Subscription.next_msg", "_SubscriptionMessageIterator.__anext__"),
    "nats.js.client": ("JetStreamContext.PullSubscription.fetch",),
    # redis 5.0.8, 8.1.0
    "redis.asyncio.client": ("PubSub.get_message", "PubSub.listen"),
    # valkey 6.2.0
    "valkey.asyncio.client": ("PubSub.get_message", "PubSub.listen"),
    # watchfiles 0.21.0, 1.3.0
    "watchfiles.main": ("awatch",),
}
"""By module: functions that get messages from outside, for ever. A flow that gets a message in the
context of an ended span switches to the empty context: the message has nothing to do with the
request of that span."""

IMPORTED_BY: Final[Mapping[str, Mapping[str, str]]] = {
    "aiotools": {"create_timer": "aiotools.timer"},
    "telegram.ext._application": {"network_retry_loop": "telegram.ext._utils.networkloop"},
    "telegram.ext._updater": {"network_retry_loop": "telegram.ext._utils.networkloop"},
    "watchfiles": {"arun_process": "watchfiles.run", "awatch": "watchfiles.main"},
    "watchfiles.run": {"awatch": "watchfiles.main"},
}
"""By module: the functions of the table that it imports by name, and the modules that define them.

A program that imported such a module before instrumenting calls the functions by these names.
"""
