"""Infrastructure threads start clean: the matcher, the table, and the real threads it names.

The threads are the libraries' own, started inside a span with baggage. What they run in is looked
at from within: by a piece of work that the thread itself runs, or, where it runs nothing of ours,
by a profile function, which the interpreter calls in the new thread.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import functools
import importlib
import inspect
import json
import logging
import logging.handlers
import multiprocessing
import multiprocessing.dummy
import multiprocessing.pool
import os
import queue
import sched
import socket
import socketserver
import subprocess
import sys
import threading
import traceback
import types

import anyio
import anyio.from_thread
import anyio.to_thread
import pytest
from apscheduler.events import EVENT_JOB_SUBMITTED
from apscheduler.schedulers.background import BackgroundScheduler
from opentelemetry import baggage, trace
from opentelemetry import context as context_api
from opentelemetry._logs import LogRecord
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import MetricExporter, PeriodicExportingMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from watchdog.events import FileSystemEventHandler
from watchdog.observers import Observer

from otel_concurrency import ConcurrencyInstrumentor
from otel_concurrency._clean_starts.matching import callable_matcher, thread_matcher
from otel_concurrency._clean_starts.table import TABLE

TIMEOUT = 30
"""Seconds after which a test gives up waiting; nothing asserts a time."""

NOTHING = (0, None, None)
"""What :func:`_look` returns where no context is attached."""

_KEY = context_api.create_key("some other key")

FORK = pytest.mark.skipif(not hasattr(os, "fork"), reason="the platform has no fork")
FORKS_WITH_THREADS = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")


def _look(*_: object) -> tuple[int, object, object]:
    """Return the span, the baggage and the other key of the context that the caller runs in.

    The key that suppresses instrumentation is left out: exporters run under it by right.
    """
    span = trace.get_current_span().get_span_context()
    return span.span_id, baggage.get_baggage("tenant"), context_api.get_value(_KEY)


@contextlib.contextmanager
def _request(tracer):
    """Run the block as a request is run: in a span, with baggage, with another library's key."""
    with tracer.start_as_current_span("request") as span:
        context = baggage.set_baggage("tenant", "one")
        token = context_api.attach(context_api.set_value(_KEY, "other", context))
        try:
            yield (span.get_span_context().span_id, "one", "other")
        finally:
            context_api.detach(token)


class _Sight:
    """Where a thread leaves what it saw, and the test waits for it."""

    def __init__(self) -> None:
        self._seen: queue.SimpleQueue[tuple[object, threading.Thread]] = queue.SimpleQueue()

    def look(self, *_: object) -> None:
        self._seen.put((_look(), threading.current_thread()))

    def next(self) -> tuple[object, threading.Thread]:
        return self._seen.get(timeout=TIMEOUT)

    def from_another_thread(self) -> object:
        """Return what was seen first, after asserting that it was not seen by this thread."""
        seen, thread = self.next()
        assert thread is not threading.current_thread()
        return seen


@pytest.fixture
def sight():
    """Return where a thread leaves what it saw."""
    return _Sight()


@pytest.fixture
def instrument():
    """Switch the library on with settings of the test's own."""
    instrumentor = ConcurrencyInstrumentor()
    yield instrumentor.instrument
    if instrumentor.is_instrumented_by_opentelemetry:
        instrumentor.uninstrument()


@pytest.fixture
def instrumented(instrument):
    """Switch it on for each test anew: to switch it off lets go of what the test has got."""
    instrument()


@pytest.fixture
def bases():
    """Collect by function name what every thread started from now on calls its functions in.

    Only the first call of a name in a thread is kept, which for the function that a thread exists
    to run is the thread's own base context.
    """
    seen: dict[str, list[object]] = {}
    known = threading.local()

    def profile(frame: types.FrameType, event: str, _: object) -> None:
        if event != "call":
            return
        name = frame.f_code.co_name
        names = known.__dict__.setdefault("names", set())
        if name not in names:
            names.add(name)
            seen.setdefault(name, []).append(_look())

    threading.setprofile(profile)
    yield seen
    threading.setprofile(None)


