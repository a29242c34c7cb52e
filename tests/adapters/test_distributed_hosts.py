"""dask.distributed over two hosts, which are network namespaces: spans arrive at one receiver."""

from __future__ import annotations

import pytest
from two_hosts import run_program


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """Return what the tasks have seen, and all spans that arrived."""
    return run_program("dask_hosts.py", tmp_path_factory.mktemp("hosts"))


def test_a_task_has_its_parent_and_baggage_on_another_host(found):
    """The client's span and its tasks' are one trace; each span has arrived once."""
    seen, spans = found
    assert seen[:3] == [[number, "acme", True] for number in (1, 2, 3)]
    (origin,) = (span for span in spans if span["name"] == "origin")
    children = [span for span in spans if span["parent_id"]]
    assert {span["parent_id"] for span in children} == {origin["span_id"]}
    assert {span["trace_id"] for span in children} == {origin["trace_id"]}
    assert [span["attributes"]["host"] for span in children] == ["worker-host"] * 3
    assert origin["attributes"]["host"] == "client-host"


def test_a_task_that_was_submitted_in_no_context_has_none(found):
    """It is a trace of its own on the worker's host, with no baggage of the tasks before."""
    seen, spans = found
    assert seen[3] == [4, None, False]
    (span,) = (span for span in spans if span["name"] == "work" and not span["parent_id"])
    assert span["attributes"]["host"] == "worker-host"
    assert len(spans) == 5
