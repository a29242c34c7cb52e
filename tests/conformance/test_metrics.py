"""What is counted and measured of hand-offs, for who asks for it, and that nobody else pays."""

from __future__ import annotations

import _thread
import asyncio
import contextlib
import contextvars
import inspect
import multiprocessing
import os
import queue
import sched
import subprocess
import sys
import sysconfig
import threading
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing.pool import ThreadPool
from pathlib import Path

import process_work
import pytest
from forms import FORMS, Enter, Submit, ThreadTarget, without_context
from item_forms import FORMS as ITEM_FORMS
from opentelemetry import baggage, metrics
from opentelemetry import context as context_api
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import Tracer, TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON
from opentelemetry.trace import (
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    TraceFlags,
    set_span_in_context,
)

from otel_concurrency import ConcurrencyInstrumentor, _primitives
from otel_concurrency._core import handoff
from otel_concurrency._items import adoption

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")

WAIT = 60
BY = "otel_concurrency.primitive"
CARRIED = "otel_concurrency.context_carried"
ROOT = ("span_kind", "started_in", "linked")

PATCHED = [form for form in FORMS if form.setting is not None]
EXACT = [form for form in ITEM_FORMS if form.exact]


class Meters:
    """A provider of meters, and what it was told of hand-offs."""

    def __init__(self):
        self.reader = InMemoryMetricReader()
        self.provider = MeterProvider([self.reader])

    def collect(self):
        """Return the metrics of the library by name."""
        data = self.reader.get_metrics_data()
        resources = data.resource_metrics if data else ()
        return {
            metric.name: metric
            for resource in resources
            for scope in resource.scope_metrics
            if scope.scope.name == "otel_concurrency"
            for metric in scope.metrics
        }

    def _points(self, name):
        metric = self.collect().get(name)
        return metric.data.data_points if metric else ()

    def counts(self):
        """Return the number of hand-offs by primitive, and whether a context was carried."""
        points = self._points("otel_concurrency.hand_offs")
        return {(p.attributes[BY], p.attributes[CARRIED]): p.value for p in points}

    def roots(self):
        """Return the number of root spans by kind, place, and whether they are linked."""
        points = self._points("otel_concurrency.root_spans")
        return {
            tuple(p.attributes[f"otel_concurrency.{name}"] for name in ROOT): p.value
            for p in points
        }

    def waits(self):
        """Return the number of waits that were measured, and their sum, by primitive."""
        points = self._points("otel_concurrency.hand_off.wait")
        return {p.attributes[BY]: (p.count, p.sum) for p in points}


@pytest.fixture
def meters():
    """Return a provider of meters of its own."""
    meters = Meters()
    yield meters
    meters.provider.shutdown()


@pytest.fixture
def measured(instrument, meters):
    """Switch the library on, with metrics; return what they say."""
    instrument(metrics=True, meter_provider=meters.provider)
    return meters


def measure(instrument, meters, **settings):
    """Switch the library on with metrics and ``settings``."""
    instrument(metrics=True, meter_provider=meters.provider, **settings)


@pytest.mark.parametrize("kind", PATCHED, ids=lambda form: form.name)
@pytest.mark.parametrize("policy", ["parent", "link"])
def test_every_form_of_call_is_counted_and_its_wait_measured(
    kind, policy, instrument, meters, tracer
):
    """One hand-off with a context, one without, and the wait of the one with."""
    measure(instrument, meters, **{"policy": policy, **kind.settings})
    with kind() as form:
        before = meters.counts()
        waited = meters.waits()

        with tracer.start_as_current_span("origin"):
            form.hand_off(int).wait()
        without_context(lambda: form.hand_off(int).wait())

    after = meters.counts()
    more = {key: after[key] - before.get(key, 0) for key in after}
    assert more[kind.setting, True] == 1
    assert more[kind.setting, False] >= 1
    count, seconds = meters.waits()[kind.setting]
    assert count - waited.get(kind.setting, (0, 0))[0] == more[kind.setting, True]
    assert seconds > 0


@pytest.mark.parametrize("kind", [ThreadTarget, Submit, Enter], ids=lambda form: form.name)
def test_a_hand_off_is_counted_once(kind, measured, tracer):
    """Whatever it is made of inside."""
    with kind() as form, tracer.start_as_current_span("origin"):
        form.hand_off(int).wait()
    assert {key: n for key, n in measured.counts().items() if key[1]} == {(kind.setting, True): 1}
    assert {primitive: n for primitive, (n, _) in measured.waits().items()} == {kind.setting: 1}