def _in_forked_child(work) -> object:
    """Return what ``work()`` returns in a forked child; the child ends without clean-up."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(reader)
            try:
                answer = json.dumps(work())
            except BaseException:
                answer = json.dumps(traceback.format_exc())
            os.write(writer, answer.encode())
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        answer = json.loads(pipe.read())
    os.waitpid(pid, 0)
    return tuple(answer) if isinstance(answer, list) else answer


# --------------------------------------------------------------------------- the matcher


class Pump(threading.Thread):
    def run(self) -> None:
        """Do nothing."""


class HousePump(Pump):
    pass


class BothPump(threading.Thread, contextlib.ContextDecorator):
    pass


def pump() -> None:
    """Do nothing."""


def pump_once() -> None:
    """Do nothing."""


def make_pump():
    """Return a closure."""

    def inner() -> None:
        pass

    return inner


class Station:
    def pump(self) -> None:
        pass

    @classmethod
    def pump_class(cls) -> None:
        pass

    @staticmethod
    def pump_static() -> None:
        pass

    def __call__(self) -> None:
        pass


class BranchStation(Station):
    pass


def _thread(target) -> threading.Thread:
    return threading.Thread(target=target)


M = __name__


@pytest.mark.parametrize(
    ("entry", "thread", "matches"),
    [
        pytest.param(f"{M}.Pump", Pump(), True, id="class"),
        pytest.param(f"{M}.Pump", HousePump(), True, id="subclass"),
        pytest.param(f"{M}.HousePump", Pump(), False, id="superclass"),
        pytest.param(f"{M}.Pump", threading.Thread(), False, id="plain thread"),
        pytest.param("contextlib.ContextDecorator", BothPump(), True, id="second base"),
        pytest.param("threading.Thread", HousePump(), False, id="Thread itself names nobody"),
        pytest.param(f"{M}.pump", _thread(pump), True, id="function"),
        pytest.param(f"{M}.pump", _thread(pump_once), False, id="longer name"),
        pytest.param(f"{M}.pump*", _thread(pump_once), True, id="star"),
        pytest.param(f"{M}.pum*", Pump(), False, id="star is case-sensitive"),
        pytest.param(f"{M}.pum", _thread(pump), False, id="prefix within a name"),
        pytest.param(M, _thread(pump), True, id="module"),
        pytest.param(M[:-1], _thread(pump), False, id="prefix of a module's name"),
        pytest.param(f"{M[:-1]}*", _thread(pump), True, id="star on a module's name"),
        pytest.param(f"{M}.pump", _thread(functools.partial(pump)), True, id="partial"),
        pytest.param(
            f"{M}.Station.pump",
            _thread(functools.partial(functools.partial(Station().pump), 1)),
            True,
            id="partial of partial of method",
        ),
        pytest.param(f"{M}.Station.pump", _thread(Station().pump), True, id="method"),
        pytest.param(f"{M}.Station.pump", _thread(BranchStation().pump), True, id="inherited"),
        pytest.param(
            f"{M}.BranchStation", _thread(BranchStation().pump), False, id="by what defines it"
        ),
        pytest.param(
            f"{M}.Station.pump_class", _thread(Station.pump_class), True, id="classmethod"
        ),
        pytest.param(f"{M}.Station.pump_*", _thread(Station.pump_static), True, id="staticmethod"),
        pytest.param(f"{M}.Station", _thread(Station()), True, id="callable instance"),
        pytest.param(f"{M}.Station", _thread(Station().pump), True, id="below a class"),
        pytest.param(f"{M}.Station", _thread(BranchStation()), False, id="instance of a subclass"),
        pytest.param(f"{M}.make_pump.<locals>.inner", _thread(make_pump()), True, id="closure"),
        pytest.param(f"{M}.make_pump", _thread(make_pump()), True, id="below a function"),
        pytest.param(f"{M}.pump", threading.Timer(0, pump), True, id="timer"),
        pytest.param(f"{M}.pump", threading.Timer(0, pump_once), False, id="another timer"),
    ],
)
def test_an_entry_matches_a_thread_by_its_type_or_by_what_it_runs(entry, thread, matches):
    """An entry names a type or function of the thread, at a dot boundary or up to its star."""
    assert thread_matcher((entry,))(thread) is matches


@pytest.mark.parametrize(
    "work",
    [[].append, (1).__add__, str.join, len, threading.Lock().acquire, functools.partial(len), None],
    ids=lambda work: type(work).__name__,
)
def test_a_target_without_a_module_is_nobodys_infrastructure(work):
    """A builtin has no module or no name in some form; asking about it fails in none."""
    assert thread_matcher(("len", "append"))(_thread(work)) is False
    if work is not None:
        assert callable_matcher(("len", "append"))(work) is False


@pytest.mark.parametrize(
    ("work", "matches"),
    [
        pytest.param(pump, True, id="function"),
        pytest.param(functools.partial(pump, 1), True, id="partial"),
        pytest.param(BranchStation().pump, True, id="method"),
        pytest.param(Station(), True, id="callable instance"),
        pytest.param(pump_once, False, id="another"),
        pytest.param(concurrent.futures.thread._worker, False, id="in the table"),
    ],
)
def test_submitted_callables_are_matched_against_the_users_entries_alone(work, matches):
    """What is submitted is unwrapped as a target is; the table speaks of threads and not of it."""
    assert callable_matcher((f"{M}.pump", f"{M}.Station"))(work) is matches


def test_without_entries_no_callable_is_asked_about():
    """There is no predicate for callables where the user names none."""
    assert callable_matcher(()) is None


@pytest.mark.parametrize(
    "thread",
    [
        pytest.param(_thread(asyncio.run), id="asyncio.run"),
        pytest.param(_thread(asyncio.new_event_loop), id="asyncio"),
        pytest.param(
            _thread(asyncio.BaseEventLoop.run_until_complete), id="loop.run_until_complete"
        ),
        pytest.param(_thread(anyio.run), id="anyio.run"),
        pytest.param(_thread(sched.scheduler().run), id="scheduler.run"),
        pytest.param(_thread(subprocess.run), id="subprocess.run"),
        pytest.param(_thread(pump), id="function"),
        pytest.param(_thread(make_pump()), id="closure"),
        pytest.param(_thread(Station()), id="callable instance"),
        pytest.param(_thread(threading.Event().wait), id="event.wait"),
        pytest.param(_thread(queue.Queue().get), id="queue.get"),
        pytest.param(threading.Thread(), id="no target"),
        pytest.param(threading.Timer(0, pump), id="timer"),
        pytest.param(HousePump(), id="subclass"),
        pytest.param(multiprocessing.dummy.Process(target=pump), id="multiprocessing.dummy"),
    ],
)
def test_the_table_leaves_the_users_own_threads_alone(thread):
    """A thread for one call of the user's is not infrastructure, whoever wrote its class."""
    assert thread_matcher(())(thread) is False


