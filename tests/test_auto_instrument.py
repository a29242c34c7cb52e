"""Real programs, in processes of their own, under the real ``opentelemetry-instrument``.

The programs are in ``apps``; not a line of them knows otel-concurrency. They are configured the way
users do it, by the distro and ``OTEL_TRACES_EXPORTER=console``, and what is asserted is what they
exported, and that they said nothing else.
"""

from __future__ import annotations

import collections
import concurrent.futures
import json
import os
import re
import signal
import subprocess
import sys
import sysconfig
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from importlib.metadata import distribution, entry_points
from pathlib import Path

import pytest

from programs import APPS

SCRIPTS = Path(sysconfig.get_path("scripts"))
DEADLINE = 60

PRIMITIVES = ("threading", "futures", "asyncio", "sched")


@dataclass(frozen=True)
class Run:
    """What a process left behind."""

    status: int
    stderr: str
    spans: list[dict]


@pytest.fixture
def run(tmp_path):
    """Return a function that runs a program of ``apps`` under ``opentelemetry-instrument``."""

    def run(program, *, flags=(), python_flags=(), **surroundings):
        command = (*flags, sys.executable, *python_flags, str(APPS / program))
        exported = tmp_path / "exported"
        with exported.open("ab") as stdout:
            finished = subprocess.run(
                [SCRIPTS / "opentelemetry-instrument", *command],
                env=environment(tmp_path, **surroundings),
                cwd=APPS,
                stdout=stdout,
                stderr=subprocess.PIPE,
                timeout=DEADLINE,
                text=True,
            )
        return Run(finished.returncode, finished.stderr, read_spans(exported))

    return run


def environment(home, *, instrumentors=("concurrency",), python_path=None, **settings):
    """Return an environment in which ``instrumentors``, of all that are installed, are loaded."""
    installed = {entry.name for entry in entry_points(group="opentelemetry_instrumentor")}
    assert installed.issuperset(instrumentors)
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("OTEL_", "PYTHON"))
    }
    return {
        **inherited,
        "HOME": str(home),  # gunicorn writes there
        "PYTHONUNBUFFERED": "1",  # a span is one write, so processes that share a file can mix them
        **({} if python_path is None else {"PYTHONPATH": str(python_path)}),
        "OTEL_TRACES_EXPORTER": "console",
        "OTEL_METRICS_EXPORTER": "none",
        "OTEL_LOGS_EXPORTER": "none",
        "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": ",".join(installed.difference(instrumentors)),
        **settings,
    }


def read_spans(exported):
    """Return the spans in what the console exporter wrote: JSON objects, one after another."""
    decode = json.JSONDecoder().raw_decode
    text = exported.read_text().strip()
    spans = []
    while text:
        span, end = decode(text)
        spans.append(span)
        text = text[end:].lstrip()
    return spans


def by_id(spans):
    """Return the spans by trace and span id."""
    found = {(span["context"]["trace_id"], span["context"]["span_id"]): span for span in spans}
    assert len(found) == len(spans)
    return found


def parent_of(span, known):
    """Return the parent of ``span``, which must be among ``known`` and in the same trace."""
    if span["parent_id"] is None:
        return None
    return known[span["context"]["trace_id"], span["parent_id"]]


def found_orders(spans):
    """Return (name of the parent, order in the baggage) of each span, by its name."""
    known = by_id(spans)
    assert [
        name for name, n in collections.Counter(s["name"] for s in spans).items() if n > 1
    ] == []
    return {
        span["name"]: (
            parent["name"] if (parent := parent_of(span, known)) else None,
            span["attributes"].get("order"),
        )
        for span in spans
    }


# What `payments.py` hands on, by the primitive that carries it.

CARRIED_BY = {
    "threading": {"Thread", "Thread subclass", "Timer", "start_new_thread"},
    "futures": {"submit", "map", "submit to a used pool", "done-callback"},
    "asyncio": {"run_in_executor, home-made"},
    "sched": {"scheduler"},
}
CARRIED_BY_EITHER = {"run_in_executor"}  # futures or, where that is off, asyncio
CARRIED_BY_PYTHON = {"to_thread", "create_task"}
NOBODYS = {"initializer", "QueueListener", "QueueListener, next"}
"""A worker's own work, and the threads that exist to do other people's."""

