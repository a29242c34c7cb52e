"""ipyparallel: a cluster of one engine, used with the library on, under `link`, and off."""

from __future__ import annotations

import json

import pytest
from ipyparallel import Client
from ipyparallel.engine.kernel import IPythonParallelKernel
from suite import IN_BOTH_ORDERS, check_undo, run_program

PROGRAM = """
import json, logging, sys
from opentelemetry import baggage, context
from opentelemetry.sdk.trace import TracerProvider
from otel_concurrency import ConcurrencyInstrumentor as I
import ipyparallel

tracer = TracerProvider().get_tracer("tests")

def on():
    from otel_concurrency import ConcurrencyInstrumentor
    ConcurrencyInstrumentor().instrument()

def work(*_):
    from opentelemetry import baggage, context
    from opentelemetry.sdk.trace import TracerProvider
    span = TracerProvider().get_tracer("tests").start_span("work")
    links = [link.context.span_id for link in span.links]
    seen = [span.parent and span.parent.span_id, links, baggage.get_baggage("tenant")]
    left = context.get_value("forgotten")
    context.attach(context.set_value("forgotten", 1))
    return [*seen, left]

def fail(*_):
    raise ValueError("the work's")

ways = {
    "apply": lambda view: view.apply_async(work).get(),
    "map": lambda view: view.map_async(work, [1]).get()[0],
    "sync": lambda view: view.apply_sync(work),
}

def use(views):
    found = []
    for name, view in views.items():
        for way, call in ways.items():
            token = context.attach(baggage.set_baggage("tenant", way))
            with tracer.start_as_current_span("origin") as span:
                seen = call(view)
            context.detach(token)
            after = view.apply_async(work).get()
            if name == "direct":  # it returns what each engine does
                (after,) = after
                seen = seen if way == "map" else seen[0]
            found.append([span.get_span_context().span_id, way, seen, after])
    return found

with ipyparallel.Cluster(n=1, log_level=logging.ERROR) as client:
    views = {"direct": client[:], "balanced": client.load_balanced_view()}
    client[:].apply_sync(on)
    found = {"off before": use(views)}
    for name, settings in {
        "on": {}, "link": {"multiprocessing": "link"}, "policy": {"multiprocessing": "off"},
        "adapter": {"adapters": "-ipyparallel"},
    }.items():
        I().instrument(**settings)
        found[name] = use(views)
        if name == "on":
            try:
                client[0].apply_sync(fail)
            except ipyparallel.RemoteError as error:
                found["error"] = [error.ename, error.evalue]
            found["after a fault"] = client[0].apply_sync(work)
        I().uninstrument()
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """Return what the program has found: for each setting, view and way."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("IPYTHONDIR", str(tmp_path_factory.mktemp("ipython")))
        monkeypatch.setenv("JUPYTER_PLATFORM_DIRS", "1")  # it warns otherwise
        return json.loads(run_program(PROGRAM))


NOTHING = [None, [], None, None]


@pytest.mark.decisive
def test_a_call_is_a_child_with_the_baggage(found):
    """Of every view and way; the next call has nothing of it."""
    assert len(found["on"]) == 6
    for origin, way, seen, after in found["on"]:
        assert (seen, after) == ([origin, [], way, None], NOTHING)


def test_under_link_a_call_is_a_trace_of_its_own(found):
    """It has a link to its origin, and the baggage."""
    for origin, way, seen, after in found["link"]:
        assert (seen, after) == ([None, [origin], way, None], NOTHING)


@pytest.mark.parametrize("how", ["off before", "policy", "adapter"])
def test_switched_off_it_carries_nothing(how, found):
    """Before and after, by the policy, and by the adapter's name."""
    for *_, seen, after in found[how]:
        assert (seen, after) == (NOTHING, NOTHING)


def test_what_a_call_raises_is_raised(found):
    """And nothing is left of it."""
    assert found["error"] == ["ValueError", "the work's"]
    assert found["after a fault"] == NOTHING


@IN_BOTH_ORDERS
def test_imported_before_or_after(first):
    """The order of imports does not matter; metadata of the program's own stays."""
    program = """
from types import SimpleNamespace
from opentelemetry import baggage, context
from ipyparallel import Client
context.attach(baggage.set_baggage("tenant", "acme"))
sent = []
client = SimpleNamespace(
    _closed=False, session=SimpleNamespace(buffer_threshold=1, item_threshold=1),
    _send=lambda *args, metadata, **kwargs: sent.append(metadata),
)
for metadata in ({"mine": 1}, None):
    try:
        Client.send_apply_request(client, None, print, [], {}, metadata)
        Client.send_apply_request(client, None, print, metadata=metadata)
    except AttributeError:
        pass  # what it does afterwards needs a cluster
print([("mine" in one, one["otel_concurrency"]["baggage"]) for one in sent])
"""
    expected = [(True, "tenant=acme"), (False, "tenant=acme")]
    printed = run_program(first.format(module="ipyparallel") + program)
    assert printed == f"{expected}\n"


def test_undo_is_exact():
    """Every attribute that was replaced is what it was, by identity."""
    check_undo(Client, IPythonParallelKernel)