# ----------------------------------------------------------------------------- the table

CONDITIONAL = {
    "asyncio.unix_events.ThreadedChildWatcher": (
        sys.platform != "win32" and sys.version_info < (3, 14)
    ),
    "asyncio.unix_events._ThreadedChildWatcher": (
        sys.platform != "win32" and sys.version_info >= (3, 14)
    ),
    "asyncio.windows_events.ProactorEventLoop.run_forever": (
        sys.platform == "win32" and sys.version_info < (3, 13)
    ),
    "pdb._PdbServer._start_signal_listener": sys.version_info >= (3, 14),
    "subprocess.Popen._readerthread": sys.platform == "win32",
    "subprocess.Popen._writerthread": sys.platform == "win32" and sys.version_info >= (3, 15),
}
"""Entries that only some platforms or versions of Python have, and whether this one does."""

HERE = {"opentelemetry", "anyio", "apscheduler", "rich", "watchdog"} | sys.stdlib_module_names
"""The top-level names of what is installed wherever these tests are run."""

ENTRIES = [
    entry for entry in TABLE if entry.partition(".")[0] in HERE and CONDITIONAL.get(entry, True)
]


def _resolve(entry: str) -> object:
    """Return the module, class, function or code object that ``entry`` names."""
    found, rest = None, entry.split(".")
    for taken in range(len(rest), 0, -1):
        try:
            found = importlib.import_module(".".join(rest[:taken]))
        except ModuleNotFoundError:
            continue
        rest = rest[taken:]
        break
    assert found is not None, f"no module of {entry} can be imported"
    for name in rest:
        found = _member(found, name)
    return found


def _member(owner, name: str) -> object:
    if name == "<locals>":
        return owner if isinstance(owner, types.CodeType) else inspect.unwrap(owner).__code__
    if isinstance(owner, types.CodeType):
        codes = [constant for constant in owner.co_consts if isinstance(constant, types.CodeType)]
        return next(code for code in codes if code.co_name == name)
    if name.endswith("*"):
        members = [member for member in vars(owner) if member.startswith(name[:-1])]
        assert members, f"{owner} has no {name}"
        return members
    return getattr(owner, name)


