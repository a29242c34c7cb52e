"""The private names of CPython, OpenTelemetry and wrapt that the library relies on.

Look here when a new version renames or removes one of them: each name is listed with the modules
that depend on it. Nothing reads the list at run time. A test, ``test_private_names.py``, compares
it with the code and with the installed versions.

The list leaves out names that are documented despite their spelling (``os._exit``,
``sys._getframe``, the module ``_thread``), names of third-party libraries, what the adapters use,
and the tables of ``_clean_starts``, which are lists of names themselves.
"""

from __future__ import annotations

from collections.abc import Mapping

from otel_concurrency._core.private_name import PrivateName
from otel_concurrency._core.private_names_of_asyncio import ASYNCIO

_CONCURRENT_FUTURES: Mapping[str, PrivateName] = {
    "concurrent.interpreters.Interpreter._call": PrivateName(
        "_primitives._multiprocessing._interpreter_calls",
        "a layer: a call in another interpreter",
        since=(3, 14),
    ),
    "concurrent.interpreters._queues": PrivateName(
        "_primitives _primitives._multiprocessing._interpreter_calls",
        "the module of the queues between interpreters",
        since=(3, 14),
    ),
    "_interpreters": PrivateName(
        "_primitives._multiprocessing._interpreter_calls",
        "the error for what cannot be shared",
        since=(3, 14),
    ),
    "concurrent.futures._base": PrivateName(
        "_linking.flows _observer.call_hooks _primitives _primitives._futures "
        "_primitives._futures_map",
        "the module that defines `Executor` and `Future`",
    ),
    "concurrent.futures._base.Future._invoke_callbacks": PrivateName(
        "_linking.flows _primitives._futures",
        "its variable holds the call of a callback that it is calling",
    ),
    "concurrent.futures._base.Future._result": PrivateName(
        "_primitives._futures", "where the context waits until there is a result"
    ),
    "concurrent.futures.process._CallItem": PrivateName(
        "_primitives._multiprocessing._executors", "a layer: headers go beside the call"
    ),
    "concurrent.futures.process._ExecutorManagerThread": PrivateName(
        "_primitives._multiprocessing._executors", "a layer of its `run`"
    ),
    "concurrent.futures.process.ProcessPoolExecutor._executor_manager_thread": PrivateName(
        "_primitives._multiprocessing._executors",
        "ending workers so that they export their spans",
        since=(3, 14),
    ),
    "concurrent.futures.process._WorkItem": PrivateName(
        "_primitives._multiprocessing._executors", "a layer: the context is captured"
    ),
    "concurrent.futures.process._process_chunk": PrivateName(
        "_observer.process_hooks _primitives._multiprocessing._executors",
        "recognising a chunk of `Executor.map`",
    ),
    "concurrent.futures.process._process_worker": PrivateName(
        "_linking.root_places _primitives._multiprocessing._executors",
        "a layer: what a worker process runs",
    ),
    "concurrent.futures.process.ProcessPoolExecutor._processes": PrivateName(
        "_primitives._multiprocessing._executors",
        "terminating the workers that do not end",
        since=(3, 14),
    ),
    "concurrent.futures.thread.ThreadPoolExecutor._adjust_thread_count": PrivateName(
        "_primitives._futures", "a layer: a worker thread is started"
    ),
    "concurrent.futures.thread._WorkItem": PrivateName(
        "_orphans _primitives._futures",
        "a subclass in its place captures and attaches the context; a layer of its `__init__`",
    ),
    "concurrent.futures.thread._base": PrivateName(
        "_primitives._futures", "the `Future` that the pool uses"
    ),
    "concurrent.futures.thread._worker": PrivateName(
        "_primitives._futures", "a layer: what a worker thread runs"
    ),
}

