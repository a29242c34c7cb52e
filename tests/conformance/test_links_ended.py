"""A span that ended long ago is nobody's parent: what is started in its context is linked."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import queue
import socket
import socketserver
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from forms import WAIT, without_context
from item_forms import STOCK
from links import (
    HANDING_OFF,
    MINUTE,
    Recording,
    assert_linked,
    flow_in,
    named,
    start,
    tracer_of,
    work_in,
)
from opentelemetry import baggage, trace
from opentelemetry.context import attach, detach, get_current, set_value
from opentelemetry.sdk.trace import Tracer, TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import INVALID_SPAN_CONTEXT, NonRecordingSpan, SpanContext, TraceFlags

from otel_concurrency import ConcurrencyInstrumentor
from otel_concurrency._core import handoff
from otel_concurrency._linking import origins, span_start


def test_a_span_that_ended_long_ago_is_linked(instrument, tracer, exporter, clock):
    """It is nobody's implicit parent any more; its baggage still is there."""
    instrument()
    origin = tracer.start_span("request")
    flow = flow_in(origin)
    flow.run(lambda: attach(baggage.set_baggage("tenant", "acme")))
    origin.end()
    start(tracer, flow, "at once")
    clock(MINUTE + 1)
    start(tracer, flow)

    spans = named(exporter)
    assert spans["at once"].parent == origin.get_span_context()
    assert_linked(spans["late"], origin, reason="ended")
    assert flow.run(baggage.get_baggage, "tenant") == "acme"


def test_a_span_that_still_runs_stays_the_parent(instrument, tracer, exporter, clock):
    """However long the work has waited."""
    instrument()
    origin = tracer.start_span("request")
    clock(1000 * MINUTE)
    start(tracer, flow_in(origin))
    origin.end()
    assert named(exporter)["late"].parent == origin.get_span_context()


def test_an_explicit_context_stands(instrument, tracer, exporter, clock):
    """It is the caller's word, however old."""
    instrument()
    origin = tracer.start_span("request")
    origin.end()
    clock(2 * MINUTE)
    start(tracer, contextvars.Context(), context=trace.set_span_in_context(origin))
    assert named(exporter)["late"].parent == origin.get_span_context()


@pytest.mark.parametrize(("link_after", "linked"), [(1000, True), (5000, False), (0, False)])
def test_how_long_ago_is_a_setting(link_after, linked, instrument, tracer, exporter, clock):
    """In milliseconds; 0 is never."""
    instrument(link_after=link_after)
    origin = tracer.start_span("request")
    flow = flow_in(origin)
    origin.end()
    clock(2_000_000_000)
    start(tracer, flow)
    assert bool(named(exporter)["late"].links) is linked


def test_a_remote_parent_that_was_attached_here_does_not_grow_old(
    instrument, tracer, exporter, clock
):
    """Whether it still runs is not known here, and this flow has it by the user's word."""
    instrument()
    remote = NonRecordingSpan(SpanContext(1, 2, is_remote=True, trace_flags=TraceFlags(1)))
    flow = flow_in(remote)
    start(tracer, flow, "at once")
    clock(1000 * MINUTE)
    start(tracer, flow)
    assert named(exporter)["late"].parent == remote.get_span_context()


@pytest.mark.parametrize("in_pool", [True, False])
def test_a_hand_off_of_a_remote_parent_grows_old(in_pool, instrument, tracer, exporter, clock):
    """Nobody here sees that parent end: each hand-off is as old as the first span that it made."""
    instrument()
    remote = NonRecordingSpan(SpanContext(1, 2, is_remote=True, trace_flags=TraceFlags(1)))

    def work(number):
        tracer.start_span(f"first {number}").end()
        clock(40_000_000_000)
        tracer.start_span(f"second {number}").end()
        token = attach(set_value("key", "value"))
        clock(40_000_000_000)
        tracer.start_span(f"third {number}").end()
        detach(token)

    def request():
        attach(trace.set_span_in_context(remote))
        for number in range(2):
            if in_pool:
                pool.submit(work, number).result(WAIT)
            else:
                thread = threading.Thread(target=work, args=(number,))
                thread.start()
                thread.join(WAIT)
        assert get_current() == trace.set_span_in_context(remote)

    with ThreadPoolExecutor(1) as pool:
        without_context(request)
        assert not pool.submit(get_current).result(WAIT)
    spans = named(exporter)
    for number in range(2):
        assert spans[f"first {number}"].parent == remote.get_span_context()
        assert spans[f"second {number}"].parent == remote.get_span_context()
        assert_linked(spans[f"third {number}"], remote, reason="ended")


