"""Generators where nobody hears of a suspension: silence, and nobody in a context that is over.

So it is before CPython 3.12, on PyPy, and where all tool ids are taken, as these tests have it on
later versions.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import threading

import pytest
from opentelemetry import trace
from opentelemetry.context import Context, attach, detach, get_current, set_value
from test_generators import found

from interpreters import weak_reference

pytestmark = pytest.mark.usefixtures("unheard")


@pytest.fixture
def unheard(instrumented, monkeypatch):
    """Have no events, on any version."""
    generators = found()
    if generators.suspensions is not None:
        monkeypatch.setattr(generators.suspensions.tool, "watch", lambda _code: False)
    yield generators
    if get_current():
        attach(Context())


def holding(tracer):
    """Hold a span over each yield."""
    with tracer.start_as_current_span("generator"):
        yield 1
        yield 2


async def holding_async(tracer):
    """Hold a span over each yield."""
    with tracer.start_as_current_span("generator"):
        yield 1
        await asyncio.sleep(0)
        yield 2


def by_hand():
    """Attach and detach by hand."""
    token = attach(set_value("whose", "generator"))
    try:
        yield 1
    finally:
        detach(token)


def current_name():
    """Return the name of the span that is current, if there is one."""
    return getattr(trace.get_current_span(), "name", None)


def in_a_thread(work):
    """Run ``work`` in a thread of its own."""
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()


def test_an_exhausted_generator_leaves_its_consumer_where_it_was(tracer):
    """What is detached in order is detached as without the library."""
    with tracer.start_as_current_span("consumer"):
        assert list(holding(tracer)) == [1, 2]
        assert current_name() == "consumer"
    assert not get_current()


@pytest.mark.parametrize("make", [holding, lambda tracer: by_hand()], ids=["span", "by hand"])
def test_one_that_is_closed_in_another_thread_logs_nothing(make, tracer, caplog):
    """Nor does it change what is current there."""
    seen = []

    def close():
        with tracer.start_as_current_span("closing"):
            generator.close()
            seen.append(current_name())

    generator = make(tracer)
    with caplog.at_level(logging.WARNING):
        next(generator)
        in_a_thread(close)
    assert seen == ["closing"]
    assert not caplog.records


def test_one_that_is_closed_in_another_task_logs_nothing(tracer, caplog):
    """Closed by a task, or by the event loop at its end."""

    async def main():
        generators = [holding_async(tracer), holding_async(tracer)]
        for generator in generators:
            await generator.__anext__()
        await asyncio.create_task(generators[0].aclose())

    with caplog.at_level(logging.WARNING):
        asyncio.run(main())
        gc.collect()
    assert not caplog.records


def test_a_consumer_that_has_moved_on_is_not_put_back(tracer):
    """Closing a generator later, in another span, leaves that span current."""
    with tracer.start_as_current_span("first request"):
        generator = holding(tracer)
        next(generator)
    with tracer.start_as_current_span("second request"):
        generator.close()
        assert current_name() == "second request"
    assert not get_current()


def test_nothing_is_kept_of_one_that_never_detaches(unheard):
    """A context that is left attached is free when nobody else has it."""

    class Thing:
        pass

    def careless(thing):
        attach(set_value("thing", thing))
        yield

    thing = Thing()
    reference = weak_reference(thing)
    generator = careless(thing)
    next(generator)
    del thing, generator
    with contextlib.suppress(Exception):
        attach(Context())
    gc.collect()
    assert reference() is None


def test_an_identity_that_is_used_again_means_the_new_token(unheard, tracer):
    """What is attached later is detached, whatever had the identity of its token before."""

    def careless():
        attach(set_value("whose", "generator"))
        yield

    for _ in range(100):
        next(careless())
        attach(Context())
        token = attach(set_value("whose", "consumer"))
        detach(token)
        assert not get_current()
