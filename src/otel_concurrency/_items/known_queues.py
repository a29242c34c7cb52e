"""The names of modules whose queues hand no work off, as data.

Items that such a module puts are no work for the flow that gets them. The standard library uses
queues for calls, log records and results, whose contexts are carried in other ways. Pools keep
connections in queues, and clients of brokers keep messages that they have received.
"""

from __future__ import annotations

import functools
from types import FrameType

PLUMBING = frozenset(
    (
        "concurrent.futures.interpreter",
        "concurrent.futures.process",
        "concurrent.futures.thread",
        "logging.handlers",
        "multiprocess.managers",
        "multiprocess.pool",
        "multiprocessing.pool",
        "otel_concurrency._primitives._multiprocessing._executors",
        "otel_concurrency._primitives._multiprocessing._pools",
    )
)
"""Modules of the standard library, of its copy ``multiprocess``, and of this library where it acts
for them."""

POOLS = frozenset(
    (
        "aio_pika.pool",  # 10.2.1
        "asyncpg.pool",  # 0.32.0
        "dbutils.pooled_pg",  # 3.2.0
        "dbutils.simple_pooled_db",
        "dbutils.simple_pooled_pg",
        "elastic_transport._node_pool",  # 9.4.2
        "elasticsearch.connection.pooling",  # 7.17.9
        "elasticsearch.connection_pool",
        "google.cloud.spanner_v1.pool",  # 3.71.0
        "happybase.pool",  # 1.3.0
        "kombu.connection",  # 5.7.0
        "kombu.pools",
        "kombu.resource",
        "mysql.connector.aio.pooling",  # 26.10.0
        "mysql.connector.pooling",
        "opensearchpy.connection.pooling",  # 3.2.0
        "opensearchpy.connection_pool",
        "pip._vendor.urllib3.connectionpool",
        "redis.connection",  # 5.3.1
        "sqlalchemy.util.queue",  # 2.1.9
        "urllib3.connectionpool",  # 2.8.0
    )
)
"""Modules of libraries that keep connections in queues, with the versions whose source was read."""

READERS = frozenset(
    (
        "aio_pika.queue",  # 10.2.1
        "nats.aio.client",  # 2.16.0
        "nats.aio.subscription",
    )
)
"""Modules of clients whose reader puts messages from the network into a queue, with the versions.

A message's headers say to which trace it belongs. The reader's context has nothing to do with the
sender of a message.
"""

_ALL = PLUMBING | POOLS | READERS
_QUEUES = ("asyncio.queues", "queue")
_OURS = "otel_concurrency."


def is_plumbing(frame: FrameType | None) -> bool:
    """Whether a module of these lists has called the queue operation that ``frame`` is part of.

    The caller is the first frame outside the queue's methods and this library's hooks.
    """
    while frame is not None:
        name = frame.f_globals.get("__name__") or ""
        if _is_another(name):
            return False
        if name in _ALL:
            return True
        frame = frame.f_back
    return False


@functools.lru_cache
def _is_another(name: str) -> bool:
    """Whether a module is not in these lists, and has no methods of queues or hooks."""
    return name not in _ALL and name not in _QUEUES and not name.startswith(_OURS)
