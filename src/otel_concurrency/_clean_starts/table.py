"""The threads and processes that start with a clean context: data, and nothing else.

A library's own worker or heartbeat is started by whichever request happens to need it first, and
outlives that request. In that request's context it would pin the span for life and make every
later request's work a child of it. These threads cannot be told from the user's by looking at them,
so they are named here, apart from the code that matches, which never changes when a library does.

How an entry is written
    The dotted name of a thread class, or of the function that the thread runs, as ``__module__``
    and ``__qualname__`` have it at run time: not the import path, and with ``<locals>`` where it is
    a closure. A bound method is named by the class that defines it, a partial by what it wraps, a
    callable instance by its type, a timer by what it calls. An entry covers everything below it at
    a dot, so a private class or module stands for all that it starts, under whatever name the next
    release gives it. A star at the end makes it a plain string prefix.

What does not belong here
    A thread that makes one call for the caller who waits for it, whoever wrote the thread: that
    call is part of the request. Nor a class that users derive one-shot work from, nor a module
    whose functions users hand to a thread themselves.

How an entry is verified
    In the source of the versions that its comment names, by finding the statement that starts the
    thread and the class that defines what it runs, which a subclass may override. An entry for a
    name that only some of these versions have stays: it costs nothing. The tests resolve every
    entry of the standard library, of OpenTelemetry and of the libraries in the ``dev`` extra, and
    start such threads for real.
"""

from __future__ import annotations

from typing import Final

