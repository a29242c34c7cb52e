"""What a child process has recorded is exported before it ends, and no exporter keeps it from that.

The programs are real, and so are their children; they are in ``apps``.
"""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec

import pytest
from opentelemetry._logs import LogRecord
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk import _logs
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor

from otel_concurrency._child_exit import after_fork
from otlp_receiver import Receiver
from programs import APPS

DEADLINE = 100
LONG = "60000"
"""A time-out that no test waits for."""

start_methods = pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])


def run(program, *arguments):
    """Run a program of ``apps``; return the lines that it printed, and what it said on stderr."""
    finished = subprocess.run(
        [sys.executable, str(APPS / program), *arguments],
        capture_output=True,
        timeout=DEADLINE,
        text=True,
    )
    assert finished.returncode == 0, finished.stderr
    return finished.stdout.split(), finished.stderr


def run_code(program, *arguments, **settings):
    """Run some code; return what it printed, and what it said on stderr."""
    finished = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        env={**os.environ, **settings},
        capture_output=True,
        timeout=DEADLINE,
        text=True,
    )
    assert finished.returncode == 0, finished.stderr
    return finished.stdout, finished.stderr


# --- the end of a child ---


@start_methods
@pytest.mark.parametrize(
    ("task", "exit_code"), [("returns", "0"), ("leaves_late", "0"), ("exits", "3"), ("raises", "1")]
)
def test_child_exports_its_spans_before_it_ends(method, task, exit_code):
    """However a child ends, its spans are exported, and its exit code is its own."""
    printed, said = run("children.py", "write", LONG, method, task)
    assert printed == ["work", exit_code]
    assert ("the user's" in said) == (task == "raises")


@start_methods
@pytest.mark.parametrize(("task", "exit_code"), [("returns", "0"), ("exits", "3")])
def test_child_ends_though_its_exporter_never_returns(method, task, exit_code):
    """When the time is up the child ends, with the exit code that is its own."""
    printed, said = run("children.py", "hang", "300", method, task)
    assert printed == [exit_code]
    assert said.replace("Timeout was exceeded in force_flush().\n", "") == ""  # the SDK's, to 1.32


def test_child_that_waits_for_its_exporter_can_be_interrupted():
    """A signal ends the wait: the child was leaving anyway."""
    printed, _ = run("children.py", "hang", LONG, "fork", "is_interrupted")
    assert printed == ["0"]


@start_methods
def test_child_ends_though_its_provider_fails(method):
    """A provider that raises is reported, once, and the child ends as it would have."""
    printed, said = run("children.py", "fail", LONG, method, "returns")
    assert printed == ["0"]
    assert (
        said.count("Telemetry of a child process may not have been exported: ValueError: no use")
        == 1
    )


def test_nothing_is_flushed_in_no_time():
    """With a time-out of 0 a forked child leaves as it did without us."""
    assert run("children.py", "write", "0", "fork", "returns") == (["0"], "")


def test_nothing_is_done_where_the_sdk_is_not_in_use():
    """A child that has recorded nothing imports nothing for it, and starts no thread."""
    program = """
import sys, threading
threading.Thread.start = lambda thread: sys.exit("started")
from opentelemetry import _logs, metrics, trace
from otel_concurrency._child_exit import flush
flush.timeout = 5000
flush.at_start_of_child()
departure = flush.Departure(lambda: True)
threading._shutdown()
departure.end()
print([name for name in sys.modules if name.startswith("opentelemetry.sdk")])
"""
    assert run_code(program, OTEL_PYTHON_TRACER_PROVIDER="sdk_tracer_provider") == ("[]\n", "")