BY_US = set().union(*CARRIED_BY.values(), CARRIED_BY_EITHER)
UNDER_THE_ORDER = ("validate_payment", "1042")
ALONE = (None, None)


def expected_orders(*, orphans=()):
    """Return what ``found_orders`` returns if only the hand-offs ``orphans`` lose their order."""
    handed_on = BY_US | CARRIED_BY_PYTHON
    assert handed_on.issuperset(orphans)
    return {
        "validate_payment": ALONE,
        **dict.fromkeys(handed_on.difference(orphans), UNDER_THE_ORDER),
        **dict.fromkeys(orphans, ALONE),
        **{f"{name}, next": ALONE for name in handed_on},
        **dict.fromkeys(NOBODYS, ALONE),
    }


def assert_quiet(ran):
    """Assert that a program ran to its end without a word."""
    assert ran.stderr == ""
    assert ran.status == 0


def test_every_hand_off_keeps_its_order_and_leaves_nothing_behind(run):
    """Each worker's span is under the order that it works for; the next one's is under nothing."""
    ran = run("payments.py")
    assert_quiet(ran)
    assert found_orders(ran.spans) == expected_orders()


def test_workers_are_clean_where_python_itself_inherits_context(run):
    """Where CPython hands context to new threads (a flag since 3.14), workers are clean as well."""
    ran = run("payments.py", python_flags=("-X", "thread_inherit_context=1"))
    assert_quiet(ran)
    assert found_orders(ran.spans) == expected_orders()


def test_pool_workers_are_clean_where_only_python_carries_threads(run):
    """A pool keeps its own workers clean, also where threads inherit and ours are switched off."""
    ran = run(
        "payments.py",
        python_flags=("-X", "thread_inherit_context=1"),
        OTEL_PYTHON_CONCURRENCY_THREADING="off",
    )
    assert_quiet(ran)
    found = found_orders(ran.spans)
    pooled = {"submit", "map", "run_in_executor"}
    assert {name: found[name] for name in pooled} == dict.fromkeys(pooled, UNDER_THE_ORDER)
    nobodys = {"initializer", *(f"{name}, next" for name in pooled)}
    assert {name: found[name] for name in nobodys} == dict.fromkeys(nobodys, ALONE)


@pytest.mark.parametrize("primitive", PRIMITIVES)
def test_a_variable_switches_one_primitive_off(run, primitive):
    """A primitive that its variable switches off loses exactly its own hand-offs."""
    ran = run("payments.py", **{f"OTEL_PYTHON_CONCURRENCY_{primitive.upper()}": "off"})
    assert_quiet(ran)
    assert found_orders(ran.spans) == expected_orders(orphans=CARRIED_BY[primitive])


@pytest.mark.parametrize("primitive", PRIMITIVES)
def test_a_flag_switches_one_primitive_off(run, primitive):
    """A flag of ``opentelemetry-instrument`` does what the variable does."""
    ran = run("payments.py", flags=(f"--concurrency_{primitive}", "off"))
    assert_quiet(ran)
    assert found_orders(ran.spans) == expected_orders(orphans=CARRIED_BY[primitive])


def test_a_programs_own_option_of_that_name_is_left_to_it():
    """A program can have an option ``--concurrency``, as workers of Celery do."""
    ran = subprocess.run(
        [
            SCRIPTS / "opentelemetry-instrument",
            *(sys.executable, "-c", "import sys; print(sys.argv[1:])", "--concurrency", "2"),
        ],
        env={**os.environ, "OTEL_TRACES_EXPORTER": "none", "OTEL_METRICS_EXPORTER": "none"}
        | {"OTEL_LOGS_EXPORTER": "none"},
        capture_output=True,
        timeout=DEADLINE,
        text=True,
        check=False,
    )
    assert (ran.stdout, ran.stderr) == ("['--concurrency', '2']\n", "")


def test_the_policy_switches_every_primitive_off(run):
    """With the policy off only what Python itself carries keeps its order."""
    ran = run("payments.py", OTEL_PYTHON_CONCURRENCY_POLICY="off")
    assert_quiet(ran)
    assert found_orders(ran.spans) == expected_orders(orphans=BY_US)


