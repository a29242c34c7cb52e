"""llama-index-workflows: events that are sent to a run, in a loop of its own."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import threading
from concurrent.futures import Future
from typing import Any

import pytest
from opentelemetry import context, trace
from suite import IN_BOTH_ORDERS, WAIT, Calls, check_undo, outside, run_program
from workflows import Workflow, step
from workflows.context import context as contexts
from workflows.errors import WorkflowCancelledByUser
from workflows.events import Event, StartEvent, StopEvent
from workflows.retry_policy import retry_policy, stop_after_attempt, wait_fixed
from workflows.runtime.types import step_function

from otel_concurrency._adapters import _llama_index_workflows as adapter


class Work(Event):
    function: Any
    done: Any


class Blocking(Work):
    """Work for a step that is no coroutine function."""


class Again(Event):
    seen: Any


class Twice(Event):
    seen: Any


def answer(event):
    """Do the work of an event, and say what came of it."""
    try:
        event.done.set_result(event.function())
    except BaseException as error:
        event.done.set_exception(error)


class Shop(Workflow):
    @step
    async def begin(self, _: StartEvent) -> Work | Blocking | Again | Twice | None:
        return None

    @step
    async def work(self, event: Work) -> None:
        answer(event)

    @step
    def block(self, event: Blocking) -> None:
        answer(event)

    @step(retry_policy=retry_policy(wait=wait_fixed(0), stop=stop_after_attempt(3)))
    async def again(self, event: Again) -> StopEvent:
        event.seen.append(trace.get_current_span().get_span_context())
        if len(event.seen) < 3:
            raise ValueError(len(event.seen))
        return StopEvent()

    @step
    async def first(self, event: Twice) -> None:
        event.seen.append(trace.get_current_span().get_span_context())

    @step
    async def second(self, event: Twice) -> None:
        event.seen.append(trace.get_current_span().get_span_context())
        while len(event.seen) < 2:
            await asyncio.sleep(0)
        event.seen[1:1] = ["both"]


class Running:
    """A run in a loop of its own; started in a span, if there is one."""

    def __enter__(self):
        self.ready = Future()
        self.thread = threading.Thread(target=asyncio.run, args=[self.main()])
        self.thread.start()
        self.ready.result(WAIT)
        return self

    async def main(self):
        self.leave, self.loop = asyncio.Event(), asyncio.get_running_loop()
        self.handler = Shop(timeout=None).run()
        self.ready.set_result(None)
        await self.leave.wait()
        await self.handler.cancel_run()
        with contextlib.suppress(WorkflowCancelledByUser):
            await self.handler

    def inside(self, function, *args):
        """Call a function in the loop, in the present context; return what it returns."""
        event = Work(function=lambda: function(*args), done=Future())
        self.loop.call_soon_threadsafe(answer, event)
        return event.done.result(WAIT)

    def send(self, event):
        self.inside(self.handler.ctx.send_event, event)

    def __exit__(self, *_):
        self.loop.call_soon_threadsafe(self.leave.set)
        self.thread.join(WAIT)


class TestSteps(Calls):
    setting = "asyncio"
    kind = Work

    @pytest.fixture(autouse=True)
    def worker(self, instrument):
        with Running() as self.running:
            yield

    def hand_off(self, work):
        event = self.kind(function=work, done=Future())
        self.running.send(event)
        try:
            return event.done.result(WAIT)
        finally:
            del event


class TestStepsInThreads(TestSteps):
    kind = Blocking


@pytest.fixture
def running(instrument, tracer):
    """Return a run that was started in a span."""
    instrument()
    with tracer.start_as_current_span("run"), Running() as started:
        yield started


def test_an_event_that_is_sent_without_a_context_is_the_runs(running):
    """Also if it was sent in a context before."""
    run = trace.get_current_span()
    event = Work(function=trace.get_current_span, done=Future())
    running.send(event)
    event.done.result(WAIT)
    event.done = Future()
    outside(running.send, event)
    assert event.done.result(WAIT) is run


def test_each_attempt_is_in_the_context_of_the_event(running, tracer):
    """A step that failed twice, and a run that was started elsewhere."""
    seen = []
    with tracer.start_as_current_span("origin") as origin:
        running.send(Again(seen=seen))

    async def wait():
        await running.handler

    asyncio.run_coroutine_threadsafe(wait(), running.loop).result(WAIT)
    assert seen == [origin.get_span_context()] * 3


def test_each_step_that_an_event_is_for_is_in_its_context(running, tracer):
    """Not the first of them alone."""
    seen = []
    with tracer.start_as_current_span("origin") as origin:
        running.send(Twice(seen=seen))
    while "both" not in seen:
        running.inside(int)
    assert seen == [origin.get_span_context(), "both", origin.get_span_context()]


def test_nothing_is_remembered_of_an_event_that_is_gone(instrument, tracer):
    """With the run its events are dropped, and what was noted of them."""
    instrument()
    with tracer.start_as_current_span("origin"), Running() as running:
        event = Work(function=int, done=Future())
        running.send(event)
        event.done.result(WAIT)
        key = id(event)
        assert key in adapter._sent
    del running, event
    gc.collect()
    assert key not in adapter._sent


PROGRAM = """
import asyncio
from opentelemetry import context
from workflows import Workflow, step
from workflows.events import Event, StartEvent, StopEvent
class Go(Event):
    pass
class Flow(Workflow):
    @step
    async def begin(self, _: StartEvent) -> Go | None:
        return None
    @step
    async def go(self, _: Go) -> StopEvent:
        return StopEvent(result=context.get_value("key"))
async def main():
    handler = Flow().run()
    await asyncio.sleep(0)
    context.attach(context.set_value("key", "value"))
    handler.ctx.send_event(Go())
    print(await handler)
asyncio.run(main())
"""


@IN_BOTH_ORDERS
def test_imported_before_or_after(first):
    """The order of imports does not matter."""
    assert run_program(first.format(module="workflows") + PROGRAM) == "value\n"


def test_undo_is_exact():
    """Every attribute that was replaced is what it was, by identity."""
    check_undo(contexts.Context, step_function)


def test_what_is_attached_in_a_step_stays_there(running):
    """The run that goes on does not see it."""
    before = running.inside(context.get_current)
    event = Work(function=lambda: context.attach(context.set_value("key", 1)), done=Future())
    running.send(event)
    event.done.result(WAIT)
    assert running.inside(context.get_current) == before