KEEPS = """
import multiprocessing, os, sys, time
from opentelemetry import trace
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from otel_concurrency import ConcurrencyInstrumentor

class Keeps(SpanProcessor):
    spans = []

    def on_end(self, span):
        self.spans.append(span.name)

    def force_flush(self, timeout_millis=None):
        os.write(1, "".join(f"{name}\\n" for name in self.spans).encode())
        if sys.argv[1] == "locked":
            time.sleep(3600)
        self.spans.clear()
        return True

def without_a_span():
    pass

provider = TracerProvider(shutdown_on_exit=False)
provider.add_span_processor(Keeps())
trace.set_tracer_provider(provider)
ConcurrencyInstrumentor().instrument(flush_timeout=60_000)
trace.get_tracer("tests").start_span("parents").end()
fork = multiprocessing.get_context("fork")
child = fork.Process(target=without_a_span)
child.start()
child.join(20)
print(child.exitcode)
with fork.Pool(1) as pool:
    pool.apply(without_a_span)
"""


@pytest.mark.parametrize("state", ["free", "locked"])
def test_a_child_without_a_span_flushes_none(state):
    """What its processor has copied of its parent's is not exported again, nor waited for."""
    assert run_code(KEEPS, state) == ("0\n", "")


ASKED = """
import multiprocessing, os, sys
from opentelemetry._logs import LogRecord
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs import export as logs_export
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import ConsoleMetricExporter, PeriodicExportingMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter
from otel_concurrency import ConcurrencyInstrumentor

def asked(kind):
    flush = kind.force_flush

    def force_flush(self, *args, **kwargs):
        os.write(1, f"{kind.__name__}\\n".encode())
        return flush(self, *args, **kwargs)

    kind.force_flush = force_flush

for kind in (TracerProvider, MeterProvider, LoggerProvider):
    asked(kind)

null = open(os.devnull, "w")
ConcurrencyInstrumentor().instrument()
spans = TracerProvider(shutdown_on_exit=False)
spans.add_span_processor(BatchSpanProcessor(ConsoleSpanExporter(out=null)))
reader = PeriodicExportingMetricReader(ConsoleMetricExporter(out=null), 3_600_000)
meters = MeterProvider([reader], shutdown_on_exit=False)
counter = meters.get_meter("tests").create_counter("count")
logs = LoggerProvider(shutdown_on_exit=False)
# Its name before 1.39, and since then.
exporter = getattr(logs_export, "ConsoleLogRecordExporter", logs_export.ConsoleLogExporter)
logs.add_log_record_processor(
    logs_export.BatchLogRecordProcessor(
        exporter(out=null, formatter=lambda record: ""), schedule_delay_millis=3_600_000
    )
)

def record():
    for what in sys.argv[1:]:
        if what == "span":
            spans.get_tracer("tests").start_span("span").end()
        if what == "measurement":
            counter.add(1)
        if what == "record":
            logs.get_logger("tests").emit(LogRecord(body="record"))

record()  # by the parent
child = multiprocessing.get_context("fork").Process(target=record)
child.start()
child.join(20)
print(child.exitcode)
"""


@pytest.mark.parametrize(
    ("what", "asked"),
    [
        ((), []),
        (("span",), ["TracerProvider"]),
        (("measurement",), ["MeterProvider"]),
        (("record",), ["LoggerProvider"]),
        (("span", "measurement", "record"), ["LoggerProvider", "MeterProvider", "TracerProvider"]),
    ],
)
def test_providers_for_which_nothing_was_recorded_are_not_asked(what, asked):
    """A forked child flushes what it has recorded itself: spans, measurements or log records.

    Of processors of another shape, such as older SDKs have, it is not known whether a record waits.
    """
    if find_spec("opentelemetry.sdk._shared_internal") is None:
        asked = sorted({*asked, "LoggerProvider"})
    printed, said = run_code(ASKED, *what)
    *names, exit_code = printed.split()
    assert (sorted(names), exit_code, said) == (asked, "0", "")


PRINTS = """
import multiprocessing, sys
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter
from otel_concurrency import ConcurrencyInstrumentor

class Out:
    write = staticmethod(lambda text: sys.stdout.write(text))
    flush = staticmethod(lambda: None)

provider = TracerProvider(shutdown_on_exit=False)
exporter = ConsoleSpanExporter(out=Out, formatter=lambda span: span.name + "\\n")
provider.add_span_processor(BatchSpanProcessor(exporter))
trace.set_tracer_provider(provider)
ConcurrencyInstrumentor().instrument()

def work():
    trace.get_tracer("tests").start_span("child's").end()

child = multiprocessing.get_context("fork").Process(target=work)
child.start()
child.join(20)
"""


