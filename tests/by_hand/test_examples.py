"""The programs of `examples/`, run as users run them: by the real `opentelemetry-instrument`."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from test_auto_instrument import DEADLINE, environment, parent_of, read_spans

REPOSITORY = Path(__file__).parents[2]
EXAMPLES = REPOSITORY / "examples"
INSTRUMENT = Path(sysconfig.get_path("scripts")) / "opentelemetry-instrument"


def linked(reason, *names):
    """Return what is expected of a root with links."""
    return {"parent": None, "links": sorted((name, reason) for name in names)}


def child(name):
    """Return what is expected of a child."""
    return {"parent": name, "links": []}


ROOT = child(None)

EXPECTED = {
    "batch_writer": [
        ("request 1", ROOT),
        ("request 2", ROOT),
        ("request 3", ROOT),
        ("write", linked("batch", "request 1", "request 2", "request 3")),
        ("write", child("request 3")),
    ],
    "c_callback": [("on_data", child("request")), ("request", ROOT)],
    "cached_connection": [
        ("heartbeat to db", ROOT),
        ("query 1", child("request 1")),
        ("query 2", child("request 2")),
        ("request 1", ROOT),
        ("request 2", ROOT),
    ],
    "generator_on_a_thread": [
        ("read row 0", child("request")),
        ("read row 1", child("request")),
        ("request", ROOT),
        ("send row 0", ROOT),
        ("send row 1", ROOT),
    ],
    "job_table": [("request", ROOT), ("send invoice", linked("policy", "request"))],
    "list_and_condition": [
        ("order invoice", ROOT),
        ("order label", ROOT),
        ("print invoice", child("order invoice")),
        ("print label", child("order label")),
    ],
    "own_executor": [
        ("add 1 and 1", child("request 1")),
        ("add 2 and 2", child("request 2")),
        ("request 1", ROOT),
        ("request 2", ROOT),
    ],
    "pipe": [
        ("request 2", ROOT),
        ("request 3", ROOT),
        ("square 2", child("request 2")),
        ("square 3", child("request 3")),
    ],
    "socket_message": [
        ("handle first", child("request first")),
        ("handle second", child("request second")),
        ("request first", ROOT),
        ("request second", ROOT),
    ],
}


def _known(spans):
    return {(span["context"]["trace_id"], span["context"]["span_id"]): span for span in spans}


def _seen(spans):
    known = _known(spans)
    seen = []
    for span in spans:
        parent = parent_of(span, known)
        links = [
            (
                known[link["context"]["trace_id"], link["context"]["span_id"]]["name"],
                link["attributes"]["otel_concurrency.link.reason"],
            )
            for link in span["links"]
        ]
        found = {"parent": parent and parent["name"], "links": sorted(links)}
        seen.append((span["name"], found))
    return sorted(seen, key=lambda one: (one[0], str(one[1]["parent"]), len(one[1]["links"])))


WITH_CHILDREN = ("job_table", "pipe")


@pytest.fixture(scope="module")
def children_are_instrumented(tmp_path_factory):
    """Return whether `opentelemetry-instrument` configures a program that the program starts."""
    folder = tmp_path_factory.mktemp("children")
    look = "from opentelemetry import trace; print(type(trace.get_tracer_provider()).__name__)"
    program = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {look!r}])"
    asked = subprocess.run(
        [INSTRUMENT, sys.executable, "-c", program],
        env=environment(folder, instrumentors=()),
        capture_output=True,
        timeout=DEADLINE,
        text=True,
    )
    return asked.stdout == "TracerProvider\n"


@pytest.mark.parametrize("library", ["on", "off"])
@pytest.mark.parametrize("name", EXPECTED)
def test_an_example_hands_off(name, library, tmp_path, children_are_instrumented):
    """Each span has the parent or the links that it should have, with the library on and off."""
    if name in WITH_CHILDREN and not children_are_instrumented:
        pytest.skip("this version of opentelemetry-instrument does not reach children")
    if name == "c_callback" and sys.platform == "win32":
        pytest.skip("Windows has no POSIX threads")
    exported = tmp_path / "exported"
    instrumentors = ("concurrency",) if library == "on" else ()
    with exported.open("ab") as stdout:
        finished = subprocess.run(
            [INSTRUMENT, sys.executable, EXAMPLES / f"{name}.py"],
            env=environment(tmp_path, instrumentors=instrumentors),
            cwd=tmp_path,
            stdout=stdout,
            stderr=subprocess.PIPE,
            timeout=DEADLINE,
            text=True,
        )
    assert (finished.returncode, finished.stderr) == (0, "")
    spans = read_spans(exported)
    expected = sorted(
        EXPECTED[name], key=lambda one: (one[0], str(one[1]["parent"]), len(one[1]["links"]))
    )
    assert _seen(spans) == expected
    if name == "job_table":
        assert [span["attributes"] for span in spans if span["links"]] == [{"tenant": "acme"}]


def test_every_example_is_run():
    """What is in the folder is expected here, and named on the page."""
    names = {path.stem for path in EXAMPLES.glob("*.py")}
    assert names == {*EXPECTED}
    page = (REPOSITORY / "docs" / "by-hand.md").read_text(encoding="utf-8")
    assert {name for name in names if f"(../examples/{name}.py)" not in page} == set()