@pytest.mark.parametrize("form", EXACT, ids=repr)
@pytest.mark.parametrize("policy", ["parent", "link"])
def test_every_item_is_counted_and_its_wait_measured(form, policy, instrument, meters, spans):
    """Each item once, where it is put; its wait, where its consumer adopts it."""
    measure(instrument, meters, policy=policy)
    items = form.make()

    for place, name in enumerate([None, "a", None, "b"]):
        form.put_under(spans, name, items, (place, 1))
    got = [without_context(form.get, items) for _ in range(4)]

    assert sorted(got) == [(place, 1) for place in range(4)]
    assert meters.counts() == {(form.setting, True): 2, (form.setting, False): 2}
    assert meters.waits()[form.setting][0] == 2


@pytest.mark.parametrize("form", EXACT, ids=repr)
def test_items_have_their_contexts_all_the_same(form, measured, spans):
    """With metrics a consumer adopts what it adopts without."""
    items, seen = form.make(), {}

    def consume():
        for _ in range(4):
            place, _ = form.get(items)
            seen[place] = spans.parent()

    for place, name in enumerate(["a", None, "b", "b"]):
        form.put_under(spans, name, items, (place, 1))
    without_context(consume)

    assert seen == {0: "a", 1: None, 2: "b", 3: "b"}


def test_an_item_that_is_not_adopted_does_not_arrive(measured, tracer):
    """A consumer inside a span of its own adopts nothing, so there is no wait."""
    items = queue.Queue()
    with tracer.start_as_current_span("producer"):
        items.put(1)
    with tracer.start_as_current_span("consumer"):
        items.get()
    assert measured.counts() == {("queue", True): 1}
    assert measured.waits() == {}


def test_a_wait_is_the_time_on_the_way(measured, tracer):
    """In seconds: an action has waited since it was entered, until the scheduler came to it."""
    now = time.perf_counter
    ran, scheduler = [], sched.scheduler(now)
    before = now()
    with tracer.start_as_current_span("origin"):
        due = scheduler.enter(0.05, 1, lambda: ran.append(now())).time
    entered = now()
    scheduler.run()
    count, seconds = measured.waits()["sched"]
    assert count == 1
    assert due - entered <= seconds <= ran[0] - before


def test_work_that_is_cancelled_does_not_arrive(measured, tracer):
    """It was handed off, and has not waited to any end."""
    with ThreadPoolExecutor(1) as pool:
        go, running = threading.Event(), threading.Event()
        pool.submit(lambda: (running.set(), go.wait(WAIT)))
        assert running.wait(WAIT)
        with tracer.start_as_current_span("origin"):
            assert pool.submit(int).cancel()
        go.set()
    assert measured.counts()["futures", True] == 1
    assert "futures" not in measured.waits()


def test_what_crosses_to_a_process_is_counted_where_it_is_sent(measured, tracer):
    """Once for each, and its wait is not measured: it ends where nobody here sees it."""

    def hand_off():
        context = multiprocessing.get_context("fork")
        process = context.Process(target=int)
        process.start()
        process.join(WAIT)
        with ProcessPoolExecutor(1, context) as executor:
            executor.submit(int).result(WAIT)
        with context.Pool(1) as pool:
            pool.apply(int)
            pool.map(str, range(10))
        items = context.Queue()
        items.put(1)
        items.get(timeout=WAIT)
        items.close()
        items.join_thread()
        simple = context.SimpleQueue()
        simple.put(1)
        simple.get()
        simple.close()

    with tracer.start_as_current_span("origin"):
        hand_off()
    counted = {key: n for key, n in measured.counts().items() if key[0] == "multiprocessing"}
    assert counted == {("multiprocessing", True): 6}
    hand_off()
    assert measured.counts()["multiprocessing", True] == 6
    assert measured.counts()["multiprocessing", False] == 6
    assert "multiprocessing" not in measured.waits()


def test_a_command_is_counted(instrument, meters, tracer):
    """Under the setting that hands the context on to commands."""
    measure(instrument, meters, subprocess="parent")
    with tracer.start_as_current_span("origin"):
        subprocess.run([sys.executable, "-S", "-c", ""], check=True, timeout=WAIT)
    assert meters.counts()["subprocess", True] == 1


def test_threads_that_belong_to_nobody_are_no_hand_offs(measured, tracer):
    """A pool's workers start clean, by design: that is no context lost."""
    for _ in range(2):
        with ThreadPoolExecutor(1) as pool:
            pool.submit(int).result(WAIT)
    assert measured.counts() == {("futures", False): 2}
    with tracer.start_as_current_span("origin"), ThreadPoolExecutor(1) as pool:
        pool.submit(int).result(WAIT)
    assert measured.counts() == {("futures", False): 2, ("futures", True): 1}