@pytest.mark.parametrize("primitive", PRIMITIVES)
def test_a_primitive_of_its_own_policy_beats_the_policy_of_all(run, primitive):
    """With the policy off, a primitive that is set to ``parent`` carries what is its own."""
    carried = set(CARRIED_BY[primitive])
    if primitive in ("futures", "asyncio"):
        carried |= CARRIED_BY_EITHER
    ran = run(
        "payments.py",
        flags=("--concurrency_policy", "off"),
        **{f"OTEL_PYTHON_CONCURRENCY_{primitive.upper()}": "parent"},
    )
    assert_quiet(ran)
    assert found_orders(ran.spans) == expected_orders(orphans=BY_US - carried)


def assert_warned_once(ran, *words):
    """Assert one line on stderr that has all of ``words``, and that the program ran."""
    assert ran.status == 0
    assert len(ran.stderr.splitlines()) == 1, ran.stderr
    assert [word for word in words if word not in ran.stderr] == []


def test_a_bad_value_warns_and_the_default_applies(run):
    """A value that is none is quoted in one warning that names the valid ones."""
    ran = run("payments.py", OTEL_PYTHON_CONCURRENCY_SCHED="sideways")
    assert_warned_once(ran, "OTEL_PYTHON_CONCURRENCY_SCHED", "'sideways'", "parent", "link", "off")
    assert found_orders(ran.spans) == expected_orders()


def test_an_unknown_variable_warns(run):
    """A variable of ours that does not exist is named in one warning, with those that do."""
    ran = run("payments.py", OTEL_PYTHON_CONCURRENCY_FOO="off")
    assert_warned_once(ran, "OTEL_PYTHON_CONCURRENCY_FOO", "OTEL_PYTHON_CONCURRENCY_SCHED")
    assert found_orders(ran.spans) == expected_orders()


def test_link_starts_traces_that_are_linked(run):
    """Under ``link`` every hand-off is a trace of its own, with a link, and with the baggage."""
    ran = run("payments.py", OTEL_PYTHON_CONCURRENCY_POLICY="link")
    assert (ran.status, ran.stderr) == (0, "")
    named = {span["name"]: span for span in ran.spans}
    origin = named["validate_payment"]["context"]
    handed_off = set().union(*CARRIED_BY.values(), CARRIED_BY_EITHER)
    for name in handed_off:
        (link,) = named[name]["links"]
        assert (link["context"]["trace_id"], link["context"]["span_id"]) == (
            origin["trace_id"],
            origin["span_id"],
        )
        assert link["attributes"]["otel_concurrency.link.reason"] == "policy"
        assert named[name]["parent_id"] is None
        assert named[name]["context"]["trace_id"] != origin["trace_id"]
        assert named[name]["attributes"]["order"] == "1042"
    assert {name for name, span in named.items() if span["links"]} == handed_off


def test_disabled_by_the_loader(run):
    """Named in ``OTEL_PYTHON_DISABLED_INSTRUMENTATIONS``, the library does nothing at all."""
    ran = run("payments.py", instrumentors=())
    assert_quiet(ran)
    assert found_orders(ran.spans) == expected_orders(orphans=BY_US)


def test_what_the_user_excludes_starts_clean(run):
    """An excluded thread class and an excluded callable start with nothing; no other does."""
    ran = run("payments.py", OTEL_PYTHON_CONCURRENCY_EXCLUDED="__main__.Shipment, __main__.fulfil")
    assert_quiet(ran)
    assert found_orders(ran.spans) == expected_orders(orphans={"Thread subclass", "submit"})


OFFICIAL = ("threading", "asyncio")
TRACED_BY_ASYNCIO = {
    "OTEL_PYTHON_ASYNCIO_COROUTINE_NAMES_TO_TRACE": "notify",
    "OTEL_PYTHON_ASYNCIO_TO_THREAD_FUNCTION_NAMES_TO_TRACE": "work",
}


def discovered_first(directory, *names):
    """Make ``directory``, put on the path, the first place where these distributions are found."""
    for name in names:
        found = distribution(name)
        copy = directory / f"{name.replace('-', '_')}-{found.version}.dist-info"
        copy.mkdir(parents=True)
        for file in ("METADATA", "entry_points.txt"):
            (copy / file).write_text(found.read_text(file))
    return directory