_MULTIPROCESSING: Mapping[str, PrivateName] = {
    "multiprocessing.connection.Connection._send_bytes": PrivateName(
        "_primitives._multiprocessing._managers", "sending a request with headers behind it"
    ),
    "multiprocessing.managers.BaseProxy._callmethod": PrivateName(
        "_primitives._multiprocessing._managers", "a layer: a method of a manager's object"
    ),
    "multiprocessing.managers.BaseProxy._connect": PrivateName(
        "_primitives._multiprocessing._managers", "the connection before the first request"
    ),
    "multiprocessing.managers.BaseProxy._tls": PrivateName(
        "_primitives._multiprocessing._managers", "the connection of this thread"
    ),
    "multiprocessing.managers.IteratorProxy._exposed_": PrivateName(
        "_primitives._multiprocessing._managers", "which methods a proxy forwards"
    ),
    "multiprocessing.connection._ConnectionBase": PrivateName(
        "_primitives._multiprocessing._pools", "whether tasks are sent by a plain pipe"
    ),
    "multiprocessing.connection._ForkingPickler": PrivateName(
        "_primitives._multiprocessing._pools", "pickling a task, to put headers behind it"
    ),
    "multiprocessing.pool.ApplyResult._callback": PrivateName(
        "_primitives._multiprocessing._pools", "letting go of a context when the result is there"
    ),
    "multiprocessing.pool.ApplyResult._error_callback": PrivateName(
        "_primitives._multiprocessing._pools", "letting go of a context when the result is there"
    ),
    "multiprocessing.pool.ApplyResult._event": PrivateName(
        "_primitives._multiprocessing._pools", "whether the result is there"
    ),
    "multiprocessing.pool.ApplyResult._set": PrivateName(
        "_primitives._multiprocessing._pools", "a layer: the result arrives; `MapResult`'s also"
    ),
    "multiprocessing.pool.Pool._guarded_task_generation": PrivateName(
        "_primitives._multiprocessing._pools", "a layer: `imap` takes its next item"
    ),
    "multiprocessing.pool.Pool._handle_tasks": PrivateName(
        "_primitives._multiprocessing._pools", "a layer: tasks are sent to the workers"
    ),
    "multiprocessing.pool.Pool._map_async": PrivateName(
        "_observer.process_hooks _primitives._multiprocessing._pools", "a layer: `map` and its kin"
    ),
    "multiprocessing.pool.Pool._state": PrivateName(
        "_primitives._multiprocessing._pools", "`Pool` sets it on its worker handler's thread too"
    ),
    "multiprocessing.pool.Pool._terminate_pool": PrivateName(
        "_primitives._multiprocessing._pools", "a layer: workers export before they are terminated"
    ),
    "multiprocessing.process.BaseProcess._bootstrap": PrivateName(
        "_child _linking.root_places _core.frames _observer.process_hooks "
        "_primitives._multiprocessing._process",
        "a layer: what a child process runs first",
    ),
    "multiprocessing.process.BaseProcess._target": PrivateName(
        "_clean_starts.matching _observer.flows _primitives._multiprocessing._process",
        "the function that the process is to run",
    ),
    "multiprocessing.queues.Queue._buffer": PrivateName(
        "_primitives._multiprocessing._queues", "a buffer in its place keeps the contexts"
    ),
    "multiprocessing.queues.SimpleQueue._reader": PrivateName(
        "_primitives._multiprocessing._queues", "whether there is an item, without a selector"
    ),
    "multiprocessing.queues.Queue._start_thread": PrivateName(
        "_primitives._multiprocessing._queues", "a layer: the last moment to replace the buffer"
    ),
    "multiprocessing.queues._ForkingPickler": PrivateName(
        "_primitives._multiprocessing._queues", "a layer: headers go behind the pickled item"
    ),
    "multiprocessing.queues._sentinel": PrivateName(
        "_primitives._multiprocessing._queues", "the item that ends the queue's thread"
    ),
    "multiprocessing.util._finalizer_registry": PrivateName(
        "_child_exit.flush", "whether more of the program runs before the child ends"
    ),
}

