"""Spans of child processes, as a receiver gets them from real programs.

The programs are in ``apps``; not a line of them knows otel-concurrency. They run under the real
``opentelemetry-instrument``, and export by the real exporter of OTLP over HTTP, in batches.
"""

from __future__ import annotations

import collections
import inspect
import os
import subprocess
import sys
import sysconfig
from importlib.metadata import entry_points
from pathlib import Path

import pytest
from opentelemetry import propagate

from otlp_receiver import Receiver
from programs import APPS

SCRIPTS = Path(sysconfig.get_path("scripts"))
DEADLINE = 110


@pytest.fixture
def receiver():
    """Receive for the length of a test; what arrives must all be well-formed."""
    with Receiver() as receiver:
        yield receiver
    assert receiver.faults == []


def run(receiver, program, *arguments, seconds=DEADLINE, **settings):
    """Run a program of ``apps`` to its end, which must be a good and quiet one."""
    instrumentors = {entry.name for entry in entry_points(group="opentelemetry_instrumentor")}
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("OTEL_", "PYTHON")) and name not in ("TRACEPARENT", "BAGGAGE")
    }
    environment = {
        **inherited,
        "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.endpoint,
        "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
        "OTEL_TRACES_EXPORTER": "otlp",
        "OTEL_METRICS_EXPORTER": "none",
        "OTEL_LOGS_EXPORTER": "none",
        "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": ",".join(instrumentors - {"concurrency"}),
        **settings,
    }
    finished = subprocess.run(
        [
            SCRIPTS / "opentelemetry-instrument",
            sys.executable,
            str(APPS / program),
            *map(str, arguments),
        ],
        env=environment,
        capture_output=True,
        timeout=seconds,
        text=True,
    )
    assert (finished.returncode, finished.stdout) == (0, "")
    return finished.stderr


def parents(spans):
    """Return the name of each span's parent, by its name; each must be there once."""
    twice = [name for name, n in collections.Counter(s.name for s in spans).items() if n > 1]
    assert twice == []
    known = {(span.trace_id, span.span_id): span.name for span in spans}
    return {
        span.name: known[span.trace_id, span.parent_id] if span.parent_id else None
        for span in spans
    }


SPANS = 1000

# A process takes its time to start, a spawned one half a second, so there are fewer of them, with
# more to do each; as many as spans are in the tests of scale.
FORMS = {
    "fork": {
        "executor": (1000, 0),
        "pool": (1000, 0),
        "pool, replaced workers": (200, 7),
        "terminated_pool": (1000, 0),
        "process": (50, 0),
    },
    "forkserver": {
        "executor": (1000, 0),
        "recycling_executor": (100, 7),
        "pool": (1000, 0),
        "pool, replaced workers": (100, 7),
        "terminated_pool": (1000, 0),
        "process": (25, 0),
    },
    "spawn": {
        "executor": (1000, 0),
        "recycling_executor": (25, 7),
        "pool": (1000, 0),
        "pool, replaced workers": (25, 7),
        "terminated_pool": (1000, 0),
        "process": (4, 0),
    },
}