@pytest.mark.parametrize(
    ("first", "place"),
    [
        (("otel-concurrency",), 0),
        (("opentelemetry-instrumentation-threading", "opentelemetry-instrumentation-asyncio"), -1),
    ],
    ids=["before", "after"],
)
def test_beside_the_official_instrumentors(run, tmp_path, first, place):
    """Loaded before or after the official ones: the same parents, clean workers, no span twice."""
    surroundings = {
        "instrumentors": ("concurrency", *OFFICIAL),
        "python_path": discovered_first(tmp_path / "first", *first),
        **TRACED_BY_ASYNCIO,
    }
    assert order_of_loading(environment(tmp_path, **surroundings))[place] == "concurrency"

    ran = run("payments.py", **surroundings)

    assert_quiet(ran)
    known = by_id(ran.spans)
    official = [span for span in ran.spans if span["name"].startswith("asyncio ")]
    assert sorted((s["name"], bool(parent_of(s, known))) for s in official) == [
        ("asyncio coro-notify", False),
        ("asyncio coro-notify", True),
        ("asyncio to_thread-work", False),
        ("asyncio to_thread-work", True),
    ]
    ours = [span for span in ran.spans if span not in official]
    assert found_orders(ours) == expected_orders()


def order_of_loading(env):
    """Return ours and the official instrumentors as ``opentelemetry-instrument`` finds them."""
    ask = (
        "from importlib.metadata import entry_points as e;"
        "print(*(found.name for found in e(group='opentelemetry_instrumentor')))"
    )
    answer = subprocess.run(
        [sys.executable, "-c", ask], env=env, capture_output=True, text=True, check=True
    )
    return [name for name in answer.stdout.split() if name in ("concurrency", *OFFICIAL)]


def test_the_official_instrumentor_is_really_there(run):
    """Without the library, the official ``threading`` is loaded: it carries threads alone."""
    ran = run("payments.py", instrumentors=("threading",))
    assert_quiet(ran)
    found = found_orders(ran.spans)
    assert found["Thread"] == UNDER_THE_ORDER
    assert found["scheduler"] == ALONE


def test_instrumenting_imports_no_module_that_it_patches(run):
    """A module is patched when the program imports it; the library imports none of them."""
    ran = run("importing.py", instrumentors=())
    assert_quiet(ran)
    (report,) = ran.spans
    assert report["attributes"] == {"imported": [], "orders": ["1042", "1042"]}


def test_a_fork_beside_queued_work(run):
    """A child forked while work is queued hands work on of its own and leaves cleanly."""
    ran = run("forking.py")
    assert ran.stderr == ""
    assert ran.status == 5 + 1
    assert found_orders(ran.spans) == {
        "request": ALONE,
        "queued in the parent": ("request", None),
        "submitted in the child": ("request", None),
        "thread in the child": ("request", None),
    }


def test_leaving_with_work_pending(run):
    """The interpreter leaves as it would, without a word, and what it waits for is carried."""
    ran = run("leaving.py")
    assert ran.stderr == ""
    assert ran.status == 3
    assert found_orders(ran.spans) == {
        "request": ALONE,
        "queued in the pool": ("request", None),
        "done-callback": ("request", None),
        "timer": ("request", None),
    }


# Servers. A request is known by the baggage that its client sends with it.

BY_WORKLOAD = {
    "submit": "request",
    "map": "request",
    "done-callback": "request",
    "Thread": "request",
    "Timer": "request",
    "scheduler": "request",
    "Thread of submit": "submit",
    "submit of submit": "submit",
}
BY_SYNC_ENDPOINT = {
    **BY_WORKLOAD,
    "sync background task": "request",
    "async background task": "request",
}
BY_ASYNC_ENDPOINT = {
    **BY_SYNC_ENDPOINT,
    "run_in_executor": "request",
    "run_in_executor, own pool": "request",
    "to_thread": "request",
    "create_task": "request",
    "call_soon": "request",
}
FASTAPI = ("fastapi_service:app", {"sync": BY_SYNC_ENDPOINT, "async": BY_ASYNC_ENDPOINT})
WSGI = ("wsgi_service:app", {"sync": BY_WORKLOAD})

