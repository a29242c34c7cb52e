"""parsl: one program with a pool of one worker, used with the library on, under `link`, and off."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

import pytest
from parsl.executors.high_throughput import executor
from suite import INSTRUMENT_FIRST, WAIT, check_undo, run_program, spans_of

PROGRAM = """
from suite_work import *
import json
import parsl
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from otel_concurrency import ConcurrencyInstrumentor as I
from parsl.config import Config
from parsl.executors import HighThroughputExecutor, ThreadPoolExecutor

def counted(calls=[]):
    "Count the calls of this function object, and say whether a signal would end it at once."
    import signal
    calls.append(1)
    return len(calls), signal.getsignal(signal.SIGTERM) is signal.SIG_DFL

def again(path, *_):
    "Fail at the first try."
    import os
    from suite_work import work
    if not os.path.exists(path):
        open(path, "x").close()
        raise ValueError("the first try's")
    return work()

def fail():
    raise ValueError("the work's")

class NotPickled:
    __name__ = "NotPickled"
    def __call__(self):
        pass
    def __reduce__(self):
        raise TypeError("the function's")

def numbers(reader):
    (resource,) = reader.get_metrics_data().resource_metrics
    return [point.value for scope in resource.scope_metrics for metric in scope.metrics
            for point in metric.data.data_points if metric.name.endswith("hand_offs")
            and point.attributes["otel_concurrency.primitive"] == "multiprocessing"]

processes = HighThroughputExecutor(
    label="processes", address="127.0.0.1", max_workers_per_node=1, encrypted=False, poll_period=5)
threads = ThreadPoolExecutor(label="threads")
config = Config([processes, threads], run_dir="runs", strategy_period=0.05, retries=1,
                initialize_logging=False)

def app(function, executor="processes", **kwargs):
    return parsl.python_app(function, executors=[executor], **kwargs)

def in_span(hand_off, tenant="acme"):
    token = context.attach(baggage.set_baggage("tenant", tenant))
    with tracer.start_as_current_span("origin") as span:
        future = hand_off()
    context.detach(token)
    return [span.get_span_context().span_id, tenant, future]

def result(of):
    origin, tenant, future = of
    return [origin, tenant, *future.result(timeout=90)]

def links(*_):
    from suite_work import baggage, tracer
    span = tracer.start_span("linked")
    return [span.parent and 1, [link.context.span_id for link in span.links],
            baggage.get_baggage("tenant")]

found = {}
reader = InMemoryMetricReader()
I().instrument(metrics=True, meter_provider=MeterProvider([reader]))
with parsl.load(config):
    found["cold"] = result(in_span(app(work)))
    found["after"] = app(work)().result()
    found["warm"] = result(in_span(app(work), "umbrella"))
    found["counts"] = numbers(reader)

    first = in_span(app(work), "first")
    found["dependent"] = result(in_span(lambda: app(again)("tried", first[2]), "second"))
    found["first"] = result(first)
    found["retried after"] = app(clean)().result()
    found["threads"] = result(in_span(app(work, "threads")))

    once = app(work, cache=True)
    found["cached"] = [result(in_span(once)), result(in_span(once))]
    found["counted"] = [app(counted)().result() for _ in range(3)]
    for function in fail, NotPickled():
        try:
            app(function)().result()
        except Exception as error:
            found[function.__name__] = [type(error).__name__, str(error)]
    I().uninstrument()

    I().instrument(multiprocessing="link")
    found["link"] = result(in_span(app(links)))
    I().uninstrument()

    I().instrument(multiprocessing="off")
    found["policy"] = in_span(app(clean))[2].result()
    I().uninstrument()

    I().instrument(adapters="-*")
    found["adapter"] = in_span(app(clean))[2].result()
    found["threads alone"] = result(in_span(app(work, "threads")))
    I().uninstrument()
    found["off"] = in_span(app(clean))[2].result()
    found["counted off"] = app(counted)().result()

    I().instrument()
    found["last"] = result(in_span(app(work)))
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """Return what the program has found, and under "spans" the names and parents of spans."""
    directory = tmp_path_factory.mktemp("parsl")
    with pytest.MonkeyPatch.context() as monkeypatch:
        # So parsl finds its commands, and its workers find the modules of the program.
        monkeypatch.setenv("PATH", str(Path(sys.executable).parent), prepend=os.pathsep)
        monkeypatch.setenv("PYTHONPATH", str(directory), prepend=os.pathsep)
        monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "600000")  # ms: none exports before its end
        monkeypatch.chdir(directory)
        printed, _ = spans_of(PROGRAM, directory, monkeypatch)
    found = json.loads(printed)
    exported = directory / "spans"
    until = time.monotonic() + WAIT
    while f" {found['last'][0]:x} " not in exported.read_text() and time.monotonic() < until:
        time.sleep(0.05)
    found["spans"] = [line.split() for line in exported.read_text().splitlines()]
    return found