def test_what_an_exporter_prints_is_not_lost():
    """A forked child has flushed its streams for the last time when its spans are exported."""
    assert run_code(PRINTS, PYTHONUNBUFFERED="") == ("child's\n", "")


LAST_THINGS = """
import atexit, multiprocessing, multiprocessing.util, os, sys, threading, time
from concurrent.futures import ThreadPoolExecutor
from opentelemetry import trace
from opentelemetry.sdk import trace as sdk
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from otel_concurrency import ConcurrencyInstrumentor

class Exporter(SpanExporter):
    def export(self, spans):
        os.write(1, "".join(f"{span.name}\\n" for span in spans).encode())
        return SpanExportResult.SUCCESS

def provider(**keywords):
    made = sdk.TracerProvider(shutdown_on_exit=False, **keywords)
    made.add_span_processor(BatchSpanProcessor(Exporter(), schedule_delay_millis=3_600_000))
    return made

def record(name):
    trace.get_tracer("tests").start_span(name).end()

def record_late():
    time.sleep(0.2)
    record("thread")

def work():
    record("work")
    atexit.register(record, "exit handler")
    multiprocessing.util.Finalize(None, record, ["finalizer"], exitpriority=-100)
    threading.Thread(target=record_late).start()

if __name__ == "__main__":
    ConcurrencyInstrumentor().instrument()
    fork = multiprocessing.get_context("fork")
"""


def test_what_comes_after_a_childs_work_is_exported():
    """What its threads record, its finalizers and (from 3.13 on, when there are) exit handlers."""
    program = f"""{LAST_THINGS}
    trace.set_tracer_provider(provider())
    child = fork.Process(target=work)
    child.start()
    child.join()
"""
    printed, said = run_code(program)
    expected = {"work", "thread", "finalizer"} | (
        {"exit handler"} if sys.version_info >= (3, 13) else set()
    )
    assert sorted(printed.splitlines()) == sorted(expected)
    assert said == ""


def test_exporters_that_use_a_pool_of_threads_export_at_a_childs_end():
    """They are asked while pools still take work, and are not heard to complain later."""
    program = f"""{LAST_THINGS}
    processors = sdk.ConcurrentMultiSpanProcessor(2)
    trace.set_tracer_provider(provider(active_span_processor=processors))
    child = fork.Process(target=record, args=("work",))
    child.start()
    child.join()
    with fork.Pool(1) as pool:
        pool.apply(record, ("task",))
"""
    assert run_code(program) == ("work\ntask\n", "")


def test_providers_that_are_not_global_are_flushed():
    """A program may have a provider of its own for some of its spans."""
    program = f"""{LAST_THINGS}
    own = provider()

    def work():
        own.get_tracer("tests").start_span("own").end()
        record("global")

    trace.set_tracer_provider(provider())
    child = fork.Process(target=work)
    child.start()
    child.join()
"""
    printed, said = run_code(program)
    assert (sorted(printed.splitlines()), said) == (["global", "own"], "")


def test_a_provider_is_kept_by_nobody():
    """That a provider was noted does not keep it alive, and leaves its class as it is."""
    program = """
import gc, inspect, weakref
from opentelemetry.sdk.trace import TracerProvider
before, signature = vars(TracerProvider)["__init__"], inspect.signature(TracerProvider)
from otel_concurrency import ConcurrencyInstrumentor
ConcurrencyInstrumentor().instrument()
assert vars(TracerProvider)["__init__"] is not before
assert inspect.signature(TracerProvider) == signature
provider = weakref.ref(TracerProvider(shutdown_on_exit=False))
gc.collect()
ConcurrencyInstrumentor().uninstrument()
print(provider(), vars(TracerProvider)["__init__"] is before)
"""
    assert run_code(program) == ("None True\n", "")


