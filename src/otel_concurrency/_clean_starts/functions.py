"""The functions and tasks that start clean: data, and nothing else.

What an event loop runs is in the context of whoever has made it: a server's connections in that of
whoever has started the server, a client's reader in that of the request that connected first. Both
outlive it, and make every later request's work a child of it. Where asyncio itself makes them, its
own functions are patched; where a library does, they cannot be told from the program's by looking
at them. So they are named here, apart from the code that patches, which never changes when a
library does.

How an entry is written
    By the module that defines the function, and its name in there as ``__qualname__`` has it: with
    the class, and with the name of a private method as Python spells it outside of its class.

What does not belong here
    What a request waits for, or what is over when it is: that is part of the request. Nor a
    function to which users hand work of theirs, which is to run in their context.

How an entry is verified
    In the source of the versions that its comment names: the statement that makes the task, or
    registers the callback, and what runs there for ever. The tests start the tasks of the libraries
    in the ``dev-adapters`` extra for real, with real servers, and resolve the entries of the
    others. An entry for a name that only some of these versions have stays: it costs nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

Table = Mapping[str, tuple[str, ...]]

FLOWS: Final[Table] = {
    # aiomqtt 2.0.0, 2.5.1: these hand the socket, and with it all that arrives, to the loop
    "aiomqtt.client": ("Client._on_socket_open", "Client._on_socket_register_write"),
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
    # uvicorn 0.30.0, 0.54.0: these begin the request that waits behind the one that has just been
    # answered (HTTP pipelining), in the middle of that one's task
    "uvicorn.protocols.http.h11_impl": ("H11Protocol.on_response_complete",),
    "uvicorn.protocols.http.httptools_impl": ("HttpToolsProtocol.on_response_complete",),
    "uvicorn.protocols.http.zttp_impl": ("ZttpProtocol.on_response_complete",),
}
"""By module: functions of which a call is a flow of its own, which begins in no context."""

ROUNDS: Final[Table] = {
    # aiocron 1.8, 2.1
    "aiocron": ("Cron.start",),
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
"""By module: functions that start periodic work. It has the baggage of whoever has started it, and
no parent: what is a root there has a link to the span in which it was started."""

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
"""By module: what gets messages from outside, for ever. Whoever still is in the context of a span
that has ended, and gets one, is in none from then on: that request has nothing to do with it."""

IMPORTED_BY: Final[Mapping[str, Mapping[str, str]]] = {
    "watchfiles": {"arun_process": "watchfiles.run", "awatch": "watchfiles.main"},
    "watchfiles.run": {"awatch": "watchfiles.main"},
}
"""By module: functions of the table that it has by their names, and the module that defines them.

A program that has imported it before the library was switched on uses those names.
"""
