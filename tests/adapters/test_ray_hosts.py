"""ray over two hosts, which are network namespaces: spans arrive at one receiver."""

from __future__ import annotations

import pytest
from two_hosts import SECONDS, run_program

pytestmark = [pytest.mark.scale, pytest.mark.timeout(400)]


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """Return what the calls have seen, and all spans that arrived."""
    return run_program("ray_hosts.py", tmp_path_factory.mktemp("hosts"), 3 * SECONDS)


def test_a_call_has_its_parent_and_baggage_on_another_host(found):
    """Tasks, tasks of tasks and actors there are in the trace of the program here."""
    seen, spans = found
    assert seen[:3] == [[number, "acme", True] for number in (1, 2, 3)]
    (origin,) = (span for span in spans if span["name"] == "origin")
    children = [span for span in spans if span["parent_id"]]
    assert {span["parent_id"] for span in children} == {origin["span_id"]}
    assert {span["trace_id"] for span in children} == {origin["trace_id"]}
    hosts = [span["attributes"]["host"] for span in children]
    assert hosts.count("worker-host") >= 3  # a batch of data is done on any host
    assert origin["attributes"]["host"] == "client-host"


def test_batches_of_data_are_children_with_the_baggage(found):
    """`ray.data` makes tasks of them; those without a context have none."""
    seen, _ = found
    assert (seen[3], seen[5]) == (["['acme', True]"] * 2, ["[None, False]"] * 2)


def test_a_task_that_was_submitted_in_no_context_has_none(found):
    """It is a trace of its own on the worker's host, with no baggage of the tasks before."""
    seen, spans = found
    assert seen[4] == [4, None, False]
    alone = [span for span in spans if span["name"] == "work" and not span["parent_id"]]
    assert "worker-host" in [span["attributes"]["host"] for span in alone]
    assert (len(alone), len(spans)) == (2, 7)