_THREADING: Mapping[str, PrivateName] = {
    "_thread.LockType._at_fork_reinit": PrivateName(
        "_child_exit.after_fork", "making a lock new that a thread held at the fork"
    ),
    "threading.Thread._bootstrap_inner": PrivateName(
        "_linking.root_places _primitives._threading",
        "a layer: the context is attached around all of the thread",
    ),
    "threading.Thread._context": PrivateName(
        "_primitives._threading", "the contextvars.Context that `run` is called in", since=(3, 14)
    ),
    "threading.Thread._initialized": PrivateName(
        "_observer.call_hooks _primitives._threading", "whether `start` is about to raise"
    ),
    "threading.Thread._target": PrivateName(
        "_clean_starts.matching _observer.flows", "the function that the thread is to run"
    ),
    "threading._DummyThread": PrivateName(
        "_observer.suspicions", "whether Python code started the thread"
    ),
    "threading._active": PrivateName(
        "_linking.root_places _observer.flows _observer.suspicions",
        "the present thread's object, without making one for it",
    ),
    "threading._shutdown": PrivateName(
        "_child_exit.flush", "noticing the end of a child's work before its threads are joined"
    ),
}

_OTHER_MODULES: Mapping[str, PrivateName] = {
    "_signal": PrivateName(
        "_primitives._signal", "the functions below those of `signal`, which no library patches"
    ),
    "atexit._ncallbacks": PrivateName(
        "_child_exit.flush", "whether exit handlers of the program are still to run"
    ),
    "importlib.machinery.ModuleSpec._initializing": PrivateName(
        "_child _core.imports _observer.observer", "whether a module is still being imported"
    ),
    "importlib.util._LazyModule": PrivateName(
        "_core.imports", "leaving a lazy module alone, which any access would load"
    ),
    "logging.handlers.QueueListener._monitor": PrivateName(
        "_primitives._logging", "a layer: the loop of the listener's thread"
    ),
    "queue.Queue._get": PrivateName(
        "_items.pairing _items.queue_hooks _items.reordered _primitives._queue", "a hook: got"
    ),
    "queue.Queue._put": PrivateName(
        "_items.pairing _items.queue_hooks _items.relays _items.reordered _primitives._queue",
        "a hook: an item is added",
    ),
    "queue.Queue._qsize": PrivateName("_items.reordered _primitives._queue", "a hook: it waits"),
    "sched.scheduler._lock": PrivateName("_primitives._sched", "finding what `cancel` removes"),
    "sched.scheduler._queue": PrivateName("_primitives._sched", "finding what `cancel` removes"),
    "subprocess.Popen._execute_child": PrivateName(
        "_primitives._subprocess", "a layer: headers go to the child's environment"
    ),
}

_LOGS_WAIT = PrivateName("_child_exit.after_fork", "whether log records wait")
_BATCHES_WAIT = PrivateName(*_LOGS_WAIT[:2], since_sdk=(1, 34))
_MEASURED = PrivateName(
    "_child_exit.after_fork", "forgetting in a forked child what its parent measured"
)

