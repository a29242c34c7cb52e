"""gradio: events of a small app, under uvicorn, asked for as its own client does."""

from __future__ import annotations

import abc
import asyncio
import gc
import importlib
import json
import sys
import threading

import httpx
import pytest
from fastapi import FastAPI
from opentelemetry import baggage, context, propagate, trace
from suite import WAIT, check_undo
from web import serving

from otel_concurrency import ConcurrencyInstrumentor

# gradio uses what is deprecated, and leaves loops, and streams of anyio, open.
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


class Attach:
    """Does what the instrumentor of ASGI does, without a span of its own."""

    def __init__(self, app):
        self.app = app

    async def __call__(self, scope, receive, send):
        headers = {name.decode(): value.decode() for name, value in scope.get("headers", ())}
        token = context.attach(propagate.extract(headers, context.Context()))
        try:
            await self.app(scope, receive, send)
        finally:
            context.detach(token)


def here():
    """Return what is current."""
    return (
        f"{trace.get_current_span().get_span_context().span_id:x} {baggage.get_baggage('tenant')}"
    )


def function(_):
    """Say what is current, in a thread; leave something there."""
    context.attach(context.set_value("forgotten", 1))
    return here()


async def coroutine(_):
    """Say what is current, in the loop."""
    return here()


def stream(_):
    """Say so twice."""
    yield here()
    yield here()


BASE = "http://{}:{}/app/gradio_api/call/"


@pytest.fixture(scope="module")
def imported():
    """Return gradio, imported while the library is on, and whether it was patched then."""
    assert "gradio" not in sys.modules
    ConcurrencyInstrumentor().instrument()
    gradio = importlib.import_module("gradio")  # it takes seconds
    was_patched = hasattr(gradio.queueing.Event.__init__, "__wrapped__")
    ConcurrencyInstrumentor().uninstrument()
    return gradio, was_patched


@pytest.fixture
def app_of(imported, monkeypatch):
    """Return what makes an app with an event for each function."""
    gradio, _ = imported
    monkeypatch.setenv("GRADIO_ANALYTICS_ENABLED", "False")
    # Twisted's import leaves it there, by zope.interface, and gradio cannot make a component then.
    monkeypatch.delattr(abc.ABC, "__provides__", raising=False)

    def make(*functions, **options):
        with gradio.Blocks(analytics_enabled=False) as blocks:
            given, result, button = gradio.Textbox(), gradio.Textbox(), gradio.Button()
            for one in functions:
                button.click(one, given, result, api_name=one.__name__, **options)
        return Attach(gradio.mount_gradio_app(FastAPI(), blocks, path="/app"))

    asyncio.set_event_loop(loop := asyncio.new_event_loop())  # gradio sets one that nobody closes
    yield make
    asyncio.set_event_loop(None)
    loop.close()
    gc.collect()


@pytest.fixture
def app(app_of):
    """Return an app of three functions."""
    return app_of(function, coroutine, stream)


def send(client, name, headers):
    """Send an event; return its id."""
    return client.post(name, json={"data": ["?"]}, headers=headers).json()["event_id"]


def answers(client, name, event):
    """Wait until an event is handled; return what the function said."""
    lines = client.get(f"{name}/{event}").text.splitlines()
    data = [json.loads(line[6:]) for line in lines if line.startswith("data: ")]
    return {one[0] for one in data if one}


def ask(client, name, headers):
    """Have an event handled; return what the function said."""
    return answers(client, name, send(client, name, headers))


def asked(app, tracer):
    """Return what each function said in each request, and what it should say."""
    said, expected = [], []
    with (
        serving(app) as address,
        httpx.Client(base_url=BASE.format(*address), timeout=WAIT) as client,
    ):
        for tenant in ("acme", None, "umbrella"):
            headers = {}
            if tenant:
                token = context.attach(baggage.set_baggage("tenant", tenant))
                with tracer.start_as_current_span("request"):
                    propagate.inject(headers)
                    expected.append({here()})
                context.detach(token)
            else:
                expected.append({"0 None"})
            said.append([ask(client, one, headers) for one in ("function", "coroutine", "stream")])
    return said, [[one] * 3 for one in expected]


@pytest.mark.decisive
def test_an_event_is_handled_in_its_request(app, instrument, tracer):
    """In a thread, in the loop, and at each step of a stream; nothing is left to the next one."""
    instrument()
    said, expected = asked(app, tracer)
    assert said == expected


@pytest.mark.parametrize("settings", [{"adapters": "-gradio"}, {"asyncio": "off"}], ids=str)
def test_switched_off_nothing_is_carried(settings, app, instrument, tracer):
    """By its name among the adapters, or by its policy."""
    instrument(**settings)
    said, _ = asked(app, tracer)
    assert said == [[{"0 None"}] * 3] * 3


def test_what_is_handled_at_once_is_a_batch(app_of, instrument, tracer):
    """The first event is handled while two others come; their function has one root, and links."""
    begun, go_on, links = threading.Event(), threading.Event(), []

    def together(names):
        with tracer.start_as_current_span("batch") as span:
            links.append([link.context.span_id for link in span.links])
        if not begun.is_set():
            begun.set()
            go_on.wait(WAIT)
        return [names]

    instrument()
    events, spans = [], []
    with (
        serving(app_of(together, batch=True, max_batch_size=2)) as address,
        httpx.Client(base_url=BASE.format(*address), timeout=WAIT) as client,
    ):
        for _ in range(3):
            with tracer.start_as_current_span("request") as span:
                headers = {}
                propagate.inject(headers)
                spans.append(span.get_span_context().span_id)
            events.append(send(client, "together", headers))
            assert begun.wait(WAIT)
        go_on.set()
        for event in events:
            answers(client, "together", event)
    assert links == [[], spans[1:]]


def test_imported_after_the_library_is_switched_on(imported):
    """The order of imports does not matter: for the other tests it was imported before."""
    _, was_patched = imported
    assert was_patched


def test_undo_is_exact(imported):
    """Every attribute that was replaced is what it was, by identity."""
    queueing = imported[0].queueing
    check_undo(queueing.Event, queueing.Queue)