def test_what_the_sdk_does_for_itself_is_not_counted(measured):
    """A provider asks in a pool what it runs on, which is nothing that the program hands off."""
    with ThreadPoolExecutor(1) as executor:
        executor.submit(TracerProvider).result(WAIT).shutdown()
    MeterProvider().shutdown()
    assert measured.counts() == {("futures", False): 1}


def test_what_is_excluded_is_not_counted(instrument, meters, tracer):
    """Neither with a context nor without."""
    measure(instrument, meters, excluded="process_work.returns")
    with ThreadPoolExecutor(1) as pool:
        pool.submit(process_work.returns, 1).result(WAIT)
        with tracer.start_as_current_span("origin"):
            pool.submit(process_work.returns, 1).result(WAIT)
    assert meters.counts() == {}


def test_names_units_and_descriptions(measured, tracer):
    """They are as documented, and the histogram's buckets suit seconds."""
    with Submit() as form, tracer.start_as_current_span("origin"):
        form.hand_off(int).wait()
    found = measured.collect()
    assert {name: metric.unit for name, metric in found.items()} == {
        "otel_concurrency.hand_offs": "{hand_off}",
        "otel_concurrency.hand_off.wait": "s",
        "otel_concurrency.root_spans": "{span}",
    }
    assert all(metric.description for metric in found.values())
    assert found["otel_concurrency.hand_offs"].data.is_monotonic
    page = (Path(__file__).parents[2] / "docs" / "metrics.md").read_text(encoding="utf-8")
    attributes = (BY, CARRIED, *(f"otel_concurrency.{name}" for name in ROOT))
    for word in (*found, "s", "{hand_off}", "{span}", *attributes):
        assert f"`{word}`" in page
    for place in PLACES:
        assert f"`{place}`" in page


def _in_a_thread(work):
    thread = threading.Thread(target=work)
    thread.start()
    thread.join(WAIT)


def _in_a_thread_of_no_module(work):
    done = threading.Event()
    _thread.start_new_thread(lambda: (work(), done.set()), ())
    assert done.wait(WAIT)


def _in_a_timer(work):
    timer = threading.Timer(0, work)
    timer.start()
    timer.join(WAIT)


def _in_a_pool(work):
    with ThreadPoolExecutor(1) as pool:
        pool.submit(work).result(WAIT)


def _in_a_thread_pool_of_multiprocessing(work):
    with ThreadPool(1) as pool:
        pool.apply(work)


def _in_a_scheduler(work):
    scheduler = sched.scheduler()
    scheduler.enter(0, 1, work)
    scheduler.run()


def _in_a_task(work):
    async def main():
        work()

    asyncio.run(main())


def _in_a_callback(work, schedule=lambda loop, call: loop.call_soon(call)):
    loop = asyncio.new_event_loop()
    schedule(loop, lambda: (work(), loop.stop()))
    loop.run_forever()
    loop.close()


def _in_a_timer_of_a_loop(work):
    _in_a_callback(work, lambda loop, call: loop.call_later(0, call))


def _with_an_item(work):
    items = queue.Queue()
    token = context_api.attach(baggage.set_baggage("tenant", "a"))
    items.put(1)
    context_api.detach(token)
    items.get()
    work()
    items.task_done()


PLACES = {
    "main": [lambda work: work()],
    "thread": [_in_a_thread, _in_a_thread_of_no_module],
    "pool_task": [_in_a_pool, _in_a_thread_pool_of_multiprocessing],
    "timer": [_in_a_timer, _in_a_scheduler, _in_a_timer_of_a_loop],
    "task": [_in_a_task],
    "callback": [_in_a_callback],
    "item": [_with_an_item],
    "process": [],
}


@pytest.mark.parametrize(
    ("place", "run"), [(place, run) for place, all_runs in PLACES.items() for run in all_runs]
)
def test_a_root_span_is_counted_by_the_work_it_starts_in(place, run, measured, tracer):
    """The place is that of the innermost work; the root's kind is counted, and no child of it."""

    def work():
        with tracer.start_as_current_span("root", kind=SpanKind.CLIENT):
            tracer.start_span("child").end()

    run(work)
    assert measured.roots() == {("client", place, False): 1}