def test_children_of_a_late_span_belong_to_it(instrument, tracer, exporter, clock):
    """Only the root is linked."""
    instrument()
    origin = tracer.start_span("request")
    flow = flow_in(origin)
    origin.end()
    clock(2 * MINUTE)

    def work():
        with tracer.start_as_current_span("late"):
            tracer.start_span("child").end()

    flow.run(work)
    spans = named(exporter)
    assert_linked(spans["late"], origin, reason="ended")
    assert spans["child"].parent == spans["late"].context
    assert not spans["child"].links


def test_the_end_of_a_span_of_no_tracer_raises_nothing_inside(instrument):
    """What traces the program, such as a debugger that stops at exceptions, sees none."""
    instrument()
    seen = []

    def trace_calls(_frame, event, _argument):
        seen.append(event)
        return trace_calls

    before = sys.gettrace()
    sys.settrace(trace_calls)
    try:
        trace.INVALID_SPAN.end()
    finally:
        sys.settrace(before)
    assert "call" in seen
    assert "exception" not in seen


def test_a_span_that_is_not_sampled_ends_like_any_other(instrument, clock):
    """Its class does not know its end; a loop that it started does not stay unsampled for ever."""
    instrument()
    sampler = Recording(ALWAYS_OFF)
    tracer, _ = tracer_of(sampler)
    origin = tracer.start_span("request")
    flow = flow_in(origin)
    clock(2 * MINUTE)
    start(tracer, flow, "running")
    origin.end()
    start(tracer, flow, "at once")
    clock(2 * MINUTE)
    start(tracer, flow)
    assert sampler.asked["running"] == sampler.asked["at once"] == []
    assert [link.context for link in sampler.asked["late"]] == [origin.get_span_context()]


@pytest.mark.parametrize("patched", [True, False])
def test_one_that_is_not_sampled_and_runs_stays_the_parent(
    patched, instrument, monkeypatch, tracer, exporter, clock
):
    """However long its work takes; also where somebody has patched the tracer before us."""
    if patched:
        plain = Tracer.start_span
        patch = lambda self, *args, **kwargs: plain(self, *args, **kwargs)  # noqa: E731
        monkeypatch.setattr(Tracer, "start_span", patch)
    ConcurrencyInstrumentor().instrument()
    sampler = Recording(ALWAYS_OFF)
    tracer, _ = tracer_of(sampler)

    def work():
        tracer.start_span("first").end()
        clock(2 * MINUTE)
        tracer.start_span("second").end()

    def request():
        with tracer.start_as_current_span("request"), ThreadPoolExecutor(1) as pool:
            pool.submit(work).result(WAIT)

    try:
        without_context(request)
    finally:
        ConcurrencyInstrumentor().uninstrument()
    assert sampler.asked["first"] == sampler.asked["second"] == []


def disabled(monkeypatch):
    """Return a tracer that is switched off: its spans are placeholders for their parents."""
    tracer = TracerProvider(shutdown_on_exit=False).get_tracer("disabled")
    name = "_is_enabled" if hasattr(tracer, "_is_enabled") else None
    if name is not None:
        monkeypatch.setattr(tracer, name, lambda: False)
        return tracer
    return trace.NoOpTracer()


def test_the_end_of_a_placeholder_is_not_its_parents(
    instrument, monkeypatch, tracer, exporter, clock
):
    """A tracer that is switched off gives no span that could end."""
    instrument()
    switched_off = disabled(monkeypatch)
    gate = threading.Event()

    def work():
        gate.wait(WAIT)
        tracer.start_span("work").end()

    def request():
        with tracer.start_as_current_span("request") as span:
            with switched_off.start_as_current_span("nothing"):
                thread = threading.Thread(target=work)
                thread.start()
            clock(2 * MINUTE)
            gate.set()
            thread.join(WAIT)
        return span

    origin = without_context(request)
    assert named(exporter)["work"].parent == origin.get_span_context()


class Foreign(NonRecordingSpan):
    """A span of another SDK, which keeps what it is by another name."""

    def __init__(self, context):
        self.own = context

    def get_span_context(self):
        return self.own