@pytest.mark.parametrize("entry", ENTRIES)
def test_every_entry_names_something_that_exists(entry):
    """An entry of the standard library or of a library that is installed here has not rotted."""
    assert _resolve(entry) is not None


@pytest.mark.parametrize("entry", sorted(CONDITIONAL))
def test_conditional_entries_are_in_the_table(entry):
    """The exceptions of the test above are about entries that there are."""
    assert entry in TABLE


def test_no_entry_is_covered_by_another():
    """The table has no duplicate, and no entry that another one already implies."""
    for entry in TABLE:
        others = [other for other in TABLE if other is not entry]
        covering = [
            other
            for other in others
            if f"{entry}.".startswith(other[:-1] if other.endswith("*") else f"{other}.")
        ]
        assert not covering, entry


def test_no_entry_names_a_whole_distribution_or_the_users_asyncio():
    """Entries are narrower than a top-level package, whose functions users run themselves."""
    assert all("." in entry for entry in TABLE)
    assert not any(entry.startswith("asyncio.*") for entry in TABLE)


# -------------------------------------------------------------------- OpenTelemetry's own


class _Exporter:
    """A span or log exporter that looks around where it is called."""

    def __init__(self, sight: _Sight) -> None:
        self.export = sight.look

    def shutdown(self) -> None:
        pass

    def force_flush(self, timeout_millis: int = 0) -> bool:
        return True


def _export_a_span(provider: TracerProvider) -> None:
    provider.get_tracer("exported").start_span("exported").end()


@pytest.fixture
def batching(sight, tracer, instrumented):
    """Return a tracer provider whose batch processor was made inside a request."""
    with _request(tracer):
        provider = TracerProvider()
        provider.add_span_processor(BatchSpanProcessor(_Exporter(sight), max_export_batch_size=1))
    yield provider
    provider.shutdown()


def test_batch_span_processor_exports_in_no_context(batching, tracer, sight):
    """The worker of a BatchSpanProcessor runs in no request's context, whoever made it."""
    with _request(tracer):
        _export_a_span(batching)

    assert sight.from_another_thread() == NOTHING


@FORK
@FORKS_WITH_THREADS
def test_batch_span_processor_exports_in_no_context_after_fork(batching, tracer, sight):
    """The worker that the SDK starts again in a child forked in a request is clean as well."""

    def export() -> object:
        _export_a_span(batching)
        return sight.from_another_thread()

    with _request(tracer):
        assert _in_forked_child(export) == NOTHING


def test_batch_log_record_processor_exports_in_no_context(tracer, sight, instrumented):
    """The worker of a BatchLogRecordProcessor runs in no request's context, whoever made it."""
    with _request(tracer):
        processor = BatchLogRecordProcessor(_Exporter(sight), max_export_batch_size=1)
        provider = LoggerProvider()
        provider.add_log_record_processor(processor)
        provider.get_logger("tests").emit(LogRecord(body="exported"))

    assert sight.from_another_thread() == NOTHING
    provider.shutdown()


class _MetricExporter(MetricExporter):
    def __init__(self, sight: _Sight) -> None:
        super().__init__()
        self._sight = sight

    def export(self, metrics_data, timeout_millis=0, **kwargs):
        self._sight.look()

    def force_flush(self, timeout_millis=0):
        return True

    def shutdown(self, timeout_millis=0, **kwargs):
        pass


@pytest.fixture
def periodic(sight, tracer, instrumented):
    """Return a meter provider whose periodic reader was made inside a request.

    Its interval never passes: shutting it down makes its thread collect and export once more.
    """
    with _request(tracer):
        reader = PeriodicExportingMetricReader(_MetricExporter(sight), 1e9)
        provider = MeterProvider(metric_readers=[reader], shutdown_on_exit=False)
        provider.get_meter("tests").create_counter("requests").add(1)
    return provider


def test_periodic_metric_reader_exports_in_no_context(periodic, tracer, sight):
    """The thread of a PeriodicExportingMetricReader runs in no request's context."""
    with _request(tracer):
        periodic.shutdown()

    assert sight.from_another_thread() == NOTHING


