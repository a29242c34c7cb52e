"""Root spans in work that was handed off inside a span are logged, where a setting asks for it."""

from __future__ import annotations

import contextvars
import functools
import gc
import inspect
import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import thread as pools

import pytest
from opentelemetry.context import Context
from opentelemetry.trace import SpanKind

from otel_concurrency import ConcurrencyInstrumentor, _orphans

WAIT = 20
FILE = "tests/conformance/test_orphans.py"
LOST = {"threading": "off", "futures": "off", "report_orphans": True}


@pytest.fixture(autouse=True)
def _anew():
    """Have every place reported as if for the first time."""
    _orphans.forget()


@pytest.fixture
def lines(caplog):
    """Return what was logged about orphans, with every line number of this file as `N`."""

    def lines():
        found = [r.getMessage() for r in caplog.records if r.name == _orphans.__name__]
        return [re.sub(rf"[^\s(]*{FILE}:\d+", "here:N", line) for line in found]

    return lines


def in_a_thread(work, **kwargs):
    """Run `work` in a thread of its own."""
    thread = threading.Thread(target=work, **kwargs)
    thread.start()
    thread.join(WAIT)


def in_a_timer(work):
    """Run `work` in a timer."""
    timer = threading.Timer(0, work)
    timer.name = "the timer"
    timer.start()
    timer.join(WAIT)


def in_a_pool(work):
    """Run `work` in a pool."""
    with ThreadPoolExecutor(1, "pool") as pool:
        pool.submit(work).result(WAIT)


def charge(tracer, **kwargs):
    """Start a span where nothing is current, also if something else has carried a context here."""
    contextvars.Context().run(lambda: tracer.start_span("charge_card", **kwargs).end())


def charge_in_its_context(tracer, **kwargs):
    """Start a span, as the work that is handed off does."""
    tracer.start_span("charge_card", **kwargs).end()


STARTED = {
    "thread": (
        lambda work: in_a_thread(work, name="worker-3"),
        "thread `worker-3`, which was started at",
    ),
    "timer": (in_a_timer, "thread `the timer`, which was started at"),
    "pool": (in_a_pool, "thread `pool_0`, in a task that was submitted at"),
}


# OpenTelemetry's instrumentor gives `Timer` a `start` that calls none which was replaced later.
@pytest.mark.parametrize("run", ["thread", pytest.param("timer", marks=pytest.mark.alone), "pool"])
def test_an_orphan_is_logged_with_where_its_work_was_started(run, instrument, tracer, lines):
    """One line names the span, its thread, the hand-off and the span around that."""
    instrument(**LOST)
    hand_off, way = STARTED[run]
    with tracer.start_as_current_span("POST /orders"):
        hand_off(lambda: charge(tracer))
    assert lines() == [
        f"span `charge_card` (here:N) started a trace of its own on {way} here:N inside "
        "`POST /orders`: `otel-concurrency trace` tells why"
    ]


def test_the_lines_are_those_of_the_program(instrument, tracer, caplog):
    """The first is where the span is started, the second where the thread is."""
    instrument(**LOST)
    thread = threading.Thread(target=charge, args=[tracer])
    with tracer.start_as_current_span("POST /orders"):
        here = inspect.currentframe().f_lineno + 1
        thread.start()
    thread.join(WAIT)
    (record,) = [r for r in caplog.records if r.name == _orphans.__name__]
    span = charge.__code__.co_firstlineno + 2
    assert re.findall(rf"{FILE}:(\d+)", record.getMessage()) == [str(span), str(here)]


@pytest.mark.parametrize("run", [STARTED["thread"][0], in_a_pool])
@pytest.mark.parametrize(
    "settings",
    [
        {"report_orphans": True},
        {"report_orphans": True, "policy": "link"},
        {**LOST, "excluded": f"{__name__}.excluded"},
        {**LOST, "report_orphans": False},
    ],
    ids=["carried", "linked", "excluded", "off"],
)
def test_what_has_lost_nothing_is_not_logged(settings, run, instrument, tracer, lines):
    """A context that arrives, a link, work that the user has excluded; nothing by default."""
    instrument(**settings)
    excluded.tracer = tracer
    with tracer.start_as_current_span("POST /orders"):
        run(excluded)
    assert lines() == []


def excluded():
    """Start a span, as work that a setting may name."""
    charge_in_its_context(excluded.tracer)