_OPENTELEMETRY: Mapping[str, PrivateName] = {
    "opentelemetry._logs": PrivateName("_child_exit.providers", "the global provider of loggers"),
    "opentelemetry.context._RUNTIME_CONTEXT": PrivateName(
        "_child _core.handoff _primitives._generators",
        "reading and attaching the context without the API's overhead",
    ),
    "opentelemetry.context.contextvars_context.ContextVarsRuntimeContext._current_context": (
        PrivateName(
            "_child _core.handoff _primitives._generators",
            "reading and attaching the context without the API's overhead",
        )
    ),
    "opentelemetry.instrumentation.auto_instrumentation._load": PrivateName(
        "_observer.start", "the name of its logger, for a warning that does not apply"
    ),
    "opentelemetry.instrumentation.instrumentor.BaseInstrumentor._instrument": PrivateName(
        "_observer.start", "keeping the library off in a program that is only observed"
    ),
    "opentelemetry.instrumentation.instrumentor.BaseInstrumentor._uninstrument": PrivateName(
        "_observer.start", "keeping the library off in a program that is only observed"
    ),
    "opentelemetry.instrumentation.threading.ThreadingInstrumentor._instrument_thread": PrivateName(
        "_official_threading", "layers: it has nothing to do while this library is on"
    ),
    "opentelemetry.instrumentation.threading.ThreadingInstrumentor._otel_context": PrivateName(
        "_primitives._threading", "the context that it keeps in a thread, and would attach"
    ),
    "opentelemetry.instrumentation.threading.ThreadingInstrumentor._uninstrument_thread": (
        PrivateName("_official_threading", "layers: it has nothing to undo while it is set aside")
    ),
    "opentelemetry.propagators.composite.CompositePropagator._propagators": PrivateName(
        "_crossing.carrier", "whether only W3C trace context and baggage are propagated"
    ),
    "opentelemetry.sdk._logs": PrivateName("_child_exit.providers", "the provider to be flushed"),
    "opentelemetry.sdk._logs.LoggerProvider._multi_log_record_processor": _LOGS_WAIT,
    "opentelemetry.sdk._logs._internal.SynchronousMultiLogRecordProcessor._log_record_processors": (
        _LOGS_WAIT
    ),
    "opentelemetry.sdk._logs.export.BatchLogRecordProcessor._batch_processor": _BATCHES_WAIT,
    "opentelemetry.sdk._shared_internal.BatchProcessor._queue": _BATCHES_WAIT,
    "opentelemetry.sdk._shared_internal.BatchProcessor._export_lock": _BATCHES_WAIT,
    "opentelemetry.sdk.metrics.MeterProvider._measurement_consumer": _MEASURED,
    (
        "opentelemetry.sdk.metrics._internal.measurement_consumer."
        "SynchronousMeasurementConsumer._reader_storages"
    ): _MEASURED,
    (
        "opentelemetry.sdk.metrics._internal.metric_reader_storage."
        "MetricReaderStorage._instrument_view_instrument_matches"
    ): _MEASURED,
    "opentelemetry.sdk.metrics._internal.metric_reader_storage.MetricReaderStorage._lock": (
        PrivateName("_child_exit.after_fork", "making the lock new, which may be held at the fork")
    ),
    "opentelemetry.sdk.trace.ReadableSpan._context": PrivateName(
        "_linking.span_start", "which span it is, at less cost than the method"
    ),
    "opentelemetry.sdk.trace.Span._end_time": PrivateName(
        "_items.adoption _linking.origins _linking.span_start",
        "whether a span has ended, at less cost than the property",
    ),
    "opentelemetry.sdk.trace.export.BatchSpanProcessor._batch_processor": PrivateName(
        "_observer.export_hooks",
        "the part that keeps the spans, in later versions of the SDK",
        since_sdk=(1, 34),
    ),
    "opentelemetry.trace._TRACER_PROVIDER": PrivateName(
        "_linking.origins _observer.lent _observer.provider _status.snapshot",
        "the global provider, without having one loaded",
    ),
    "opentelemetry.trace._TRACER_PROVIDER_SET_ONCE": PrivateName(
        "_observer.provider", "giving way to the provider that the program sets"
    ),
    "opentelemetry.trace.propagation._SPAN_KEY": PrivateName(
        "_clean_starts.wrappers _crossing.carrier _items.adoption _items.loans _linking.flows "
        "_linking.origins "
        "_linking.span_start _observer.context_hooks _observer.flows _observer.span_hooks "
        "_observer.suspicions",
        "the span in a context, without making one for a context that has none",
    ),
    "opentelemetry.util._once": PrivateName(
        "_observer.provider", "the class of `_TRACER_PROVIDER_SET_ONCE`"
    ),
    "wrapt.FunctionWrapper._self_wrapper": PrivateName(
        "_official_threading _status.snapshot", "whose wrapper it is; wrapping again in its place"
    ),
}

PRIVATE_NAMES: Mapping[str, PrivateName] = {
    **ASYNCIO,
    **_CONCURRENT_FUTURES,
    **_MULTIPROCESSING,
    **_THREADING,
    **_OTHER_MODULES,
    **_OPENTELEMETRY,
}
"""By full name: the module, a class in it if there is one, and the private name."""