def test_a_root_span_in_a_process_is_counted_there(measured, tracer):
    """A child process begins at zero, and its target is work of its own kind."""
    tracer.start_span("of the parent").end()
    reading, writing = multiprocessing.Pipe(duplex=False)

    def work():
        tracer.start_span("root").end()
        writing.send(measured.roots())

    process = multiprocessing.get_context("fork").Process(target=work)
    process.start()
    assert reading.poll(WAIT)
    assert reading.recv() == {("internal", "process", False): 1}
    process.join(WAIT)


@pytest.mark.parametrize("sampler", [ALWAYS_ON, ALWAYS_OFF], ids=["sampled", "not sampled"])
def test_what_is_no_root_is_not_counted(sampler, measured):
    """A child of a local or a remote span is none, and whether it is sampled changes nothing."""
    tracer = TracerProvider(sampler).get_tracer("tests")
    remote = SpanContext(1, 1, is_remote=True, trace_flags=TraceFlags(1))
    parent = set_span_in_context(NonRecordingSpan(remote))
    with tracer.start_as_current_span("child", parent, kind=SpanKind.SERVER):
        tracer.start_span("grandchild").end()
    assert measured.roots() == {}
    with tracer.start_as_current_span("root", kind=SpanKind.SERVER):
        tracer.start_span("child").end()
    assert measured.roots() == {("server", "main", False): 1}


def test_a_linked_root_is_told_from_a_lost_one(instrument, meters, tracer):
    """Under `link` each hand-off starts a trace: that is no context lost."""
    measure(instrument, meters, policy="link")
    with tracer.start_as_current_span("origin"):
        _in_a_pool(lambda: tracer.start_span("work").end())
    assert meters.roots() == {
        ("internal", "main", False): 1,
        ("internal", "pool_task", True): 1,
    }


def test_roots_are_counted_where_nothing_is_carried(instrument, meters, tracer):
    """With every primitive off, the work that has lost its context is counted as such."""
    measure(instrument, meters, policy="off", link_after=0)
    with tracer.start_as_current_span("origin"):
        _in_a_pool(lambda: contextvars.Context().run(tracer.start_span, "work").end())
    assert meters.roots()["internal", "pool_task", False] == 1


def test_roots_of_a_tracer_that_others_have_wrapped_are_counted(instrument, meters, tracer):
    """Another library's `start_span` with a signature of its own gets its arguments as ever."""
    original = Tracer.start_span
    Tracer.start_span = lambda self, *args, **kwargs: original(self, *args, **kwargs)
    try:
        measure(instrument, meters)
        tracer.start_span("root", None, SpanKind.PRODUCER).end()
        ConcurrencyInstrumentor().uninstrument()
    finally:
        Tracer.start_span = original
    assert meters.roots() == {("producer", "main", False): 1}


def has_advice():
    """Whether this version of the API lets the maker of a histogram say what its buckets are."""
    create = metrics.Meter.create_histogram
    return "explicit_bucket_boundaries_advisory" in inspect.signature(create).parameters


if has_advice():

    def test_the_buckets_suit_seconds(measured, tracer):
        """Most of them are below one."""
        with Submit() as form, tracer.start_as_current_span("origin"):
            form.hand_off(int).wait()
        (point,) = measured._points("otel_concurrency.hand_off.wait")
        assert len([bound for bound in point.explicit_bounds if bound < 1]) > 5