@pytest.mark.parametrize(
    ("method", "kind", "tasks", "recycled"),
    [
        pytest.param(method, name.split(",")[0], tasks, recycled, id=f"{method}-{name}")
        for method, forms in FORMS.items()
        for name, (tasks, recycled) in forms.items()
        if name != "recycling_executor" or sys.version_info >= (3, 11)
    ],
)
def test_every_span_of_every_child_arrives(receiver, method, kind, tasks, recycled):
    """Of 1,000 spans in children each arrives, once, under the span that submitted its task."""
    assert_all_arrive(receiver, kind, method, tasks, SPANS // tasks, recycled, DEADLINE)


SLOW = [
    pytest.param(method, name.split(",")[0], recycled, id=f"{method}-{name}")
    for method, forms in FORMS.items()
    for name, (tasks, recycled) in forms.items()
    if tasks < SPANS
    and (name != "recycling_executor" or sys.version_info >= (3, 11))
    and method != "spawn"  # hundreds of interpreters would take minutes
]


@pytest.mark.scale
@pytest.mark.timeout(1200)
@pytest.mark.parametrize(("method", "kind", "recycled"), SLOW)
def test_every_span_of_a_thousand_tasks_arrives(receiver, method, kind, recycled):
    """With as many tasks as spans, where that takes minutes, it is the same."""
    assert_all_arrive(receiver, kind, method, SPANS, 1, recycled, 1150)


def assert_all_arrive(receiver, kind, method, tasks, each, recycled, seconds):
    """Check that what a program's pool records in its children is what the receiver gets."""
    said = run(receiver, "pools.py", kind, method, tasks, each, recycled, seconds=seconds)
    assert said == ""
    expected = {f"work {t} {n}": f"submit {t}" for t in range(tasks) for n in range(each)}
    expected |= {f"submit {task}": None for task in range(tasks)}
    assert parents(receiver.spans) == expected


@pytest.mark.parametrize("tasks", [40, pytest.param(200, marks=pytest.mark.scale)])
def test_children_do_not_mix_with_a_parent_that_is_exporting(receiver, tasks):
    """A parent whose connection is open while it forks loses nothing, and its children neither."""
    said = run(receiver, "pools.py", "process", "fork", tasks, 1, 0, OTEL_BSP_SCHEDULE_DELAY="10")
    assert said == ""
    found = parents(receiver.spans)
    assert len(found) == 2 * tasks
    assert all(found[f"work {task} 0"] == f"submit {task}" for task in range(tasks))


@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
def test_metrics_and_logs_of_a_child_arrive(receiver, method):
    """What a child has counted and logged is exported at its end, and nothing of its parent's."""
    run(
        receiver,
        "signals.py",
        method,
        OTEL_METRICS_EXPORTER="otlp",
        OTEL_LOGS_EXPORTER="otlp",
        OTEL_PYTHON_LOGGING_AUTO_INSTRUMENTATION_ENABLED="true",
    )
    assert [span.name for span in receiver.spans] == ["work"]
    assert receiver.logs == ["logged"]
    assert set(receiver.metrics) == {("counted", 1), ("counted", 5)}  # the sums so far


@pytest.mark.parametrize(
    "propagators",
    [
        "b3multi",
        pytest.param(
            "none",
            marks=pytest.mark.skipif(
                '"none"' not in inspect.getsource(propagate),
                reason="this version of OpenTelemetry's API has no such propagator",
            ),
        ),
    ],
)
def test_process_boundaries_need_no_propagator(receiver, propagators):
    """How a program talks to other services says nothing about its own children."""
    said = run(receiver, "pools.py", "process", "spawn", 2, 1, 0, OTEL_PROPAGATORS=propagators)
    assert said == ""
    assert parents(receiver.spans) == {
        "submit 0": None,
        "submit 1": None,
        "work 0 0": "submit 0",
        "work 1 0": "submit 1",
    }


# --- subprocesses ---

STRANGER = "00-000000000000000000000000000000aa-00000000000000bb-01"


@pytest.mark.parametrize("settings", [{}, {"OTEL_PROPAGATORS": "b3,baggage"}], ids=["W3C", "B3"])
def test_commands_join_the_trace_of_what_started_them(receiver, settings):
    """A command that starts a command makes one trace, and the baggage goes with it."""
    said = run(receiver, "starting.py", 2, OTEL_PYTHON_CONCURRENCY_SUBPROCESS="parent", **settings)
    assert said == ""
    assert parents(receiver.spans) == {
        "generation 2": None,
        "generation 1": "generation 2",
        "generation 0": "generation 1",
    }
    orders = {span.name: span.attributes["order"] for span in receiver.spans}
    assert orders == {"generation 2": "None", "generation 1": "1042", "generation 0": "1042"}


def test_a_command_joins_the_trace_of_what_is_no_python_at_all(receiver):
    """A TRACEPARENT, of a CI step say, is the parent of the first span."""
    settings = {"OTEL_PYTHON_CONCURRENCY_SUBPROCESS": "parent", "TRACEPARENT": STRANGER}
    assert run(receiver, "starting.py", 1, **settings) == ""
    spans = {span.name: span for span in receiver.spans}
    assert spans["generation 1"].parent_id == "00000000000000bb"
    assert spans["generation 0"].parent_id == spans["generation 1"].span_id


def test_commands_stay_alone_by_default(receiver):
    """Unless it is asked for, nothing goes into an environment, nor comes out of one."""
    assert run(receiver, "starting.py", 1, TRACEPARENT=STRANGER) == ""
    assert parents(receiver.spans) == {"generation 1": None, "generation 0": None}


@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
def test_children_do_not_take_the_environment_for_their_submitter(receiver, method):
    """What a pool's parent was started with is no parent of what its workers do."""
    settings = {"OTEL_PYTHON_CONCURRENCY_SUBPROCESS": "parent", "TRACEPARENT": STRANGER}
    assert run(receiver, "pools.py", "pool", method, 2, 1, 0, **settings) == ""
    spans = {span.name: span for span in receiver.spans}
    for task in range(2):
        assert spans[f"submit {task}"].parent_id == "00000000000000bb"
        assert spans[f"work {task} 0"].parent_id == spans[f"submit {task}"].span_id