@FORK
@FORKS_WITH_THREADS
def test_periodic_metric_reader_exports_in_no_context_after_fork(periodic, tracer, sight):
    """The reader's thread that the SDK starts again in a child forked in a request is clean."""

    def export() -> object:
        periodic.shutdown()
        return sight.from_another_thread()

    with _request(tracer):
        assert _in_forked_child(export) == NOTHING
    periodic.shutdown()


# ------------------------------------------------------------------- the standard library


def test_a_plain_thread_does_have_its_starters_context(tracer, sight, instrumented):
    """The tests here would notice: a thread that no entry names runs in the request's context."""
    with _request(tracer) as request:
        thread = threading.Thread(target=sight.look)
        thread.start()
    thread.join(TIMEOUT)

    assert sight.from_another_thread() == request


def test_to_thread_keeps_its_callers_context(tracer, instrumented):
    """asyncio.to_thread is the caller's own work, though a pool's worker does it."""

    async def main() -> object:
        with _request(tracer) as request:
            assert await asyncio.to_thread(_look) == request
        return await asyncio.to_thread(_look)

    assert asyncio.run(main()) == NOTHING


def test_asyncio_run_in_a_thread_keeps_its_starters_context(tracer, sight, instrumented):
    """A thread that runs one coroutine for a request belongs to that request."""

    async def main() -> None:
        sight.look()

    with _request(tracer) as request:
        thread = threading.Thread(target=asyncio.run, args=(main(),))
        thread.start()
    thread.join(TIMEOUT)

    assert sight.from_another_thread() == request


def test_a_loop_that_runs_for_ever_in_a_thread_is_clean(tracer, bases, instrumented):
    """The thread of an event loop that runs for ever belongs to no request."""
    loop = asyncio.new_event_loop()
    with _request(tracer):
        thread = threading.Thread(target=loop.run_forever)
        thread.start()
    loop.call_soon_threadsafe(loop.stop)
    thread.join(TIMEOUT)
    loop.close()

    assert bases["run_forever"] == [NOTHING]


def test_a_pool_worker_is_clean_when_idle(tracer, sight, instrumented):
    """A worker started by a request's submit holds nothing of it, before its work and after."""
    with concurrent.futures.ThreadPoolExecutor(1, initializer=sight.look) as pool:
        with _request(tracer) as request:
            assert pool.submit(_look).result(TIMEOUT) == request
        assert pool.submit(_look).result(TIMEOUT) == NOTHING

    assert sight.from_another_thread() == NOTHING


def test_a_pool_worker_is_clean_when_only_threads_are_instrumented(tracer, instrument):
    """With futures off, work in a pool runs in no context rather than in its first submitter's."""
    instrument(threading="parent", futures="off")
    with _request(tracer), concurrent.futures.ThreadPoolExecutor(1) as pool:
        assert pool.submit(_look).result(TIMEOUT) == NOTHING


def test_a_process_pools_manager_is_clean(tracer, bases, instrumented):
    """The thread that manages a pool of processes belongs to no request."""
    spawn = multiprocessing.get_context("spawn")
    with _request(tracer), concurrent.futures.ProcessPoolExecutor(1, spawn) as pool:
        assert pool.submit(abs, -1).result(TIMEOUT) == 1

    assert bases["wait_result_broken_or_wakeup"] == [NOTHING]


def test_a_thread_pool_of_multiprocessing_is_clean(tracer, sight, bases, instrumented):
    """A ThreadPool's workers and the three threads that serve it belong to no request."""
    with _request(tracer), multiprocessing.pool.ThreadPool(1, initializer=sight.look) as pool:
        assert pool.apply(abs, (-1,)) == 1
        pool.close()
        pool.join()

    assert sight.from_another_thread() == NOTHING
    for name in ("worker", "_handle_workers", "_handle_tasks", "_handle_results"):
        assert bases[name] == [NOTHING], name


class _Pickled:
    """An item that looks around where it is pickled."""

    def __init__(self, sight: _Sight) -> None:
        self.sight = sight

    def __reduce__(self):
        self.sight.look()
        return str, ("unpickled",)


def test_the_feeder_of_a_multiprocessing_queue_is_clean(tracer, sight, bases, instrumented):
    """The thread that feeds a queue's pipe is started by the first put, and outlives it."""
    items = multiprocessing.get_context("spawn").Queue()
    with _request(tracer):
        items.put(_Pickled(sight))
    assert items.get(timeout=TIMEOUT) == "unpickled"
    items.close()
    items.join_thread()

    assert sight.from_another_thread() == NOTHING
    assert bases["_feed"] == [NOTHING]