@pytest.mark.parametrize("run", [STARTED["thread"][0], in_a_pool])
def test_what_normally_starts_a_trace_is_not_logged(run, instrument, tracer, lines):
    """Neither the span of a request or a message, nor work that was handed off outside spans."""
    instrument(**LOST)
    with tracer.start_as_current_span("POST /orders"):
        run(lambda: charge(tracer, kind=SpanKind.SERVER))
        run(lambda: charge(tracer, kind=SpanKind.CONSUMER))
    run(lambda: charge(tracer))
    charge(tracer)
    assert lines() == []


def test_a_task_is_not_blamed_on_what_started_its_worker(instrument, tracer, lines):
    """A pool's thread works for all, whatever span it was started in."""
    instrument(**LOST)
    with ThreadPoolExecutor(1) as pool:
        with tracer.start_as_current_span("POST /orders"):
            pool.submit(int).result(WAIT)
        pool.submit(charge, tracer).result(WAIT)
    assert lines() == []


def test_a_context_that_is_given_up_by_hand_is_not_logged(instrument, tracer, lines):
    """Its hand-off has lost nothing: the program wants a trace of its own."""
    instrument(report_orphans=True)
    with tracer.start_as_current_span("POST /orders"):
        in_a_thread(lambda: charge_in_its_context(tracer, context=Context()))
    assert lines() == []


def test_a_thread_that_outlives_its_request_is_logged(instrument, tracer, lines):
    """It was started lazily, in the first request, and goes on for ever."""
    instrument(report_orphans=True, link_after=1)
    go = threading.Event()

    def work():
        assert go.wait(WAIT)
        charge_in_its_context(tracer)
        _orphans.forget()
        charge_in_its_context(tracer)

    thread = threading.Thread(target=work, name="worker-3")
    with tracer.start_as_current_span("POST /orders", end_on_exit=False) as span:
        thread.start()
    span.end(time.time_ns() - 60_000_000_000)
    go.set()
    thread.join(WAIT)
    assert len(lines()) == 2
    assert "on thread `worker-3`, which was started at here:N inside `POST /orders`" in lines()[0]


def test_a_place_is_logged_once_an_hour(instrument, tracer, lines, monkeypatch):
    """Another place has a line of its own."""
    instrument(**LOST)
    now = time.monotonic()
    monkeypatch.setattr(_orphans.time, "monotonic", lambda: now)

    def lose(work):
        with tracer.start_as_current_span("POST /orders"):
            in_a_thread(work)

    for _ in range(3):
        lose(lambda: charge(tracer))
    assert len(lines()) == 1
    lose(lambda: contextvars.Context().run(tracer.start_span, "elsewhere").end())
    assert len(lines()) == 2
    now += _orphans.INTERVAL + 1
    lose(lambda: charge(tracer))
    assert len(lines()) == 3


def test_memory_is_bounded(instrument, tracer, monkeypatch):
    """What was noted is gone with its thread or task, and only so many places are remembered."""
    instrument(**LOST)
    monkeypatch.setattr(_orphans, "_MOST_PLACES", 10)
    gc.collect()
    before = len(_orphans.noted)
    with tracer.start_as_current_span("POST /orders"):
        in_a_pool(lambda: charge(tracer))
        for number in range(30):
            code = compile("tracer.start_span('work').end()", f"file_{number}.py", "exec")
            context = contextvars.Context()
            in_a_thread(functools.partial(context.run, exec, code, {"tracer": tracer}))
    assert len(_orphans._logged) == 10
    gc.collect()
    assert len(_orphans.noted) == before


def test_it_leaves_nothing_patched(tracer):
    """What it has replaced is what it was, by identity."""
    before = vars(threading.Thread)["start"], pools._WorkItem, vars(pools._WorkItem)["__init__"]
    instrumentor = ConcurrencyInstrumentor()
    for settings in ({"report_orphans": True}, LOST):
        instrumentor.instrument(**settings)
        assert vars(threading.Thread)["start"] is not before[0]
        instrumentor.uninstrument()
        after = vars(threading.Thread)["start"], pools._WorkItem, vars(pools._WorkItem)["__init__"]
        assert all(one is other for one, other in zip(before, after, strict=True))


def test_a_fault_does_not_hurt_the_program(instrument, tracer, caplog, monkeypatch):
    """It is reported once, and the work runs."""

    def fail(*_):
        raise RuntimeError("no frames")

    instrument(**LOST)
    monkeypatch.setattr(_orphans.frames, "site", fail)
    ran = []
    with tracer.start_as_current_span("POST /orders"):
        for run in (in_a_thread, in_a_thread, in_a_pool):
            run(lambda: ran.append(charge(tracer)))
    assert len(ran) == 3
    (warning,) = [r for r in caplog.records if r.name.startswith("otel_concurrency")]
    assert "no frames" in warning.getMessage()
