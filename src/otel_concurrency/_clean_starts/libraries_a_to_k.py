"""The threads and processes of libraries, A to K by name; see ``table`` for what belongs here."""

from __future__ import annotations

from typing import Final

ENTRIES: Final[tuple[str, ...]] = (
    # aiosqlite 0.20.0 (the class), 0.22.1 (the function)
    "aiosqlite.core.Connection",
    "aiosqlite.core._connection_worker_thread",
    # alive-progress 3.3.0
    "alive_progress.core.progress.__alive_bar.<locals>.run",
    # amplitude-analytics 1.3.0
    "amplitude.worker.Workers.buffer_consumer",
    # analytics-python 1.4.post1
    "analytics.consumer.Consumer",
    # anyio 3.7.1, 4.4.0 (the worker), 4.9.0, 4.16.0
    "anyio._backends._asyncio.WorkerThread",
    "anyio._core._asyncio_selector_thread.Selector",
    "anyio.from_thread.start_blocking_portal.<locals>.run_blocking_portal",
    # applicationinsights 0.11.10
    "applicationinsights.channel.AsynchronousSender.AsynchronousSender._run",
    # APScheduler 3.10.4, 3.11.3
    "apscheduler.schedulers.blocking.BlockingScheduler",
    # asyncua 2.1.0
    "asyncua.sync.ThreadLoop",
    # aws-xray-sdk 2.15.0
    "aws_xray_sdk.core.sampling.rule_poller.RulePoller._worker",
    "aws_xray_sdk.core.sampling.target_poller.TargetPoller._worker",
    # azure-eventhub 5.15.1
    "azure.eventhub._eventprocessor.event_processor.EventProcessor",
    "azure.eventhub._pyamqp.client.AMQPClient._keep_alive",
    # azure-monitor-opentelemetry-exporter 1.0.0b58
    "azure.monitor.opentelemetry.exporter",
    # azure-servicebus 7.15.0
    "azure.servicebus._pyamqp.client.AMQPClient._keep_alive",
    # billiard 4.2.1, 4.3.2: the threads and the workers of its pools
    "billiard.managers.Server",
    "billiard.pool",
    "billiard.resource_sharer._ResourceSharer",
    # braintrust 0.48.1
    "braintrust.logger._HTTPBackgroundLogger._publisher",
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
    # composio 0.30.0
    "composio.core.models._telemetry._thread_loop",
    # couchbase 4.6.3
    "couchbase.logic.observability.logging_meter.LoggingMeterReporter",
    "couchbase.logic.observability.threshold_logging.ThresholdLoggingReporter",
    # crewai 1.15.30
    "crewai.events.event_bus.CrewAIEventsBus._run_loop",
    # databricks-sql-connector 4.9.0
    "databricks.sql.telemetry.telemetry_client.TelemetryClientFactory._flush_worker",
    # datadog 0.49.1, 0.56.0
    "datadog.dogstatsd.base.DogStatsd._sender_main_loop",
    "datadog.dogstatsd.base.DogStatsd._start_flush_thread",
    "datadog.threadstats.periodic_timer.PeriodicTimer",
    # daytona 0.226.1
    "daytona.internal.event_subscription_manager.SyncEventSubscriptionManager._expiry_loop",
    # ddtrace 4.16.0; its periodic threads are native and never pass through threading.Thread
    "ddtrace.vendor.dogstatsd.base.DogStatsd._sender_main_loop",
    "ddtrace.vendor.dogstatsd.base.DogStatsd._start_flush_thread",
    # debugpy 1.8.22
    "_pydevd_bundle.pydevd_daemon_thread.PyDBDaemonThread",
    # discord.py 2.7.1
    "discord.gateway.KeepAliveHandler",
    "discord.voice_state.SocketReader",
    # distributed 2026.8.0
    "distributed._concurrent_futures_thread._worker",
    "distributed.process.AsyncProcess",
    "distributed.profile._watch",
    "distributed.threadpoolexecutor._worker",
    "distributed.utils.LoopRunner",
    # dlt 1.31.0
    "dlt.common.storages.transactional_file.Heartbeat",
    "dlt.extract.concurrency.FuturesPool._ensure_async_pool.<locals>.start_background_loop",
    # dramatiq 1.17.1 (underscored workers), 2.2.1
    "dramatiq.asyncio.EventLoopThread",
    "dramatiq.middleware.time_limit._CtypesTimeoutManager",
    "dramatiq.worker.ConsumerThread",
    "dramatiq.worker.WorkerThread",
    "dramatiq.worker._ConsumerThread",
    "dramatiq.worker._WorkerThread",
    # dspy 3.4.1
    "dspy.utils.unbatchify.Unbatchify._worker",
    # elastic-apm 6.19.0, 6.26.2
    "elasticapm.transport",
    "elasticapm.utils.threading.IntervalTimer",
    # etcd3 0.12.0
    "etcd3.watch.Watcher",
    # eventlet 0.38.0, 0.41.3: its native threads, and the green one that gets their results
    "eventlet.tpool",
    # eventsourcing 9.5.6
    "eventsourcing.persistence.ListenNotifySubscription._loop_on_pull",
    "eventsourcing.system.ConvertingThread",
    "eventsourcing.system.MultiThreadedRunnerThread",
    "eventsourcing.system.ProcessingThread",
    "eventsourcing.system.PullingThread",
    # filelock 4.3.1
    "filelock._soft._read_write._heartbeat.HeartbeatThread",
    # flagsmith 6.3.0
    "flagsmith.polling_manager.EnvironmentDataPollingManager",
    "flagsmith.streaming_manager.EventStreamManager",
    # flower 2.2.0
    "flower.events.Events",
    # fluent-logger 0.11.1
    "fluent.asyncsender.FluentSender._send_loop",
    # futurist 3.5.0
    "futurist._futures.DelayedExecutorMixinBase._schedule",
    "futurist._thread.ThreadWorker",
    # gcsfs 2026.10.1
    "gcsfs.core._deferred_close_worker",
    # genai-prices 0.2.3
    "genai_prices.update_prices._SharedUpdater._run",
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
    # google-cloud-spanner 3.71.0
    "google.cloud.spanner_v1.database_sessions_manager.DatabaseSessionsManager._maintain_multiplexed_session",
    # gql 4.4.0
    "gql.client.SyncClientSession._batch_loop",
    # gradio-client 2.7.2
    "gradio_client.client.Client._stream_heartbeat",
    # growthbook 4.0.0
    "growthbook.growthbook.FeatureRepository._background_refresh_worker",
    # grpcio 1.85.1; a client's threads run in a copy of their creator's contextvars in any case
    "grpc._server._serve",
    "grpc._simple_stubs.ChannelCache",
    # gunicorn 21.2.0, 27.0.1
    "gunicorn.ctl.server.ControlSocketServer",
    "gunicorn.reloader",
    # hazelcast-python-client 5.7.0
    "hazelcast.reactor._AbstractLoop._loop",
    # honeybadger 1.3.0
    "honeybadger.events_worker.EventsWorker._run",
    # huey 2.5.2, 3.5.4
    "huey.consumer.Consumer",
    "huey.contrib.stats.HueyStats._writer_loop",
    # huggingface-hub 2.4.0
    "huggingface_hub._commit_scheduler.CommitScheduler._run_scheduler",
    "huggingface_hub.utils._telemetry._telemetry_worker",
    # ipykernel 6.29.5, 7.4.0
    "ipykernel.control.ControlThread",
    "ipykernel.heartbeat.Heartbeat",
    "ipykernel.iostream.IOPubThread",
    "ipykernel.iostream.OutStream._watch_pipe_fd",
    "ipykernel.parentpoller",
    "ipykernel.thread.BaseThread",
    # ipyparallel 9.2.0
    "ipyparallel.client.client.Client._io_main",
    # ipython 9.18.1
    "IPython.core.history.HistorySavingThread",
    # joblib 1.6.0
    "joblib.externals.loky.backend.queues.Queue._feed",
    "joblib.externals.loky.process_executor._ExecutorManagerThread",
    "joblib.externals.loky.process_executor._process_worker",
    # jupyter-client 8.10.0
    "jupyter_client.channels.HBChannel",
    "jupyter_client.threaded.IOLoopThread",
    # jupyter-server 2.21.1
    "jupyter_server.gateway.managers.GatewayKernelClient._route_responses",
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
    # kubernetes 37.0.2
    "kubernetes.informer.informer.SharedInformer._run_loop",
)
