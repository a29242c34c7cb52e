"""The threads and processes of libraries, L to Z by name; see ``table`` for what belongs here."""

from __future__ import annotations

from typing import Final

ENTRIES: Final[tuple[str, ...]] = (
    # langfuse 5.0.4
    "langfuse._task_manager.media_upload_consumer.MediaUploadConsumer",
    "langfuse._task_manager.score_consumer.ScoreConsumer",
    "langfuse._utils.prompt_cache.PromptCacheRefreshConsumer",
    # langsmith 0.1.147, 0.15.0
    "langsmith._internal._background_thread",
    "langsmith.prompt_cache.PromptCache._refresh_loop",
    "langsmith.wrappers._openai_agents_api._TraceForwarder",
    # launchdarkly-server-sdk 8.3.0, 9.20.0
    "ldclient.impl",
    # lightstep 4.4.8
    "lightstep.recorder.Recorder._flush_periodically",
    # livekit-agents 1.8.9
    "livekit.agents.ipc.log_queue.LogQueueListener._monitor",
    "livekit.agents.telemetry.loop_monitor.EventLoopMonitor._watchdog_main",
    "livekit.agents.worker._DefaultLoadCalc._calc_load",
    # lmnr 0.8.2
    "lmnr.opentelemetry_lib.tracing.batch_processor.SizeLimitedBatchSpanProcessor._flush_loop",
    "lmnr.sdk.browser.background_send_events.get_background_loop.<locals>.run_loop",
    # logbook 1.10.1
    "logbook.queues",
    # loguru 0.7.3
    "loguru._handler.Handler._queued_writer",
    # loky 3.7.0
    "loky.backend.queues.Queue._feed",
    "loky.process_executor._ExecutorManagerThread",
    "loky.process_executor._process_worker",
    # luigi 3.8.1
    "luigi.worker.KeepAliveThread",
    # mixpanel 5.4.1
    "mixpanel.flags.local_feature_flags.LocalFeatureFlagsProvider._start_continuous_polling",
    # mlflow 3.18.0
    "mlflow.store.tracking._secret_cache._cleanup_loop",
    "mlflow.system_metrics.system_metrics_monitor.SystemMetricsMonitor.monitor",
    "mlflow.telemetry.client.TelemetryClient._consumer",
    "mlflow.tracing.export.async_export_queue.AsyncTraceExportQueue._consumer_loop",
    "mlflow.tracing.export.span_batcher.SpanBatcher._worker_loop",
    "mlflow.tracing.utils.timeout.MlflowTraceTimeoutCache._expire_check_loop",
    "mlflow.utils.async_logging.async_artifacts_logging_queue.AsyncArtifactsLoggingQueue._logging_loop",
    "mlflow.utils.async_logging.async_logging_queue.AsyncLoggingQueue._logging_loop",
    # modal 1.6.4
    "modal._runtime.telemetry.ImportInterceptor._send",
    # more-executors 2.11.4
    "more_executors._impl.poll._poll_loop",
    "more_executors._impl.retry._submit_loop",
    "more_executors._impl.throttle._submit_loop",
    "more_executors._impl.timeout.TimeoutExecutor._job_loop",
    # mpire 2.10.2
    "mpire.pool.WorkerPool._restart_handler",
    "mpire.pool.WorkerPool._results_handler",
    "mpire.pool.WorkerPool._timeout_handler",
    "mpire.pool.WorkerPool._unexpected_death_handler",
    "mpire.progress_bar.ProgressBarHandler._progress_bar_handler",
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
    # niquests 3.21.2
    "niquests.extensions.sgi._async.ThreadAsyncServerGatewayInterface._ensure_loop_running.<locals>.run_loop",
    # openai-agents 0.24.0
    "agents.tracing.processors.BatchTraceProcessor._run",
    # opencensus 0.11.4
    "opencensus.common.schedule.PeriodicTask",
    "opencensus.common.transports.async_._Worker",
    # opencensus-ext-azure 1.1.15
    "opencensus.ext.azure.common.exporter.Worker",
    "opencensus.ext.azure.log_exporter.Worker",
    # opik 2.2.122
    "opik.analytics.worker.Worker",
    "opik.api_objects.agent_config.cache.CacheRefreshThread",
    "opik.api_objects.prompt.prompt_cache.PromptCache._refresh_loop",
    "opik.message_processing.batching.flushing_thread.FlushingThread",
    "opik.message_processing.queue_consumer.QueueConsumer",
    "opik.message_processing.replay.replay_manager.ReplayManager",
    # optimizely-sdk 5.7.0
    "optimizely.config_manager.PollingConfigManager._run",
    "optimizely.event.event_processor.BatchEventProcessor._run",
    "optimizely.odp.odp_event_manager.OdpEventManager._run",
    # optuna 5.0.0
    "optuna.storages._heartbeat.HeartbeatThread._record_heartbeat",
    # oracledb 26.1.0
    "oracledb.plugins.aws_config_provider._listen_for_config_changes",
    "oracledb.plugins.gcp_config_provider._listen_for_config_changes",
    # oslo.messaging 18.3.1
    "oslo_messaging._drivers.amqpdriver.MessageOperationsHandler._process_in_background",
    "oslo_messaging._drivers.amqpdriver.ReplyWaiter.poll",
    "oslo_messaging._drivers.base.PollStyleListenerAdapter._runner",
    "oslo_messaging._drivers.impl_rabbit.Connection._heartbeat_thread_job",
    "oslo_messaging._metrics.client.MetricsCollectorClient.send_loop",
    # paho-mqtt 1.6.1, 2.2.0
    "paho.mqtt.client.Client._thread_main",
    "paho.mqtt.client.Client.loop_forever",
    # paramiko 5.1.0
    "paramiko.transport.Transport",
    # pebble 5.2.3
    "pebble.pool.process",
    "pebble.pool.thread",
    # pika 1.4.4
    "pika.adapters.blocking_connection.BlockingChannel.start_consuming",
    # PlexAPI 4.18.3
    "plexapi.alert.AlertListener",
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
    # prefect 3.9.1
    "prefect._internal.analytics.service.AnalyticsService._run",
    "prefect._internal.concurrency.threads",
    "prefect._internal.control_listener._reader_loop",
    # prometheus-client 0.26.0; its server is the standard library's
    "prometheus_client.bridge.graphite._RegularPush",
    # prompt-toolkit 3.0.53
    "prompt_toolkit.patch_stdout.StdoutProxy._write_thread",
    # psycopg-pool 3.1.9, 3.3.3
    "psycopg_pool.pool.ConnectionPool.worker",
    "psycopg_pool.sched.Scheduler",
    # py4j 0.10.9.9
    "py4j.clientserver",
    "py4j.java_gateway.CallbackConnection",
    "py4j.java_gateway.CallbackServer",
    # PyChromecast 14.0.10
    "pychromecast.discovery.HostBrowser",
    "pychromecast.socket_client.SocketClient",
    # pymilvus 3.0.2
    "pymilvus.client.global_topology.TopologyRefresher._refresh_loop",
    # pymongo 4.6.3, 4.20.0
    "pymongo.periodic_executor.PeriodicExecutor",
    # pyngrok 9.1.0
    "pyngrok.process.NgrokProcess._monitor_process",
    # Pyro5 5.17
    "Pyro5.nameserver.AutoCleaner",
    "Pyro5.svr_threads.Housekeeper",
    "Pyro5.svr_threads.Worker",
    # pyserial 3.5
    "serial.threaded.ReaderThread",
    # python-can 4.6.1
    "can.broadcastmanager.ThreadBasedCyclicSendTask._run",
    "can.io.sqlite.SqliteWriter._db_writer_thread",
    "can.notifier.Notifier._rx_thread",
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
    # pyudev 0.24.5
    "pyudev.monitor.MonitorObserver",
    # pyzmq 27.3.0
    "zmq.auth.thread.AuthenticationThread",
    "zmq.devices.basedevice.Device",
    "zmq.utils.garbage.GarbageCollectorThread",
    # raven 6.10.0
    "raven.transport.threaded.AsyncWorker._target",
    # ray 2.60.0
    "ray._private.gc_collect_manager.PythonGCThread",
    "ray._private.worker.listen_error_messages",
    "ray._private.worker.Worker.print_logs",
    "ray.serve._private.replica.UserCallableWrapper.__init__.<locals>._run_user_code_event_loop",
    "ray.serve._private.router.SingletonThreadRouter._get_singleton_asyncio_loop",
    "ray.util.client.dataclient.DataClient",
    "ray.util.client.logsclient.LogstreamClient",
    "ray.util.client.worker.Worker._release_server_worker",
    "ray.util.multiprocessing.pool.ResultThread",
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
    # rich 15.0.0
    "rich.live._RefreshThread",
    "rich.progress._TrackThread",
    # rudder-sdk-python 2.1.9
    "rudderstack.analytics.consumer.Consumer",
    # sagemaker-core 2.27.0
    "sagemaker.core.experiments._metrics._MetricQueue._run",
    # scout-apm 4.0.0
    "scout_apm.core.agent.socket.CoreAgentSocketThread",
    "scout_apm.core.error_service.ErrorServiceThread",
    "scout_apm.core.samplers.thread.SamplersThread",
    # segment-analytics-python 2.4.0
    "segment.analytics.consumer.Consumer",
    "segment.analytics.oauth_manager.OauthManager._poller_loop",
    # selenium 4.52.0
    "selenium.webdriver.remote.websocket_connection.WebSocketConnection._start_ws.<locals>.run_socket",
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
    # snowplow-tracker 1.1.0
    "snowplow_tracker.emitters.AsyncEmitter.consume",
    # soco 0.32.5
    "soco.events.EventServerThread",
    "soco.events.Subscription._auto_renew_start.<locals>.AutoRenewThread",
    # splitio-client 9.7.0, 10.7.0
    "splitio.client.factory.SplitFactory._update_status_when_ready",
    "splitio.events.events_task.EventsTask",
    "splitio.push",
    "splitio.sync.manager",
    "splitio.tasks",
    # sshtunnel 0.5.1
    "sshtunnel.SSHTunnelForwarder._serve_forever_wrapper",
    # stomp.py 9.0.0
    "stomp.listener.HeartbeatListener.__heartbeat_loop",
    "stomp.transport.BaseTransport.__io_loop",
    # tensorboard 2.21.0
    "tensorboard.summary.writer.event_file_writer._AsyncWriterThread",
    # tensorboardX 2.6.5
    "tensorboardX.event_file_writer._EventLoggerThread",
    # textual 8.2.8
    "textual._sleep.Sleeper",
    "textual.drivers._writer_thread.WriterThread",
    # tornado 6.1, 6.4.2, 6.6.1
    "tornado.platform.asyncio.AddThreadSelectorEventLoop",
    "tornado.platform.asyncio.BaseAsyncIOLoop.start",
    "tornado.platform.asyncio.SelectorThread",
    # tqdm 4.70.1
    "tqdm._monitor.TMonitor",
    # traceloop-sdk 0.62.4
    "traceloop.sdk.fetcher.thread_func",
    # trino 0.340.0
    "trino.client._RequestHeartbeat._run",
    # trio 0.24.0, 0.35.0
    "trio._core._thread_cache.WorkerThread",
    # trio-parallel 1.3.0
    "_trio_parallel_workers.worker_behavior",
    # tweepy 4.17.0
    "tweepy.streaming.BaseStream._connect",
    # twisted 22.10.0, 26.10.0
    "twisted._threads._threadworker.ThreadWorker",
    "twisted.internet._threadedselect.ThreadedSelectReactor",
    "twisted.internet.base.ReactorBase.run",
    "twisted.internet.base._SignalReactorMixin.run",
    # UnleashClient 6.9.1
    "UnleashClient._event_dispatcher._EventDispatcher._run",
    # uvicorn 0.54.0
    "uvicorn.main.run",
    "uvicorn.server.Server.run",
    "uvicorn.supervisors.multiprocess.Process",
    # uvloop 0.23.0
    "uvloop.loop.Loop.run_forever",
    # waitress 3.0.2
    "waitress.task.ThreadedTaskDispatcher",
    # wandb 0.31.0
    "wandb.agents.pyagent.Agent._heartbeat",
    "wandb.sdk.lib.redirect",
    "wandb.sdk.lib.service.service_finalizer.ServiceFinalizer._publish_queue",
    # watchdog 2.3.1, 4.0.2, 6.0.0, 7.1.0
    "watchdog.observers",
    "watchdog.utils.event_debouncer.EventDebouncer",
    "watchdog.utils.process_watcher.ProcessWatcher",
    # watchtower 3.4.0
    "watchtower.CloudWatchLogHandler._dequeue_batch",
    # weaviate-client 4.24.1
    "weaviate.connect.v4._ConnectionBase._create_background_token_refresh.<locals>.periodic_refresh_token",
    # websocket-client 1.9.2
    "websocket._app.WebSocketApp._send_ping",
    "websocket._app.WebSocketApp.run_forever",
    # websockets 12.0, 17.4: the threading implementation
    "websockets.sync.client.ClientConnection.recv_events",
    "websockets.sync.connection.Connection.keepalive",
    "websockets.sync.server.Server.serve_forever",
    "websockets.sync.server.ServerConnection.recv_events",
    "websockets.sync.server.WebSocketServer.serve_forever",
    "websockets.sync.server.serve",
    # werkzeug 3.1.9
    "werkzeug.serving.BaseWSGIServer.serve_forever",
    # yaspin 3.5.1
    "yaspin.core.Yaspin._spin",
    # ydb 3.33.2
    "ydb._sp_impl.SessionPoolImpl.events_loop",
    "ydb._topic_common.common._get_shared_event_loop.<locals>.start_event_loop",
    "ydb.pool.ConnectionPool._init_connection",
    "ydb.pool.Discovery",
    # zeroconf 0.154.0
    "zeroconf._core.Zeroconf._start_thread.<locals>._run_loop",
    "zeroconf._services.browser.ServiceBrowser",
)