TABLE: Final[tuple[str, ...]] = (
    # Standard library, CPython 3.10 to 3.15. Of asyncio only what lives for ever or belongs to the
    # loop itself: Thread(target=asyncio.run) and to_thread are the caller's own work.
    "asyncio.base_events.BaseEventLoop._do_shutdown",
    "asyncio.base_events.BaseEventLoop.run_forever",
    "asyncio.unix_events.ThreadedChildWatcher",  # to 3.13
    "asyncio.unix_events._ThreadedChildWatcher",  # from 3.14
    "asyncio.windows_events.ProactorEventLoop.run_forever",  # to 3.12
    "concurrent.futures.process._ExecutorManagerThread",
    "concurrent.futures.process._process_worker",  # what its processes run
    "concurrent.futures.thread._worker",
    "logging.config.listen.<locals>.Server",
    "logging.handlers.QueueListener._monitor",
    "multiprocessing.managers.BaseManager._run_server",  # what its process runs
    "multiprocessing.managers.Server",
    "multiprocessing.pool.Pool._handle_*",
    "multiprocessing.pool.worker",  # what its processes run, and a ThreadPool's threads
    "multiprocessing.queues.Queue._feed",
    "multiprocessing.resource_sharer._ResourceSharer",
    "pdb._PdbServer._start_signal_listener",  # from 3.14
    "pydoc._start_server.<locals>.ServerThread",
    "socketserver.BaseServer.serve_forever",
    "socketserver.ThreadingMixIn.process_request_thread",
    "subprocess.Popen._readerthread",  # Windows
    "subprocess.Popen._writerthread",  # Windows, from 3.14
    # opentelemetry-sdk 1.20.0, 1.30.0, 1.35.0, 1.45.2: every thread that it starts. The batch
    # processors' loop has moved between its modules, so it is the package that is named.
    "opentelemetry.sdk",
    # aiosqlite 0.20.0 (the class), 0.22.1 (the function)
    "aiosqlite.core.Connection",
    "aiosqlite.core._connection_worker_thread",
    # anyio 3.7.1, 4.4.0 (the worker), 4.9.0, 4.16.0
    "anyio._backends._asyncio.WorkerThread",
    "anyio._core._asyncio_selector_thread.Selector",
    "anyio.from_thread.start_blocking_portal.<locals>.run_blocking_portal",
    # APScheduler 3.10.4, 3.11.3
    "apscheduler.schedulers.blocking.BlockingScheduler",
    # azure-eventhub 5.15.1
    "azure.eventhub._eventprocessor.event_processor.EventProcessor",
    "azure.eventhub._pyamqp.client.AMQPClient._keep_alive",
    # azure-monitor-opentelemetry-exporter 1.0.0b58
    "azure.monitor.opentelemetry.exporter",
    # azure-servicebus 7.15.0
    "azure.servicebus._pyamqp.client.AMQPClient._keep_alive",
    # billiard 4.2.1, 4.3.2: the threads and the workers of its pools
    "billiard.pool",
    # cassandra-driver 3.30.1; its asyncio and twisted reactors run those loops
    "cassandra.cluster._Scheduler",
    "cassandra.connection.ConnectionHeartbeat",
    "cassandra.datastax.insights.reporter.MonitorReporter",
    "cassandra.io.asyncorereactor.AsyncoreLoop",
    "cassandra.io.libevreactor.LibevLoop",
    # celery 5.4.0, 5.7.0 (BeatPidbox)
    "celery.app.trace",  # what its consumer hands to a pool: a task's context is in its message
    "celery.beat.BeatPidbox",
    "celery.beat._Threaded",
    "celery.concurrency.asynpool.Worker",  # what its processes run
    "celery.utils.threads.bgThread",
    "celery.utils.timer2.Timer",
    # cheroot 11.1.2
    "cheroot.server.HTTPServer",
    "cheroot.workers.threadpool.WorkerThread",
    # CherryPy 18.10.0
    "cherrypy.lib.caching.MemoryCache.expire_cache",
    "cherrypy.process.plugins.BackgroundTask",
    "cherrypy.process.plugins.PerpetualTimer",
    "cherrypy.process.servers.ServerAdapter",
    # datadog 0.49.1, 0.56.0
    "datadog.dogstatsd.base.DogStatsd._sender_main_loop",
    "datadog.dogstatsd.base.DogStatsd._start_flush_thread",
    "datadog.threadstats.periodic_timer.PeriodicTimer",
    # ddtrace 4.16.0; its periodic threads are native and never pass through threading.Thread
    "ddtrace.vendor.dogstatsd.base.DogStatsd._sender_main_loop",
    "ddtrace.vendor.dogstatsd.base.DogStatsd._start_flush_thread",
    # debugpy 1.8.22
    "_pydevd_bundle.pydevd_daemon_thread.PyDBDaemonThread",
    # distributed 2026.8.0
    "distributed.process.AsyncProcess",
    "distributed.profile._watch",
    "distributed.threadpoolexecutor._worker",
    "distributed.utils.LoopRunner",
    # discord.py 2.7.1
    "discord.gateway.KeepAliveHandler",
    "discord.voice_state.SocketReader",
    # dramatiq 1.17.1 (underscored workers), 2.2.1
    "dramatiq.asyncio.EventLoopThread",
    "dramatiq.middleware.time_limit._CtypesTimeoutManager",
    "dramatiq.worker.ConsumerThread",
    "dramatiq.worker.WorkerThread",
    "dramatiq.worker._ConsumerThread",
    "dramatiq.worker._WorkerThread",
    # elastic-apm 6.19.0, 6.26.2
    "elasticapm.transport",
    "elasticapm.utils.threading.IntervalTimer",
    # etcd3 0.12.0
    "etcd3.watch.Watcher",
    # eventlet 0.38.0, 0.41.3: its native threads, and the green one that gets their results
    "eventlet.tpool",
    # futurist 3.5.0
    "futurist._futures.DelayedExecutorMixinBase._schedule",
    "futurist._thread.ThreadWorker",
    # gevent 25.9.1, 26.9.0
    "gevent.threadpool._WorkerGreenlet",
    # google-api-core 2.15.0, 2.44.0
    "google.api_core.bidi.BackgroundConsumer",
    # google-auth 2.62.2
    "google.auth._refresh_worker.RefreshThread",
    "google.auth._regional_access_boundary_utils._RegionalAccessBoundaryRefreshThread",
    # google-cloud-logging 3.17.0
    "google.cloud.logging_v2.handlers.transports.background_thread._Worker",
    # google-cloud-pubsub 2.18.4, 2.44.0
    "google.cloud.pubsub_v1.publisher._batch.thread.Batch",
    "google.cloud.pubsub_v1.publisher.client.Client._wait_and_commit_sequencers",
    "google.cloud.pubsub_v1.subscriber._protocol",
    # grpcio 1.85.1; a client's threads run in a copy of their creator's contextvars in any case
    "grpc._server._serve",
    "grpc._simple_stubs.ChannelCache",
    # gunicorn 21.2.0, 27.0.1
    "gunicorn.ctl.server.ControlSocketServer",
    "gunicorn.reloader",
    # huey 2.5.2, 3.5.4
    "huey.consumer.Consumer",
    "huey.contrib.stats.HueyStats._writer_loop",
    # ipykernel 6.29.5, 7.4.0
    "ipykernel.control.ControlThread",
    "ipykernel.heartbeat.Heartbeat",
    "ipykernel.iostream.IOPubThread",
    "ipykernel.iostream.OutStream._watch_pipe_fd",
    "ipykernel.parentpoller",
    "ipykernel.thread.BaseThread",
    # ipython 9.18.1
    "IPython.core.history.HistorySavingThread",
    # joblib 1.6.0
    "joblib.externals.loky.backend.queues.Queue._feed",
    "joblib.externals.loky.process_executor._ExecutorManagerThread",
    "joblib.externals.loky.process_executor._process_worker",
    # jupyter-client 8.10.0
    "jupyter_client.channels.HBChannel",
    "jupyter_client.threaded.IOLoopThread",
    # kafka-python 2.0.2, 2.2.15 (heartbeat), 3.0.12 (network selector)
    "kafka.coordinator.base.HeartbeatThread",
    "kafka.metrics.metrics.Metrics.__init__.<locals>.expire_loop",
    "kafka.net.selector.NetworkSelector.run_forever",
    "kafka.producer.sender.Sender",
    # kazoo 2.11.0
    "kazoo.handlers.threading.SequentialThreadingHandler._create_thread_worker",
    "kazoo.protocol.connection.ConnectionHandler.zk_loop",
    "kazoo.recipe.cache.TreeCache._do_background",
    # kombu 5.7.0
    "kombu.transport.gcpubsub.Channel._extend_unacked_deadline",
    # langsmith 0.1.147, 0.15.0
    "langsmith._internal._background_thread",
    "langsmith.prompt_cache.PromptCache._refresh_loop",
    "langsmith.wrappers._openai_agents_api._TraceForwarder",
    # launchdarkly-server-sdk 8.3.0, 9.20.0
    "ldclient.impl",
    # loky 3.7.0
    "loky.backend.queues.Queue._feed",
    "loky.process_executor._ExecutorManagerThread",
    "loky.process_executor._process_worker",
    # loguru 0.7.3
    "loguru._handler.Handler._queued_writer",
    # more-executors 2.11.4
    "more_executors._impl.poll._poll_loop",
    "more_executors._impl.retry._submit_loop",
    "more_executors._impl.throttle._submit_loop",
    "more_executors._impl.timeout.TimeoutExecutor._job_loop",
    # multiprocess 0.70.16, 0.70.19: what multiprocessing has
    "multiprocess.managers.BaseManager._run_server",
    "multiprocess.managers.Server",
    "multiprocess.pool.Pool._handle_*",
    "multiprocess.pool.worker",
    "multiprocess.queues.Queue._feed",
    "multiprocess.resource_sharer._ResourceSharer",
    # newrelic 9.13.0, 14.1.0
    "newrelic.console.ConnectionManager",
    "newrelic.core",
    # opencensus 0.11.4
    "opencensus.common.schedule.PeriodicTask",
    "opencensus.common.transports.async_._Worker",
    # paho-mqtt 1.6.1, 2.2.0
    "paho.mqtt.client.Client._thread_main",
    "paho.mqtt.client.Client.loop_forever",
    # pika 1.4.4
    "pika.adapters.blocking_connection.BlockingChannel.start_consuming",
    # posthog 3.25.0 (consumer and poller), 7.91.1
    "posthog._async_utils._BackgroundEventLoopRunner",
    "posthog._metrics_autocapture.MetricsAutocapture",
    "posthog.client.Client._defer_flush_from_callback",
    "posthog.client.Client._defer_lifecycle_from_callback",
    "posthog.client.Client._start_span_flush",
    "posthog.consumer.Consumer",
    "posthog.metrics_capture.PostHogMetrics._arm_flush_timer",
    "posthog.poller.Poller",
    "posthog.tracing._export.SpanExporter",
    # prometheus-client 0.26.0; its server is the standard library's
    "prometheus_client.bridge.graphite._RegularPush",
    # psycopg-pool 3.1.9, 3.3.3
    "psycopg_pool.pool.ConnectionPool.worker",
    "psycopg_pool.sched.Scheduler",
    # pymongo 4.6.3, 4.20.0
    "pymongo.periodic_executor.PeriodicExecutor",
    # python-engineio 4.9.1, 4.15.1; handlers of events run in threads of their own, not in these
    "engineio.client.Client._read_loop_*",
    "engineio.client.Client._write_loop",
    "engineio.server.Server._service_task",
    "engineio.socket.Socket._send_ping",
    "engineio.socket.Socket._websocket_handler.<locals>.writer",
    # python-socketio 5.11.4, 5.18.1
    "socketio.admin.InstrumentedServer._emit_server_stats",
    "socketio.client.Client._handle_reconnect",
    "socketio.pubsub_manager.PubSubManager._thread",
    # pyzmq 27.3.0
    "zmq.auth.thread.AuthenticationThread",
    "zmq.devices.basedevice.Device",
    "zmq.utils.garbage.GarbageCollectorThread",
    # ray 2.60.0
    "ray._private.gc_collect_manager.PythonGCThread",
    "ray._private.worker.Worker.print_logs",
    "ray._private.worker.listen_error_messages",
    "ray.serve._private.replica.UserCallableWrapper.__init__.<locals>._run_user_code_event_loop",
    "ray.serve._private.router.SingletonThreadRouter._get_singleton_asyncio_loop",
    "ray.util.client.dataclient.DataClient",
    "ray.util.client.logsclient.LogstreamClient",
    "ray.util.client.worker.Worker._release_server_worker",
    # reactivex 6.1.0
    "reactivex.scheduler.eventloopscheduler.EventLoopScheduler.run",
    # redis 5.0.8 (the worker), 6.4.0, 8.1.0
    "redis.auth.token_manager.TokenManager",
    "redis.auth.token_manager._start_event_loop_in_thread",
    "redis.background.BackgroundScheduler",
    "redis.background._start_event_loop_in_thread",
    "redis.client.PubSubWorkerThread",
    "redis.keyspace_notifications.KeyspaceWorkerThread",
    "redis.maint_notifications.MaintNotificationsPoolHandler",
    # segment-analytics-python 2.4.0
    "segment.analytics.consumer.Consumer",
    "segment.analytics.oauth_manager.OauthManager._poller_loop",
    # sentry-sdk 1.45.1, 2.30.0, 2.75.0; the batchers and aggregators have changed names
    "sentry_sdk._batcher.Batcher",
    "sentry_sdk._log_batcher.LogBatcher",
    "sentry_sdk._span_batcher.SpanBatcher",
    "sentry_sdk.metrics.MetricsAggregator",
    "sentry_sdk.monitor.Monitor",
    "sentry_sdk.profiler",
    "sentry_sdk.sessions.SessionFlusher",
    "sentry_sdk.worker.BackgroundWorker",
    # slack-sdk 3.47.0
    "slack_sdk.socket_mode.interval_runner.IntervalRunner",
    # snowflake-connector-python 3.12.4; 5.2.0 starts none that lives on
    "snowflake.connector.time_util.HeartBeatTimer",
    # splitio-client 9.7.0, 10.7.0
    "splitio.client.factory.SplitFactory._update_status_when_ready",
    "splitio.events.events_task.EventsTask",
    "splitio.push",
    "splitio.sync.manager",
    "splitio.tasks",
    # stomp.py 9.0.0
    "stomp.listener.HeartbeatListener.__heartbeat_loop",
    "stomp.transport.BaseTransport.__io_loop",
    # tornado 6.1, 6.4.2, 6.6.1
    "tornado.platform.asyncio.AddThreadSelectorEventLoop",
    "tornado.platform.asyncio.BaseAsyncIOLoop.start",
    "tornado.platform.asyncio.SelectorThread",
    # tqdm 4.70.1
    "tqdm._monitor.TMonitor",
    # pebble 5.2.3
    "pebble.pool.process",
    "pebble.pool.thread",
    # trio 0.24.0, 0.35.0
    "trio._core._thread_cache.WorkerThread",
    # trio-parallel 1.3.0
    "_trio_parallel_workers.worker_behavior",
    # twisted 22.10.0, 26.10.0
    "twisted._threads._threadworker.ThreadWorker",
    "twisted.internet._threadedselect.ThreadedSelectReactor",
    "twisted.internet.base.ReactorBase.run",
    "twisted.internet.base._SignalReactorMixin.run",
    # uvicorn 0.54.0
    "uvicorn.main.run",
    "uvicorn.server.Server.run",
    "uvicorn.supervisors.multiprocess.Process",
    # uvloop 0.23.0
    "uvloop.loop.Loop.run_forever",
    # waitress 3.0.2
    "waitress.task.ThreadedTaskDispatcher",
    # watchdog 2.3.1, 4.0.2, 6.0.0, 7.1.0
    "watchdog.observers",
    "watchdog.utils.event_debouncer.EventDebouncer",
    "watchdog.utils.process_watcher.ProcessWatcher",
    # websockets 12.0, 17.4: the threading implementation
    "websockets.sync.client.ClientConnection.recv_events",
    "websockets.sync.connection.Connection.keepalive",
    "websockets.sync.server.Server.serve_forever",
    "websockets.sync.server.ServerConnection.recv_events",
    "websockets.sync.server.WebSocketServer.serve_forever",
    "websockets.sync.server.serve",
    # werkzeug 3.1.9
    "werkzeug.serving.BaseWSGIServer.serve_forever",
)
