"""executorlib: one program with a worker that lives on, and with a worker for each task.

executorlib is not imported in this process, which is told of what pydantic deprecates there.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest
from suite import INSTRUMENT_FIRST, run_program, spans_of

HERE = Path(__file__).parent
PROGRAM = """
from suite_work import *
import json
from executorlib import SingleNodeExecutor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from otel_concurrency import ConcurrencyInstrumentor as I

def fail():
    raise ValueError("the work's")

def taking(resource_dict):
    "Take a parameter that executorlib refuses."

def presets():
    return {"preset": 5}

def given(number, preset=None, executorlib_worker_id=None):
    return [number, preset, executorlib_worker_id]

def later(*_, seconds=0.3):
    "Do some work that another task can wait for."
    import time
    time.sleep(seconds)
    from suite_work import work
    return work()

def linked():
    from suite_work import baggage, tracer
    span = tracer.start_span("linked")
    return [span.parent and 1, [link.context.span_id for link in span.links],
            baggage.get_baggage("tenant")]

def numbers(reader):
    (resource,) = reader.get_metrics_data().resource_metrics
    return [point.value for scope in resource.scope_metrics for metric in scope.metrics
            for point in metric.data.data_points if metric.name.endswith("hand_offs")
            and point.attributes["otel_concurrency.primitive"] == "multiprocessing"]

def in_span(executor, function, *args, tenant="acme"):
    token = context.attach(baggage.set_baggage("tenant", tenant))
    with tracer.start_as_current_span("origin") as span:
        future = executor.submit(function, *args)
    context.detach(token)
    return [span.get_span_context().span_id, tenant, future]

def result(of):
    origin, tenant, future = of
    return [origin, tenant, future.result(timeout=60)]

def executor(**kwargs):
    return SingleNodeExecutor(hostname_localhost=True, **kwargs)

if __name__ == "__main__":
    found = {}
    reader = InMemoryMetricReader()
    I().instrument(metrics=True, meter_provider=MeterProvider([reader]))
    with executor(max_workers=1, block_allocation=True, init_function=presets) as pool:
        found["cold"] = result(in_span(pool, work))
        found["after"] = pool.submit(work).result()
        found["warm"] = result(in_span(pool, work, tenant="umbrella"))
        found["counts"] = numbers(reader)

        first = in_span(pool, later, tenant="first")
        waiting = in_span(pool, work, [first[2]], tenant="second")
        found["between"] = result(in_span(pool, work, tenant="third"))
        found["first"], found["dependent"] = result(first), result(waiting)
        found["map"] = list(pool.map(clean, [1, 2]))

        found["given"] = pool.submit(given, 3).result()
        for function in fail, taking:
            try:
                pool.submit(function).result()
            except Exception as error:
                found[function.__name__] = [type(error).__name__, str(error)]
        found["after a fault"] = pool.submit(clean).result()
        I().uninstrument()

        I().instrument(multiprocessing="link")
        found["link"] = result(in_span(pool, linked))
        I().uninstrument()
        for how, settings in {
            "policy": {"multiprocessing": "off"}, "adapter": {"adapters": "-executorlib"},
        }.items():
            I().instrument(**settings)
            found[how] = in_span(pool, clean)[2].result()
            I().uninstrument()
        found["off"] = in_span(pool, clean)[2].result()
        found["given off"] = pool.submit(given, 3).result()
        I().instrument()
        found["last"] = result(in_span(pool, work))

    cache = {"max_workers": 1, "cache_directory": "cache"}
    with executor(**cache) as each:
        found["alone"] = result(in_span(each, work, 1))
    I().uninstrument()
    with executor(**cache) as each:
        found["cached"] = each.submit(work, 1).result()
    I().instrument()
    with executor(max_cores=2, resource_dict={"cores": 2}) as ranks:
        found["ranks"] = result(in_span(ranks, work))
    print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """Return what the program has found, and under "spans" the names and parents of spans."""
    directory = tmp_path_factory.mktemp("executorlib")
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("PATH", str(Path(sys.executable).parent), prepend=os.pathsep)
        monkeypatch.chdir(directory)
        printed, spans = spans_of(PROGRAM, directory, monkeypatch)
    return {**json.loads(printed), "spans": spans}


def child(found, name):
    """Return what a task that is a child of its origin says, without the id of its process."""
    origin, tenant, _ = found[name]
    return [origin, tenant]


@pytest.mark.decisive
def test_a_task_is_a_child_with_the_baggage(found):
    """In a worker that is new, and in one that has worked; the next task has nothing of it."""
    for name in ("cold", "warm"):
        assert found[name][2][:2] == child(found, name)
    assert found["after"][:2] == [0, None]
    assert found["cold"][2][2] == found["after"][2] == found["warm"][2][2]