UVICORN = ("uvicorn", "--port", "0", "--no-access-log")
GUNICORN = ("gunicorn", "--bind", "127.0.0.1:0", "--workers", "2")

REQUESTS = 50


@pytest.mark.parametrize(
    ("server", "service"),
    [
        (UVICORN, FASTAPI),
        ((*GUNICORN, "--worker-class", "asgi"), FASTAPI),
        ((*GUNICORN, "--worker-class", "gthread", "--threads", "4"), WSGI),
    ],
    ids=["uvicorn-fastapi", "gunicorn-fastapi", "gunicorn-wsgi"],
)
def test_every_span_of_a_service_is_under_its_own_request(tmp_path, server, service):
    """Under concurrent requests each piece of work keeps its own trace, parent and baggage."""
    application, endpoints = service
    kinds = list(endpoints)
    paths = {str(n): f"/{kinds[n % len(kinds)]}/{n}" for n in range(REQUESTS)}

    ran = serve(tmp_path, (*server, application), paths)

    assert ran.status in (0, -signal.SIGTERM)  # uvicorn leaves by the signal that it was sent
    assert "Traceback" not in ran.stderr
    assert "opentelemetry" not in ran.stderr.lower()
    assert found_requests(ran.spans) == {
        path: {name: (parent, number) for name, parent in endpoints[path.split("/")[1]].items()}
        for number, path in paths.items()
    }


def serve(directory, command, paths):
    """Run a server, ask it for all ``paths`` at once, end it, and return what it left behind."""
    exported, log = directory / "exported", directory / "log"
    with exported.open("ab") as stdout, log.open("ab") as stderr:
        server = subprocess.Popen(
            [SCRIPTS / "opentelemetry-instrument", SCRIPTS / command[0], *command[1:]],
            env=environment(directory, instrumentors=("concurrency", "fastapi")),
            cwd=APPS,
            stdout=stdout,
            stderr=stderr,
        )
    with server:
        try:
            address = wait_for_address(server, log)
            with concurrent.futures.ThreadPoolExecutor(len(paths)) as clients:
                answers = list(clients.map(get, [address] * len(paths), paths, paths.values()))
            assert set(answers) == {200}, log.read_text()
            server.terminate()
            server.wait(DEADLINE)
        finally:
            server.kill()
    return Run(server.returncode, log.read_text(), read_spans(exported))


def wait_for_address(server, log):
    """Return the address that the server says it listens on."""
    deadline = time.monotonic() + DEADLINE
    while time.monotonic() < deadline and server.poll() is None:
        said = re.search(r"http://127\.0\.0\.1:[1-9]\d*", log.read_text())
        if said:
            return said.group()
        time.sleep(0.02)
    raise AssertionError(f"the server does not listen:\n{log.read_text()}")


def get(address, number, path):
    """Ask for ``path``, with the number of the request in the baggage; return the status."""
    request = urllib.request.Request(address + path, headers={"baggage": f"request={number}"})
    try:
        with urllib.request.urlopen(request, timeout=DEADLINE) as response:
            return response.status
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def found_requests(spans):
    """Return, by path, the (name of the parent, request in the baggage) of each span by its name.

    A trace has one root, which is the server's. Spans that the framework's instrumentation puts in
    between are looked through.
    """
    known = by_id(spans)
    requests = {}
    for span in spans:
        if span["parent_id"] is None:
            assert span["kind"] == "SpanKind.SERVER", span["name"]
            requests[span["context"]["trace_id"]] = (path_of(span), {})
    for span in spans:
        if "request" in span["attributes"]:
            parent = parent_of(span, known)
            while parent["parent_id"] is not None and "request" not in parent["attributes"]:
                parent = parent_of(parent, known)
            _, found = requests[span["context"]["trace_id"]]
            assert span["name"] not in found
            found[span["name"]] = (
                parent["name"] if parent["parent_id"] else "request",
                span["attributes"]["request"],
            )
    return dict(requests.values())


def path_of(span):
    """Return the path that a server's span says it answered, in the older or newer convention."""
    attributes = span["attributes"]
    return attributes.get("url.path") or attributes["http.target"]