def test_a_placeholder_for_a_span_of_another_sdk_has_no_end(instrument, monkeypatch):
    """What a tracer that is switched off gives is told from a span of its own by the span above."""
    instrument()
    parent = Foreign(SpanContext(1, 2, is_remote=False, trace_flags=TraceFlags(1)))
    context = trace.set_span_in_context(parent)
    placeholder = disabled(monkeypatch).start_span("nothing", context)
    # An older API does not know such a parent.
    assert placeholder.get_span_context() in (parent.own, INVALID_SPAN_CONTEXT)
    placeholder.end()
    assert not hasattr(placeholder, "_end_time")
    tracer = TracerProvider(sampler=ALWAYS_OFF, shutdown_on_exit=False).get_tracer("not sampled")
    span = tracer.start_span("work", context)
    assert span._end_time is None
    span.end()
    assert span._end_time is not None


def test_a_consumer_is_done_with_a_span_that_was_not_sampled(instrument, tracer, exporter):
    """Once that has ended, its flow has nothing of its own going, and adopts what it gets."""
    instrument()
    unsampled, _ = tracer_of(ALWAYS_OFF)
    items = queue.Queue()

    def produce():
        with tracer.start_as_current_span("producer") as span:
            items.put(1)
        return span

    producer = without_context(produce)
    request = unsampled.start_span("request")
    flow = flow_in(request)
    request.end()
    flow.run(items.get)
    start(tracer, flow, "handle")
    assert named(exporter)["handle"].parent == producer.get_span_context()