def test_a_task_that_waits_for_another(found):
    """It has the context of its own call, also where others go before it."""
    for name in ("first", "dependent", "between"):
        assert found[name][2][:2] == child(found, name)
    assert found["map"] == [[], []]


def test_a_task_is_counted_once(found):
    """Three were handed off."""
    assert sum(found["counts"]) == 3


def test_a_worker_for_each_task(found):
    """It carries, and a result is found by the name that it has without the library."""
    assert found["alone"][2][:2] == child(found, "alone")
    assert found["cached"] == found["alone"][2]


def test_a_task_of_several_processes(found):
    """Each process of MPI's has the context."""
    ranks = found["ranks"][2]
    assert [one[:2] for one in ranks] == [child(found, "ranks")] * 2
    assert len({pid for *_, pid in ranks}) == 2


def test_what_executorlib_reads_of_a_function_is_there(found):
    """It fills in parameters by their names, and refuses one."""
    assert found["given"] == found["given off"] == [3, 5, 0]
    assert found["taking"][0] == "ValueError"
    assert "resource_dict" in found["taking"][1]


def test_what_a_task_raises_is_raised(found):
    """And nothing is left of it."""
    assert found["fail"] == ["ValueError", "the work's"]
    assert found["after a fault"] == []


def test_under_link_a_task_is_a_trace_of_its_own(found):
    """It has a link to its origin, and the baggage."""
    origin, tenant, seen = found["link"]
    assert seen == [None, [origin], tenant]


@pytest.mark.parametrize("how", ["policy", "adapter", "off"])
def test_switched_off_it_carries_nothing(how, found):
    """By the policy, by the adapter's name, and with all of the library."""
    assert found[how] == []


def test_spans_of_workers_arrive(found):
    """Also that of the last task of each."""
    parents = {parent for name, _, parent, *_ in found["spans"] if name == "work"}
    names = ("cold", "warm", "first", "dependent", "last", "alone", "ranks")
    assert {f"{found[name][0]:x}" for name in names} <= parents


WITHOUT_A_PROCESS = """
import queue
from concurrent.futures import Future
from types import SimpleNamespace
import cloudpickle
from executorlib.standalone.interactive.backend import call_funct
from executorlib.standalone.interactive.communication import SocketInterface
from executorlib.task_scheduler.interactive import blockallocation, onetoone

class Here(SocketInterface):
    def __init__(self):
        self._socket = SimpleNamespace(send=self.sent, close=int)
        self._spawner = SimpleNamespace(poll=bool)
        self._context = self._logger = None
    def sent(self, message):
        self.message = message
    def receive_dict(self):
        return {"result": None}
"""


def test_switched_on_first_and_a_worker_without_the_library():
    """The order does not matter; such a worker gets the very function."""
    program = """
import sys
from opentelemetry import baggage, context
kind = blockallocation.BlockAllocationTaskScheduler
context.attach(baggage.set_baggage("tenant", "acme"))
for there in (True, False):
    if not there:
        sys.modules["otel_concurrency"] = None
    tasks, future, here = queue.Queue(), Future(), Here()
    scheduler = SimpleNamespace(_process_kwargs={"spawner": None}, _future_queue=tasks)
    kind.submit(scheduler, fn=baggage.get_all)
    context.attach(context.Context())
    task = tasks.get()
    task.pop("future")
    context.attach(context.Context())
    function = task["fn"]
    blockallocation.execute_task_dict(task, future, interface=here)
    assert task["fn"] is function
    message = cloudpickle.loads(here.message)
    assert set(message) == set(task) == {"fn", "args", "kwargs"}
    print(dict(call_funct(message)), message["fn"] is baggage.get_all)
    context.attach(baggage.set_baggage("tenant", "acme"))
"""
    printed = run_program(
        INSTRUMENT_FIRST.format(module="executorlib") + WITHOUT_A_PROCESS + program
    )
    assert printed == "{'tenant': 'acme'} False\n{} True\n"


def test_undo_is_exact():
    """Every attribute that was replaced is what it was, by identity."""
    program = """
import sys
sys.path.insert(0, sys.argv[1])
from executorlib.standalone.interactive.communication import SocketInterface
from executorlib.task_scheduler.base import TaskSchedulerBase
from executorlib.task_scheduler.interactive import blockallocation, onetoone
from suite import check_undo
kind = blockallocation.BlockAllocationTaskScheduler
check_undo(TaskSchedulerBase, kind, blockallocation, onetoone, SocketInterface)
print("undone")
"""
    assert run_program(program, str(HERE)) == "undone\n"