class _Handler(logging.Handler):
    def __init__(self, sight: _Sight) -> None:
        super().__init__()
        self.emit = sight.look


def test_a_queue_listener_is_in_no_context(tracer, sight, bases, instrumented):
    """Records of every request are handled by one thread that belongs to none of them."""
    records: queue.Queue[object] = queue.Queue()
    listener = logging.handlers.QueueListener(records, _Handler(sight))
    with _request(tracer):
        listener.start()
    logging.handlers.QueueHandler(records).handle(logging.makeLogRecord({"msg": "handled"}))
    listener.stop()

    assert sight.from_another_thread() == NOTHING
    assert bases["_monitor"] == [NOTHING]


def _tcp_server(server_class: type, sight: _Sight):
    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            sight.look()

    return server_class(("127.0.0.1", 0), Handler)


def _call(server) -> None:
    with socket.create_connection(server.server_address, TIMEOUT) as client:
        client.recv(1)  # returns when the handler is done


def test_a_threading_servers_requests_run_in_no_context(tracer, sight, instrumented):
    """Requests do not belong to the span in which serve_forever was called."""
    with _tcp_server(socketserver.ThreadingTCPServer, sight) as server:

        def client() -> None:
            _call(server)
            server.shutdown()

        caller = threading.Thread(target=client)
        caller.start()
        with _request(tracer):
            server.serve_forever(poll_interval=0.01)
        caller.join(TIMEOUT)

    assert sight.from_another_thread() == NOTHING


def test_a_servers_accept_loop_is_clean(tracer, sight, instrumented):
    """A server that a request starts in a thread serves every other request in no context."""
    with _tcp_server(socketserver.TCPServer, sight) as server:
        with _request(tracer):
            thread = threading.Thread(target=server.serve_forever, args=(0.01,))
            thread.start()
        _call(server)
        server.shutdown()
        thread.join(TIMEOUT)

    assert sight.from_another_thread() == NOTHING


def test_infrastructure_is_clean_where_threads_inherit_context_by_themselves():
    """With -X thread_inherit_context CPython hands the context on; it is cleared again."""
    program = """if True:
        import logging, logging.handlers, queue
        from opentelemetry import baggage, context
        from otel_concurrency import ConcurrencyInstrumentor

        class Handler(logging.Handler):
            def emit(self, record):
                print(dict(context.get_current()))

        ConcurrencyInstrumentor().instrument()
        records = queue.Queue()
        listener = logging.handlers.QueueListener(records, Handler())
        token = context.attach(baggage.set_baggage("tenant", "one"))
        listener.start()
        context.detach(token)
        records.put(logging.makeLogRecord({}))
        listener.stop()
    """
    command = [sys.executable, "-X", "thread_inherit_context=1", "-c", program]
    assert subprocess.check_output(command, text=True, timeout=TIMEOUT) == "{}\n"


# --------------------------------------------------------------------------- other libraries


class _Watched:
    """Stands in for an anyio worker's queue and looks around whenever the worker waits on it."""

    def __init__(self, original, sight: _Sight) -> None:
        self._original = original
        self._sight = sight

    def get(self):
        self._sight.look()
        return self._original.get()

    def __getattr__(self, name: str):
        return getattr(self._original, name)


def test_anyios_worker_is_clean_between_calls(tracer, sight, bases, instrumented):
    """An idle worker of anyio's holds no request's context; each call natively has its caller's."""

    def work() -> tuple[object, threading.Thread]:
        worker = threading.current_thread()
        if not isinstance(worker.queue, _Watched):
            worker.queue = _Watched(worker.queue, sight)
        return _look(), worker

    async def main() -> None:
        workers = []
        for _ in range(2):
            with _request(tracer) as request:
                seen, worker = await anyio.to_thread.run_sync(work)
            assert seen == request
            workers.append(worker)
        assert workers[0] is workers[1]

    anyio.run(main)

    assert sight.from_another_thread() == NOTHING
    assert sight.from_another_thread() == NOTHING
    assert bases["run"] == [NOTHING]


def test_anyios_blocking_portal_is_clean(tracer, bases, instrumented):
    """A portal's event loop belongs to no request; each call natively has its caller's context."""
    start_portal = anyio.from_thread.start_blocking_portal
    with _request(tracer), start_portal() as portal, _request(tracer) as request:
        assert portal.call(_look) == request

    assert bases["run_blocking_portal"] == [NOTHING]