def test_a_replayed_parent_is_as_old_as_its_child_says(instrument, tracer, exporter):
    """Who gives times of his own means those: yesterday's work is one trace."""
    instrument()
    day = time.time_ns() - 24 * 60 * MINUTE
    job = tracer.start_span("job", start_time=day)
    job.end(end_time=day + MINUTE // 2)
    flow = flow_in(job)
    start(tracer, flow, "step", start_time=day + MINUTE)
    start(tracer, flow, "late", start_time=day + 2 * MINUTE)
    spans = named(exporter)
    assert spans["step"].parent == job.get_span_context()
    assert_linked(spans["late"], job, reason="ended")


def test_a_loop_in_a_thread_of_a_remote_parent_grows_old(instrument, tracer, exporter, clock):
    """Also for its tasks, each of which has a copy of the context; a new parent is a new one."""
    instrument()
    remote = NonRecordingSpan(SpanContext(1, 2, is_remote=True, trace_flags=TraceFlags(1)))
    message = NonRecordingSpan(SpanContext(3, 4, is_remote=True, trace_flags=TraceFlags(1)))

    async def serve(name):
        attach(baggage.set_baggage("tenant", "acme"))
        tracer.start_span(name).end()

    async def main():
        await asyncio.create_task(serve("at once"))
        clock(2 * MINUTE)
        await asyncio.create_task(serve("late"))
        with trace.use_span(message):
            tracer.start_span("handle").end()

    def request():
        attach(trace.set_span_in_context(remote))
        thread = threading.Thread(target=lambda: asyncio.run(main()))
        thread.start()
        thread.join(WAIT)

    without_context(request)
    spans = named(exporter)
    assert spans["at once"].parent == remote.get_span_context()
    assert_linked(spans["late"], remote, reason="ended")
    assert spans["handle"].parent == message.get_span_context()
    assert not handoff.ages


def test_no_span_is_marked_but_those_of_the_sdk(instrument, exporter):
    """To end a remote parent, or the span that is none, says nothing of who made it."""
    instrument()
    remote = NonRecordingSpan(SpanContext(1, 2, is_remote=True))
    for span in (remote, trace.INVALID_SPAN):
        before = dict(vars(span))
        span.end()
        assert vars(span) == before


AGES = {"still running": (1000 * MINUTE, False), "just now": (0, True), "long ago": (MINUTE, True)}


@pytest.mark.parametrize("age", AGES)
@pytest.mark.parametrize("form", HANDING_OFF, ids=lambda form: form.name)
def test_work_that_is_late_is_linked(form, age, instrument, tracer, exporter, clock):
    """A parent that runs, or has just ended, is the parent; one that ended long ago is linked."""
    instrument(**form.settings)
    passed, ended = AGES[age]
    gate = threading.Event()
    wait_for = []  # what runs in the flow that hands off does not wait for itself

    def work():
        if threading.current_thread() is not here:
            gate.wait(WAIT)
        late()

    late, seen = work_in(tracer)
    here = threading.current_thread()

    def request(opened):
        attach(baggage.set_baggage("tenant", "acme"))
        with tracer.start_as_current_span("request", end_on_exit=False) as span:
            wait_for.append(opened.hand_off(work))
        return span

    with form() as opened:
        origin = without_context(request, opened)
        if ended:
            origin.end()
        clock(passed + 1_000_000)
        gate.set()
        wait_for.pop().wait()
    if not ended:
        origin.end()

    spans = named(exporter)
    assert seen[0][1] == "acme"
    if age == "long ago":
        assert_linked(spans["work"], origin, reason="ended")
    else:
        assert spans["work"].parent == origin.get_span_context()
        assert not spans["work"].links
    assert spans["child"].parent == spans["work"].context


@pytest.mark.parametrize("age", AGES)
@pytest.mark.parametrize("form", STOCK, ids=lambda form: form.name)
def test_an_item_that_is_late_is_linked(form, age, instrument, tracer, exporter, clock):
    """The same for an item that has waited in a queue."""
    instrument()
    passed, ended = AGES[age]
    items = form.make()
    work, _ = work_in(tracer)

    def request():
        with tracer.start_as_current_span("request", end_on_exit=False) as span:
            items.put_nowait((1,))
        return span

    def consume():
        items.get_nowait()
        work()

    origin = without_context(request)
    if ended:
        origin.end()
    clock(passed + 1_000_000)
    without_context(consume)
    if not ended:
        origin.end()

    spans = named(exporter)
    if age == "long ago":
        assert_linked(spans["work"], origin, reason="ended")
    else:
        assert spans["work"].parent == origin.get_span_context()


# Flows that live on in the request that happened to start them, each serving 20 later requests


def in_a_thread(serve):
    """Serve in a thread of its own; return what wakes it for a request, and what ends it."""
    asked, served = threading.Semaphore(0), threading.Semaphore(0)
    ended = False

    def loop():
        while asked.acquire(timeout=WAIT) and not ended:
            serve()
            served.release()

    def request():
        asked.release()
        assert served.acquire(timeout=WAIT)

    def end():
        nonlocal ended
        ended = True
        asked.release()
        thread.join(WAIT)

    thread = threading.Thread(target=loop, daemon=True)
    thread.start()
    return request, end


def in_a_pool_task(serve):
    """Serve in one long task of a pool."""
    pool = ThreadPoolExecutor(1)
    items: queue.SimpleQueue[threading.Event | None] = queue.SimpleQueue()

    def loop():
        while (done := items.get()) is not None:
            serve()
            done.set()

    def request():
        items.put(done := threading.Event())
        assert done.wait(WAIT)

    def end():
        items.put(None)
        pool.shutdown()

    pool.submit(loop)
    return request, end


class _Handler(socketserver.BaseRequestHandler):
    def handle(self):
        self.server.serve()
        self.request.sendall(b"done")


def in_an_accept_loop(serve):
    """Serve in a server whose ``serve_forever`` the first request started."""
    server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), _Handler)
    server.serve = serve
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()

    def request():
        with socket.create_connection(server.server_address, WAIT) as connection:
            assert connection.recv(4) == b"done"

    def end():
        server.shutdown()
        thread.join(WAIT)
        server.server_close()

    return request, end


def _in_a_loop(start):
    """Run what ``start(loop, asked, serve)`` starts on an event loop, in a task of this flow."""

    def flow(serve):
        loop = asyncio.new_event_loop()
        asked = asyncio.Queue()

        def request():
            async def ask():
                done = loop.create_future()
                asked.put_nowait(done)
                await asyncio.wait_for(done, WAIT)

            contextvars.Context().run(loop.run_until_complete, ask())

        def end():
            for task in asyncio.all_tasks(loop):
                task.cancel()
            loop.run_until_complete(asyncio.sleep(0))
            loop.close()

        async def begin():
            start(loop, asked, serve)

        loop.run_until_complete(begin())
        return request, end

    return flow


def _task(loop, asked, serve):
    async def forever():
        while True:
            done = await asked.get()
            serve()
            done.set_result(None)

    asked.kept = loop.create_task(forever())


