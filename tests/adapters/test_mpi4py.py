"""mpi4py.futures: workers that MPI spawns or starts beside the program, and threads without any.

Nothing of MPI is used in this process, which is not to begin MPI for the tests after these.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from suite import (
    check_processes,
    check_processes_off,
    check_processes_under_link,
    run_program,
    spans_of,
)

HERE = Path(__file__).parent
WAY = """
from mpi4py.futures import MPIPoolExecutor
pool = MPIPoolExecutor(1)
def hand_off(function):
    return pool.submit(function).result(timeout=60)
def close():
    pool.shutdown()
"""


@pytest.fixture(autouse=True)
def mpiexec(monkeypatch):
    """Return the command, which MPI looks for when it spawns."""
    beside = Path(sys.executable).parent
    monkeypatch.setenv("PATH", str(beside), prepend=os.pathsep)
    return shutil.which("mpiexec")


@pytest.mark.decisive
def test_workers_that_are_spawned(tmp_path, monkeypatch):
    """Parent and baggage cross, nothing is left to the next task, and workers' spans arrive."""
    check_processes(WAY, tmp_path, monkeypatch)


def test_under_link(tmp_path, monkeypatch):
    """Work in a process is a trace of its own, linked to its origin."""
    check_processes_under_link(WAY, tmp_path, monkeypatch)


def test_switched_off(tmp_path, monkeypatch):
    """Nothing crosses where the adapter is left out, or the primitive."""
    check_processes_off(WAY, tmp_path, monkeypatch)


COUNTED = """
if __name__ == "__main__":
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader
    from otel_concurrency import ConcurrencyInstrumentor

    reader = InMemoryMetricReader()
    ConcurrencyInstrumentor().instrument(metrics=True, meter_provider=MeterProvider([reader]))
    from mpi4py.futures import MPIPoolExecutor

    with MPIPoolExecutor(1) as pool:
        pool.submit(len, "text").result(60)
    (resource,) = reader.get_metrics_data().resource_metrics
    print([
        (metric.name, point.attributes["otel_concurrency.primitive"], point.value)
        for scope in resource.scope_metrics
        for metric in scope.metrics
        for point in metric.data.data_points
        if metric.name.endswith("hand_offs")
        and point.attributes["otel_concurrency.primitive"] == "multiprocessing"
    ])
"""


def test_a_task_is_counted_once(tmp_path):
    """Whether it goes to a process or to a thread is not known when it is submitted."""
    printed = run_program(COUNTED, directory=tmp_path)
    assert printed == "[('otel_concurrency.hand_offs', 'multiprocessing', 1)]\n"


PROGRAM = """
from suite_work import *

def fail():
    raise ValueError("the work's")

def tenant(number):
    return number, baggage.get_baggage("tenant")

if __name__ == "__main__":
    {first}
    with MPIPoolExecutor(1) as pool:
        token = context.attach(baggage.set_baggage("tenant", "acme"))
        print(list(pool.map(tenant, [1, 2])), list(pool.starmap(tenant, [(3,)])))
        try:
            pool.submit(fail).result()
        except ValueError as error:
            print(error)
        context.detach(token)
        print(pool.submit(tenant, 4).result(), pool.num_workers)
"""
IMPORT = "from mpi4py.futures import MPIPoolExecutor"
EXPECTED = ["[(1, 'acme'), (2, 'acme')] [(3, 'acme')]", "the work's", "(4, None) 1"]


@pytest.mark.parametrize(
    "first", [f"{IMPORT}; switch_on()", f"switch_on(); {IMPORT}"], ids=["before", "after"]
)
def test_it_does_not_matter_which_is_first(first, tmp_path, monkeypatch):
    """Imported before the library is switched on, or after it; what goes wrong is the work's."""
    printed, _ = spans_of(PROGRAM.format(first=first), tmp_path, monkeypatch)
    assert printed.splitlines() == EXPECTED


@pytest.mark.parametrize("processes", ["1", "2"], ids=["threads", "processes"])
def test_workers_that_mpiexec_has_started(processes, mpiexec, tmp_path, monkeypatch):
    """One process has threads for workers: these carry, too."""
    printed, _ = spans_of(PROGRAM.format(first=f"{IMPORT}; switch_on()"), tmp_path, monkeypatch)
    done = subprocess.run(
        [mpiexec, "-n", processes, sys.executable, "-m", "mpi4py.futures", "program.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout == printed


def test_undo_is_exact():
    """Every attribute that was replaced is what it was, by identity."""
    program = """
import sys
sys.path.insert(0, sys.argv[1])
from mpi4py.futures.pool import MPIPoolExecutor
from suite import check_undo
check_undo(MPIPoolExecutor)
print("undone")
"""
    assert run_program(program, str(HERE)) == "undone\n"