def test_apschedulers_thread_and_jobs_run_in_no_context(tracer, sight, instrument):
    """A scheduler that a request starts runs its jobs in no context, in whatever thread."""
    instrument(adapters="-apscheduler")  # which gives a job its adder's baggage, and a link
    submitted = _Sight()
    scheduler = BackgroundScheduler(timezone="UTC")
    scheduler.add_listener(submitted.look, EVENT_JOB_SUBMITTED)
    with _request(tracer):
        scheduler.start()
        scheduler.add_job(sight.look)

    seen, thread = submitted.next()
    assert (seen, thread) == (NOTHING, scheduler._thread)
    assert sight.from_another_thread() == NOTHING
    scheduler.shutdown()


def test_watchdogs_handlers_run_in_no_context(tracer, sight, bases, instrumented, tmp_path):
    """An observer that a request starts calls its handlers in no context."""

    class Handler(FileSystemEventHandler):
        def on_created(self, event) -> None:
            sight.look()

    observer = Observer()
    with _request(tracer):
        observer.schedule(Handler(), str(tmp_path))
        observer.start()
        tmp_path.joinpath("created").touch()

    assert sight.from_another_thread() == NOTHING
    observer.stop()
    observer.join(TIMEOUT)
    assert set(bases["run"]) == {NOTHING}  # emitters, buffers and the observer alike


# ---------------------------------------------------------------------------- the setting


class LookingPump(threading.Thread):
    def __init__(self, sight: _Sight) -> None:
        super().__init__()
        self._sight = sight

    def run(self) -> None:
        self._sight.look()


class DerivedPump(LookingPump):
    pass


def look_around(sight: _Sight) -> None:
    """Leave what is seen."""
    sight.look()


def test_threads_that_the_user_excludes_start_clean(tracer, sight, instrument):
    """`excluded` adds types and functions to the table, and touches no other thread."""
    instrument(threading="parent", excluded=f"{M}.LookingPump, {M}.look_around")

    def seen_by(thread: threading.Thread) -> object:
        thread.start()
        thread.join(TIMEOUT)
        return sight.from_another_thread()

    with _request(tracer) as request:
        assert seen_by(DerivedPump(sight)) == NOTHING
        assert seen_by(_thread(functools.partial(look_around, sight))) == NOTHING
        assert seen_by(_thread(sight.look)) == request


def test_exclusions_of_the_environment_count(tracer, sight, instrument, monkeypatch):
    """OTEL_PYTHON_CONCURRENCY_EXCLUDED does what the keyword does."""
    monkeypatch.setenv("OTEL_PYTHON_CONCURRENCY_EXCLUDED", f" {M}.look_aro* ,, other.name")
    instrument()

    with _request(tracer):
        thread = threading.Thread(target=look_around, args=(sight,))
        thread.start()
    thread.join(TIMEOUT)

    assert sight.from_another_thread() == NOTHING


def test_exclusions_leave_the_table_in_force(tracer, sight, instrument):
    """The user's entries are added to the table; they do not replace it."""
    instrument(excluded="some.other.name")
    records: queue.Queue[object] = queue.Queue()
    listener = logging.handlers.QueueListener(records, _Handler(sight))
    with _request(tracer):
        listener.start()
    records.put(logging.makeLogRecord({}))
    listener.stop()

    assert sight.from_another_thread() == NOTHING


class Desk:
    def look(self) -> object:
        return _look()

    def __call__(self) -> object:
        return _look()


def desk() -> object:
    """Return what is seen."""
    return _look()


def test_submitted_callables_that_the_user_excludes_run_clean(tracer, instrument):
    """`excluded` names submitted callables as it names targets: unwrapped, at a dot boundary."""
    instrument(excluded=f"{M}.Desk.look,{M}.desk")
    with concurrent.futures.ThreadPoolExecutor(1) as pool, _request(tracer) as request:

        def seen_by(work) -> object:
            return pool.submit(work).result(TIMEOUT)

        assert seen_by(desk) == NOTHING
        assert seen_by(functools.partial(desk)) == NOTHING
        assert seen_by(Desk().look) == NOTHING
        assert seen_by(Desk()) == request
        assert seen_by(_look) == request
