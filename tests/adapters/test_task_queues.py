"""taskiq and procrastinate, whose workers are tasks of asyncio: their pools need no adapter."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

import pytest
from opentelemetry import baggage, context, trace
from procrastinate import App
from procrastinate.testing import InMemoryConnector
from suite import outside
from taskiq import InMemoryBroker
from taskiq.middlewares.opentelemetry_middleware import OpenTelemetryMiddleware

WAIT = 20


class Work:
    """Looks around in a task, in a pool's thread and in the loop's, and leaves something behind."""

    def __init__(self, tracer):
        self.tracer, self.seen, self.pool = tracer, [], None

    def look(self):
        span = trace.get_current_span().get_span_context().span_id
        return span, baggage.get_baggage("tenant"), context.get_value("forgotten")

    async def task(self):
        loop = asyncio.get_running_loop()
        ways = [
            self.look(),
            await loop.run_in_executor(self.pool, self.look),
            await loop.run_in_executor(None, self.look),
        ]
        context.attach(context.set_value("forgotten", 1))
        self.seen.append(ways)

    def function(self):
        self.seen.append([self.look()])
        context.attach(context.set_value("forgotten", 1))


def functions(work):
    """Return ways to do the work; brokers put attributes on what they are given."""

    async def task():
        await work.task()

    def function():
        work.function()

    return {"task": task, "function": function}


@pytest.fixture
def work(tracer, instrument):
    """Return work to do, with the library on."""
    instrument()
    work = Work(tracer)
    with ThreadPoolExecutor(1) as work.pool:
        yield work


def spans_by_id(exporter):
    """Return all spans, by their ids."""
    return {span.context.span_id: span for span in exporter.get_finished_spans()}


@pytest.mark.parametrize("name", ["task", "function"])
def test_a_task_of_taskiq_is_one_trace_with_its_sender(name, work, tracer, exporter):
    """By its own middleware, each span once, and in all that it hands on; nothing is left."""

    async def main():
        middleware = OpenTelemetryMiddleware(tracer=tracer)
        broker = InMemoryBroker().with_middlewares(middleware)
        task = broker.register_task(functions(work)[name], task_name="work")
        with tracer.start_as_current_span("starter"):
            await broker.startup()
        for tenant in ("acme", "umbrella", None):
            token = context.attach(baggage.set_baggage("tenant", tenant) if tenant else {})
            with tracer.start_as_current_span(f"origin of {tenant}"):
                sent = await task.kiq()
            context.detach(token)
            await sent.wait_result(timeout=WAIT)
        sent = await task.kiq()
        await sent.wait_result(timeout=WAIT)
        await broker.shutdown()

    outside(asyncio.run, main())
    spans = spans_by_id(exporter)
    for tenant, ways in zip(("acme", "umbrella", None, None), work.seen, strict=True):
        assert len({found[0] for found in ways}) == 1
        assert {found[1:] for found in ways} == {(tenant, None)}
    names = []
    for ways in work.seen:
        me, path = ways[0][0], []
        while me is not None:
            path.append(spans[me].name)
            me = spans[me].parent and spans[me].parent.span_id
        names.append(path)
    steps = ["execute/work", "send/work"]
    assert names == [
        *([*steps, f"origin of {tenant}"] for tenant in ("acme", "umbrella", None)),
        steps,
    ]
    assert len(spans) == 4 * 2 + 3 + 1


@pytest.mark.parametrize("name", ["task", "function"])
def test_a_job_of_procrastinate_is_in_no_stale_context(name, work, tracer):
    """It carries nothing; a job's own span is carried to what the job hands on."""

    async def main():
        app = App(connector=InMemoryConnector())
        task = app.task(functions(work)[name], name="work")
        async with app.open_async():
            for tenant in ("acme", "umbrella"):
                token = context.attach(baggage.set_baggage("tenant", tenant))
                with tracer.start_as_current_span("origin"):
                    await task.defer_async()
                context.detach(token)
            await app.run_worker_async(wait=False, concurrency=1)

    outside(asyncio.run, main())
    assert len(work.seen) == 2
    assert {found for ways in work.seen for found in ways} == {(0, None, None)}


def test_what_a_job_of_procrastinate_hands_on_is_in_its_span(work, tracer):
    """Its own span and baggage are carried to a pool's thread, and to the loop's."""
    ids = []

    async def job():
        context.attach(baggage.set_baggage("tenant", "acme"))
        with tracer.start_as_current_span("job") as span:
            ids.append(span.get_span_context().span_id)
            await work.task()

    async def main():
        app = App(connector=InMemoryConnector())
        task = app.task(job, name="job")
        async with app.open_async():
            await task.defer_async()
            await app.run_worker_async(wait=False)

    outside(asyncio.run, main())
    assert work.seen == [[(ids[0], "acme", None)] * 3]