def _call_later(loop, asked, serve):
    def tick():
        while not asked.empty():
            done = asked.get_nowait()
            serve()
            done.set_result(None)
        loop.call_later(0.001, tick)

    loop.call_later(0.001, tick)


FLOWS = {
    "thread": in_a_thread,
    "pool task": in_a_pool_task,
    "accept loop": in_an_accept_loop,
    "task": _in_a_loop(_task),
    "call_later chain": _in_a_loop(_call_later),
}


@pytest.mark.parametrize("flow", FLOWS)
def test_a_flow_that_lives_on_serves_later_requests(flow, instrument, tracer, exporter, clock):
    """Each is a trace of its own; the first has a link to the request that started the flow.

    From then on the flow is in no context: it has no more of the baggage either.
    """
    instrument(queue="off", asyncio="off")  # else the items of the queues say who asked
    tenants = []

    def serve():
        with tracer.start_as_current_span("served"):
            tenants.append(baggage.get_baggage("tenant"))
            tracer.start_span("child").end()

    def first():
        attach(baggage.set_baggage("tenant", "acme"))
        with tracer.start_as_current_span("first") as span:
            return span, *FLOWS[flow](serve)

    origin, request, end = without_context(first)
    without_context(request)
    clock(MINUTE + 1_000_000)
    for _ in range(20):
        without_context(request)
    end()

    at_once, *later = (span for span in exporter.get_finished_spans() if span.name == "served")
    if flow == "accept loop":
        assert at_once.parent is None  # its handlers' threads start clean
        assert not any(span.links for span in later)
    else:
        assert at_once.parent == origin.get_span_context()
        assert_linked(later[0], origin, reason="ended")
        assert [(span.parent, span.links) for span in later[1:]] == [(None, ())] * 19
        assert tenants == ["acme"] + [None] * 20
    assert len(later) == 20
    assert len({span.context.trace_id for span in later}) == 20
    children = [span for span in exporter.get_finished_spans() if span.name == "child"]
    assert [span.parent for span in children] == [span.context for span in (at_once, *later)]


def test_a_real_wait_makes_a_parent_old(instrument, tracer, exporter):
    """The same without a clock of the test's."""
    instrument(link_after=50)
    started = threading.Event()
    go_on = threading.Event()

    def loop():
        tracer.start_span("at once").end()
        started.set()
        go_on.wait(WAIT)
        tracer.start_span("late").end()

    def request():
        with tracer.start_as_current_span("request") as span:
            thread = threading.Thread(target=loop)
            thread.start()
            assert started.wait(WAIT)
        return span, thread

    origin, thread = without_context(request)
    time.sleep(0.1)
    go_on.set()
    thread.join(WAIT)
    spans = named(exporter)
    assert spans["at once"].parent == origin.get_span_context()
    assert_linked(spans["late"], origin, reason="ended")


def test_a_record_that_is_logged_before_the_first_span_has_no_trace(instrument, tracer, exporter):
    """The work has left its origin's trace: what it logs is not found there."""
    instrument(policy="link")
    ids = {}

    class Handler(logging.Handler):
        """Reads what every handler and instrumentor of OpenTelemetry's reads."""

        def emit(self, record):
            ids[record.getMessage()] = trace.get_current_span().get_span_context().trace_id

    handler = Handler()
    logger = logging.getLogger("links")
    logger.addHandler(handler)

    def work():
        logger.warning("before")
        with tracer.start_as_current_span("work"):
            logger.warning("inside")

    def request():
        with tracer.start_as_current_span("request"), ThreadPoolExecutor(1) as pool:
            logger.warning("request")
            pool.submit(work).result(WAIT)

    try:
        without_context(request)
    finally:
        logger.removeHandler(handler)
    spans = named(exporter)
    assert ids == {
        "request": spans["request"].context.trace_id,
        "before": 0,
        "inside": spans["work"].context.trace_id,
    }


def test_a_span_of_today_costs_no_clock(instrument, tracer, monkeypatch):
    """The clock is read only where a parent has ended."""
    instrument()

    class Broken:
        @staticmethod
        def time_ns():
            raise AssertionError("the clock was read")

    monkeypatch.setattr(origins, "time", Broken)
    with tracer.start_as_current_span("request"):
        tracer.start_span("child").end()
    assert span_start.link_after == MINUTE