@pytest.mark.decisive
def test_a_task_is_a_child_with_the_baggage(found):
    """In a worker that is new, and in one that has worked; the next task has nothing of it."""
    for round_, tenant in {"cold": "acme", "warm": "umbrella"}.items():
        origin, _, *seen = found[round_]
        assert seen[:2] == [origin, tenant]
    assert found["after"][:2] == [0, None]
    assert found["cold"][-1] == found["after"][-1] == found["warm"][-1]


def test_a_task_that_waits_and_is_tried_again(found):
    """Each has the context of its own call, not that of the task that it waits for."""
    for one in ("first", "dependent"):
        origin, _, *seen = found[one]
        assert seen[:2] == [origin, {"first": "first", "dependent": "second"}[one]]
    assert found["retried after"] == []


def test_tasks_in_threads_need_no_adapter(found):
    """The pool of threads is the standard library's."""
    for one in ("threads", "threads alone"):
        origin, _, *seen = found[one]
        assert seen[:2] == [origin, "acme"]


def test_a_task_is_counted_once(found):
    """Three were handed off."""
    assert sum(found["counts"]) == 3


def test_what_parsl_remembers_is_found(found):
    """A result by its function, and in a worker a function by its pickle, with what it keeps."""
    first, second = found["cached"]
    assert first[2:] == second[2:]
    assert found["counted"] == [[1, True], [2, True], [3, True]]
    assert found["counted off"][0] == 4


def test_what_a_task_raises_is_raised(found):
    """And what parsl says where a function cannot be pickled."""
    assert found["fail"] == ["ValueError", "the work's"]
    assert found["NotPickled"][0] == "SerializationError"


def test_under_link_a_task_is_a_trace_of_its_own(found):
    """It has a link to its origin, and the baggage."""
    origin, tenant, *seen = found["link"]
    assert seen == [None, [origin], tenant]


@pytest.mark.parametrize("how", ["policy", "adapter", "off"])
def test_switched_off_it_carries_nothing(how, found):
    """By the policy, by the adapter's name, and with all of the library."""
    assert found[how] == []


def test_spans_of_workers_arrive(found):
    """Also that of the last task: a worker that is told to end exports first."""
    parents = {parent for name, _, parent, *_ in found["spans"] if name == "work"}
    origins = {one: f"{found[one][0]:x}" for one in ("cold", "warm", "first", "dependent", "last")}
    assert [one for one, origin in origins.items() if origin not in parents] == []


def test_a_worker_without_the_library():
    """It gets the very function."""
    program = """
from opentelemetry import baggage, context
from parsl.executors.high_throughput import executor
from parsl.serialize import unpack_apply_message
import sys
context.attach(baggage.set_baggage("tenant", "acme"))
message = executor.pack_apply_message(baggage.get_baggage, ["tenant"], {})
context.attach(context.Context())
function, args, kwargs = unpack_apply_message(message)
print(function(*args, **kwargs))
sys.modules["otel_concurrency"] = None
print(unpack_apply_message(message)[0] is baggage.get_baggage)
"""
    assert run_program(INSTRUMENT_FIRST.format(module="parsl") + program) == "acme\nTrue\n"


def test_undo_is_exact():
    """Every attribute that was replaced is what it was, by identity."""
    check_undo(executor)
