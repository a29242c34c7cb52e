"""The tasks that start clean, as data only.

The rules for an entry are those of ``_clean_starts.functions``. The entries are coroutine functions
that a library runs as tasks for as long as it is used: readers, writers, heartbeats, reconnections,
pollers. ``python tests/scan_threads`` finds candidates.
"""

from __future__ import annotations

from typing import Final

from otel_concurrency._clean_starts.functions import Table

TASKS: Final[Table] = {
    # ably 3.1.4
    "ably.transport.websockettransport": ("WebSocketTransport.ws_read_loop",),
    # aio-pika 9.5.0, 10.2.1
    "aio_pika.robust_connection": ("RobustConnection._RobustConnection__connection_factory",),
    # aiogram 3.31.0
    "aiogram.dispatcher.dispatcher": ("Dispatcher._polling",),
    # aiokafka 0.14.0
    "aiokafka.client": ("AIOKafkaClient._md_synchronizer",),
    "aiokafka.conn": ("AIOKafkaConnection._read",),
    "aiokafka.consumer.fetcher": ("Fetcher._fetch_requests_routine",),
    "aiokafka.consumer.group_coordinator": (
        "GroupCoordinator._commit_refresh_routine",
        "GroupCoordinator._coordination_routine",
        "GroupCoordinator._heartbeat_routine",
        "NoGroupCoordinator._reset_committed_routine",
    ),
    "aiokafka.producer.sender": ("Sender._sender_routine",),
    # aioredis 2.0.1
    "aioredis.client": ("PubSub.run",),
    # aiormq 6.8.0, 7.2.4
    "aiormq.channel": ("Channel._reader",),
    "aiormq.connection": (
        "Connection._Connection__heartbeat",
        "Connection._Connection__reader",
        "Connection._Connection__writer",
    ),
    # asyncpg 0.32.0
    "asyncpg.pool": ("Pool._maintain_min_size",),
    # azure-eventhub 5.15.1
    "azure.eventhub._pyamqp.aio._client_async": ("AMQPClientAsync._keep_alive_async",),
    "azure.eventhub.aio._buffered_producer._buffered_producer_async": (
        "BufferedProducer.check_max_wait_time_worker",
    ),
    "azure.eventhub.aio._eventprocessor.event_processor": ("EventProcessor._receive",),
    # azure-servicebus 7.15.0
    "azure.servicebus._pyamqp.aio._client_async": ("AMQPClientAsync._keep_alive_async",),
    # bullmq 2.15.0, 3.4.4
    "bullmq.lock_manager": ("LockManager._renewal_loop",),
    "bullmq.timer": ("Timer._job",),
    "bullmq.worker": ("Worker.run",),
    # ccxt 4.5.90
    "ccxt.async_support.base.ws.client": ("Client.ping_loop",),
    # confluent-kafka 2.16.1
    "confluent_kafka.aio.producer._buffer_timeout_manager": (
        "BufferTimeoutManager._monitor_timeout",
    ),
    # discord.py 2.7.1
    "discord.shard": ("Shard.worker",),
    "discord.voice_state": ("VoiceConnectionState._poll_voice_ws",),
    # distributed 2026.8.0
    "distributed.client": ("Client._handle_report",),
    "distributed.deploy.cluster": (
        "Cluster._sync_cluster_info",
        "Cluster._watch_worker_status",
    ),
    # python-engineio 4.15.1
    "engineio.async_client": (
        "AsyncClient._read_loop_polling",
        "AsyncClient._read_loop_websocket",
        "AsyncClient._write_loop",
    ),
    "engineio.async_server": ("AsyncServer._service_task",),
    "engineio.async_socket": ("AsyncSocket._send_ping",),
    # gql 4.4.0
    "gql.client": (
        "AsyncClientSession._batch_loop",
        "ReconnectingAsyncClientSession._connection_loop",
    ),
    "gql.transport.common.base": (
        "SubscriptionTransportBase._check_ws_liveness",
        "SubscriptionTransportBase._receive_data_loop",
    ),
    "gql.transport.websockets_protocol": ("WebsocketsProtocolTransportBase._send_ping_coro",),
    # langsmith 0.15.1
    "langsmith.prompt_cache": ("AsyncPromptCache._refresh_loop",),
    # litellm 1.110.2
    "litellm.litellm_core_utils.logging_worker": ("LoggingWorker._worker_loop",),
    # mixpanel 5.4.1
    "mixpanel.flags.local_feature_flags": ("LocalFeatureFlagsProvider._astart_continuous_polling",),
    # nats-py 2.9.0, 2.16.0
    "nats.aio.client": (
        "Client._attempt_reconnect",
        "Client._flusher",
        "Client._ping_interval",
        "Client._read_loop",
    ),
    "nats.aio.subscription": ("Subscription._wait_for_msgs",),
    "nats.js.client": (
        "JetStreamContext._JSI.activity_check",
        "JetStreamContext._JSI.check_flow_control_response",
        "JetStreamContext._JSI.recreate_consumer",
    ),
    # procrastinate 3.10.0
    "procrastinate.worker": (
        "Worker._poll_jobs_to_abort",
        "Worker._run_loop",
        "Worker._update_heartbeat",
    ),
    # psycopg-pool 3.3.3
    "psycopg_pool.pool_async": ("AsyncConnectionPool.worker",),
    "psycopg_pool.sched_async": ("AsyncScheduler.run",),
    # pymodbus 3.16.1
    "pymodbus.transport.transport": (
        "ModbusProtocol.do_reconnect",
        "ModbusProtocol.do_relisten",
    ),
    # pymongo 4.20.1
    "pymongo.periodic_executor": ("AsyncPeriodicExecutor._run",),
    # Pyrogram 2.0.106
    "pyrogram.dispatcher": ("Dispatcher.handler_worker",),
    "pyrogram.session.session": (
        "Session.ping_worker",
        "Session.recv_worker",
    ),
    # realtime 2.34.1
    "realtime._async.client": (
        "AsyncRealtimeClient._heartbeat",
        "AsyncRealtimeClient._listen",
    ),
    # redis 5.0.8, 8.1.0
    "redis.asyncio.client": ("PubSub.run",),
    "redis.asyncio.keyspace_notifications": ("AbstractAsyncKeyspaceNotifications.run",),
    "redis.asyncio.multidb.client": ("PubSub.run",),
    # sanic 25.12.1
    "sanic.server.websockets.impl": ("WebsocketImplProtocol.keepalive_ping",),
    # sentry-sdk 2.75.0
    "sentry_sdk.worker": ("AsyncWorker._target",),
    # slack_sdk 3.48.0
    "slack_sdk.socket_mode.aiohttp": (
        "SocketModeClient.monitor_current_session",
        "SocketModeClient.receive_messages",
    ),
    "slack_sdk.socket_mode.async_client": ("AsyncBaseSocketModeClient.process_messages",),
    "slack_sdk.socket_mode.websockets": (
        "SocketModeClient.monitor_current_session",
        "SocketModeClient.receive_messages",
    ),
    # python-socketio 5.18.1
    "socketio.async_client": ("AsyncClient._handle_reconnect",),
    "socketio.async_pubsub_manager": ("AsyncPubSubManager._thread",),
    # python-telegram-bot 22.8
    "telegram.ext._application": (
        "Application._persistence_updater",
        "Application._update_fetcher",
    ),
    "telegram.ext._utils.networkloop": ("network_retry_loop",),
    # Telethon 1.45.0
    "telethon.client.updates": (
        "UpdateMethods._keepalive_loop",
        "UpdateMethods._update_loop",
    ),
    "telethon.network.connection.connection": (
        "Connection._recv_loop",
        "Connection._send_loop",
    ),
    "telethon.network.mtprotosender": (
        "MTProtoSender._recv_loop",
        "MTProtoSender._send_loop",
    ),
    # tornado 6.6.1
    "tornado.websocket": ("WebSocketProtocol13.periodic_ping",),
    # UnleashClient 6.9.1
    "UnleashClient._async_scheduler": ("_AsyncScheduler._run",),
    # valkey 6.2.0
    "valkey.asyncio.client": ("PubSub.run",),
    # watchfiles 0.21.0, 1.3.0
    "watchfiles.run": ("arun_process",),
    # weaviate-client 4.24.1
    "weaviate.connect.v4": ("_ConnectionBase._ConnectionBase__periodic_token_refresh_async",),
    # websockets 13.0, 17.4 (asyncio, and legacy)
    "websockets.asyncio.connection": ("Connection.keepalive",),
    "websockets.legacy.protocol": (
        "WebSocketCommonProtocol.close_connection",
        "WebSocketCommonProtocol.keepalive_ping",
        "WebSocketCommonProtocol.transfer_data",
    ),
    # ydb 3.33.2
    "ydb._topic_reader.topic_reader_asyncio": (
        "ReaderReconnector._connection_loop",
        "ReaderStream._decode_batches_loop",
        "ReaderStream._read_messages_loop",
        "ReaderStream._update_token_loop",
    ),
    "ydb._topic_writer.topic_writer_asyncio": (
        "WriterAsyncIOReconnector._connection_loop",
        "WriterAsyncIOReconnector._encode_loop",
        "WriterAsyncIOReconnector._read_loop",
        "WriterAsyncIOReconnector._send_loop",
        "WriterAsyncIOStream._update_token_loop",
    ),
    "ydb.aio.coordination.reconnector": ("CoordinationReconnector._connection_loop",),
    "ydb.aio.coordination.stream": ("CoordinationStream._reader_loop",),
    "ydb.aio.query.session": ("QuerySession._check_session_status_loop",),
    "ydb.aio.table": ("SessionPool._keep_alive_loop",),
}
"""By module: coroutine functions that begin in the empty context if they are all that a task runs.
"""