@pytest.mark.parametrize("pools", ["20", pytest.param("200", marks=pytest.mark.scale)])
@pytest.mark.parametrize("exporter", ["drop", "hang"])
def test_pools_beside_busy_threads_come_to_an_end(exporter, pools):
    """Pools that start and end while other threads make spans all do their work."""
    assert run("pools_beside_threads.py", exporter, pools) == ([pools], "")


# --- the connections of a forked child ---


def spans(endpoint):
    """Return a provider of spans, and what records one."""
    provider = TracerProvider(shutdown_on_exit=False)
    exporter = OTLPSpanExporter(f"{endpoint}/v1/traces")
    provider.add_span_processor(BatchSpanProcessor(exporter))
    return provider, lambda: provider.get_tracer("tests").start_span("work").end()


def spans_one_by_one(endpoint):
    """Return the same, exporting each span as it ends."""
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(OTLPSpanExporter(f"{endpoint}/v1/traces")))
    return provider, lambda: provider.get_tracer("tests").start_span("work").end()


def metrics(endpoint):
    """Return a provider of metrics, and what records one."""
    exporter = OTLPMetricExporter(f"{endpoint}/v1/metrics")
    reader = PeriodicExportingMetricReader(exporter, export_interval_millis=3_600_000)
    provider = MeterProvider([reader], shutdown_on_exit=False)
    return provider, lambda: provider.get_meter("tests").create_counter("work").add(1)


def logs(endpoint):
    """Return a provider of log records, and what records one."""
    provider = LoggerProvider(shutdown_on_exit=False)
    exporter = OTLPLogExporter(f"{endpoint}/v1/logs")
    provider.add_log_record_processor(BatchLogRecordProcessor(exporter))
    return provider, lambda: provider.get_logger("tests").emit(LogRecord(body="work"))


SIGNALS = [spans, spans_one_by_one, metrics]
if not hasattr(_logs, "LogRecord"):
    SIGNALS.append(logs)  # an SDK that exports what only its own handler makes is as good as none


@pytest.mark.parametrize("signal", SIGNALS)
def test_exporter_opens_a_connection_of_its_own(signal):
    """What a forked child forgets is closed by nobody, and not used by it again."""
    with Receiver() as receiver:
        provider, record = signal(receiver.endpoint)
        for forget, connections in ((False, 1), (False, 1), (True, 2), (False, 2)):
            if forget:
                after_fork.forget_connections(provider)
            record()
            provider.force_flush()
            assert receiver.connections == connections
        assert receiver.open_connections == 2
        provider.shutdown()
    assert receiver.faults == []


def test_parents_connections_are_its_own():
    """In the process that has imported the library nothing is forgotten."""
    program = """
import sys
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from otel_concurrency._child_exit import flush
flush.timeout = 5000
provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(OTLPSpanExporter(sys.argv[1])))
trace.set_tracer_provider(provider)
for number in range(2):
    flush.at_start_of_child()
    trace.get_tracer("tests").start_span("work").end()
"""
    with Receiver() as receiver:
        run_code(program, f"{receiver.endpoint}/v1/traces")
        assert len(receiver.spans) == 2
        assert receiver.connections == 1


def test_child_is_not_forked_while_an_exporter_is_being_imported():
    """A child can do what its parent is about to do for the first time: to send a request."""
    program = """
import importlib.machinery, multiprocessing, sys, threading, time
import requests
from otel_concurrency import ConcurrencyInstrumentor

importing = threading.Event()

class Slow:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name != "netrc":
            return None
        def execute(module):
            importing.set()
            time.sleep(0.5)
            execute_plainly(module)
        spec = importlib.machinery.PathFinder.find_spec(name)
        execute_plainly, spec.loader.exec_module = spec.loader.exec_module, execute
        return spec

def send():
    requests.utils.get_netrc_auth("http://127.0.0.1")

sys.modules.pop("netrc", None)
sys.meta_path.insert(0, Slow)
ConcurrencyInstrumentor().instrument()
threading.Thread(target=send).start()
importing.wait()
child = multiprocessing.get_context("fork").Process(target=send)
child.start()
child.join(20)
print(child.exitcode)
child.kill()
"""
    assert run_code(program) == ("0\n", "")