def test_a_fork_counts_for_itself(measured):
    """A forked child begins at zero: its parent reports its own."""
    queue.Queue().put(1)
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        with contextlib.suppress(BaseException):
            queue.Queue().put(1)
            queue.Queue().put(1)
            counts = measured.counts()
            os.write(writing, str(counts["queue", False]).encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as told:
        assert told.read() == "2"
    os.waitpid(child, 0)
    assert measured.counts() == {("queue", False): 1}


def test_a_hand_off_while_metrics_are_collected(measured, tracer):
    """It waits for nothing: also a callback of the program's may hand work off."""
    items = queue.SimpleQueue()

    def observe(_):
        with tracer.start_as_current_span("origin"):
            items.put(1)
        without_context(items.get)
        return []

    meter = measured.provider.get_meter("program")
    meter.create_observable_gauge("of.the.program", [observe])
    collected = threading.Thread(target=measured.counts, daemon=True)
    collected.start()
    collected.join(WAIT)
    assert not collected.is_alive()
    assert measured.counts()["queue", True] >= 1


class HandingOff(metrics.NoOpMeterProvider):
    """A provider whose histograms hand off work themselves, or raise."""

    def __init__(self, record):
        self._record = record

    def get_meter(self, name, *args, **kwargs):
        record = self._record

        class Histogram(metrics.NoOpHistogram):
            def record(self, *args, **kwargs):
                record()

        class Meter(metrics.NoOpMeter):
            def create_histogram(self, name, unit="", description="", **kwargs):
                return Histogram(name, unit, description)

        return Meter(name)


def test_what_measures_is_not_measured(instrument, tracer):
    """Work that the recording of a wait hands off itself is not recorded in turn."""
    recorded = []

    def hand_off():
        items = queue.SimpleQueue()
        with tracer.start_as_current_span("origin"):
            items.put(1)
        without_context(items.get)

    def record():
        recorded.append(1)
        hand_off()

    instrument(metrics=True, meter_provider=HandingOff(record))
    hand_off()
    assert recorded == [1]


def test_a_provider_that_raises_does_not_hurt_the_program(instrument, tracer, caplog):
    """It is reported once, and the work runs in its context."""

    def fail():
        raise RuntimeError("no disk")

    instrument(metrics=True, meter_provider=HandingOff(fail))
    with Submit() as form, tracer.start_as_current_span("origin") as span:
        for _ in range(2):
            handle = form.hand_off(lambda: tracer.start_span("work").parent)
            handle.wait()
            assert handle.result() == span.get_span_context()
    (warning,) = [r for r in caplog.records if r.name.startswith("otel_concurrency")]
    assert "no disk" in warning.getMessage()


def test_off_nothing_is_there_that_could_cost_anything(instrument):
    """Seams and hot path are what they are without, and the file with metrics is not imported."""
    attach = handoff.attach
    instrument()
    assert (handoff.attach, adoption.attach) == (attach, attach)
    assert attach == handoff._runtime()[1]
    for name in _primitives.NAMES:
        seam = handoff.seams.get(name)
        if seam is not None:
            assert seam.current is handoff.get_current
            assert seam.concerned is handoff.get_current
    program = (
        "import sys; from otel_concurrency import ConcurrencyInstrumentor;"
        "ConcurrencyInstrumentor().instrument();"
        "sys.exit(bool(sys.modules.keys() & {'otel_concurrency._metrics', "
        "'otel_concurrency._orphans', 'otel_concurrency._linking.root_places'}))"
    )
    environment = {k: v for k, v in os.environ.items() if not k.startswith("OTEL_")}
    subprocess.run([sys.executable, "-c", program], check=True, timeout=WAIT, env=environment)


def test_undone_they_leave_nothing(meters, tracer):
    """What they have replaced is what it was, by identity, and nothing is counted any more."""
    before = handoff.attach, adoption.attach
    instrumentor = ConcurrencyInstrumentor()
    instrumentor.instrument(metrics=True, meter_provider=meters.provider)
    try:
        assert handoff.attach is not before[0]
        assert adoption.attach is not before[1]
        items = queue.Queue()
        items.put(1)
    finally:
        instrumentor.uninstrument()
    assert (handoff.attach, adoption.attach) == before
    items.put(2)
    instrumentor.instrument()
    try:
        with tracer.start_as_current_span("origin"):
            items.put(3)
            queue.Queue().put(4)
    finally:
        instrumentor.uninstrument()
    assert meters.counts() == {("queue", False): 1}


def test_switched_on_again_they_go_on(meters, tracer):
    """The counter of a provider never falls: it goes on where it was."""
    instrumentor = ConcurrencyInstrumentor()
    for _ in range(2):
        instrumentor.instrument(metrics=True, meter_provider=meters.provider)
        try:
            with Submit() as form, tracer.start_as_current_span("origin"):
                form.hand_off(int).wait()
        finally:
            instrumentor.uninstrument()
    assert meters.counts() == {("futures", True): 2}
    assert meters.waits()["futures"][0] == 2


def test_asked_for_by_the_environment_they_are_exported(tmp_path):
    """Under `opentelemetry-instrument`, by the provider that this configures."""
    program = tmp_path / "program.py"
    program.write_text("import queue\nqueue.Queue().put(1)\n")
    kept = {key: value for key, value in os.environ.items() if not key.startswith("OTEL_")}
    finished = subprocess.run(
        [
            Path(sysconfig.get_path("scripts"), "opentelemetry-instrument"),
            "--concurrency_metrics",
            "true",
            sys.executable,
            program,
        ],
        env=kept
        | {
            "OTEL_METRICS_EXPORTER": "console",
            "OTEL_TRACES_EXPORTER": "none",
            "OTEL_LOGS_EXPORTER": "none",
        },
        capture_output=True,
        text=True,
        timeout=WAIT,
        check=True,
    )
    assert '"otel_concurrency.hand_offs"' in finished.stdout
