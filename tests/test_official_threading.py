"""OpenTelemetry's own instrumentor of threads is set aside while this library is on."""

from __future__ import annotations

import functools
import logging
import subprocess
import sys
import textwrap
import threading
from concurrent.futures import Future, ThreadPoolExecutor

import opentelemetry.instrumentation.threading as official_module
import pytest
from opentelemetry import context, trace
from opentelemetry.instrumentation.threading import ThreadingInstrumentor

from otel_concurrency import ConcurrencyInstrumentor, _instrumentor, _official_threading
from otel_concurrency._core import handoff

WAIT = 20
PLACES = [
    (threading.Thread, "start"),
    (threading.Thread, "run"),
    (threading.Timer, "start"),
    (threading.Timer, "run"),
    (ThreadPoolExecutor, "submit"),
]
IN_BOTH_ORDERS = pytest.mark.parametrize("first", ["theirs", "ours"])

pytestmark = pytest.mark.usefixtures("official")


@pytest.fixture(autouse=True)
def _unsaid(monkeypatch):
    """Have it not been said yet that the other one is set aside."""
    monkeypatch.setattr(_official_threading, "_is_logged", False)


@pytest.fixture
def both():
    """Return what switches both instrumentors on, in an order, this library with settings."""
    ours = ConcurrencyInstrumentor()

    def switch_on(first, **settings):
        if first == "theirs":
            ThreadingInstrumentor().instrument()
        ours.instrument(**settings)
        if first == "ours":
            ThreadingInstrumentor().instrument()
        return ours

    yield switch_on
    if ours.is_instrumented_by_opentelemetry:
        ours.uninstrument()


def there():
    """Return what is in each of the places that it patches; None where that is nothing."""
    return [vars(owner).get(name) for owner, name in PLACES]


def same(some, others):
    """Whether two lists have the same objects."""
    return all(one is other for one, other in zip(some, others, strict=True))


def their_wrappers():
    """Return the places in which a wrapper of theirs is."""
    return [
        place
        for place, attribute in zip(PLACES, there(), strict=True)
        if _official_threading._is_theirs(attribute)
    ]


# --- on and off, by identity ---


def test_switched_on_before_it_is_back_afterwards(both):
    """Its wrappers are taken off, and are the same ones in the same places again."""
    ThreadingInstrumentor().instrument()
    wrappers = there()
    ours = ConcurrencyInstrumentor()
    for _ in range(2):
        ours.instrument()
        assert their_wrappers() == []
        assert ThreadingInstrumentor().is_instrumented_by_opentelemetry
        ours.uninstrument()
        assert same(there(), wrappers)


def test_switched_on_later_it_does_nothing_until_this_library_is_off(both):
    """What it patches is not touched; then it does what it was asked to."""
    ours = both("neither")
    before = there()
    ThreadingInstrumentor().instrument()
    assert same(there(), before)
    assert ThreadingInstrumentor().is_instrumented_by_opentelemetry
    ours.uninstrument()
    assert their_wrappers() == PLACES
    ThreadingInstrumentor().uninstrument()
    assert not ThreadingInstrumentor().is_instrumented_by_opentelemetry


@IN_BOTH_ORDERS
def test_switched_off_meanwhile_it_stays_off(first, both):
    """Everything is as it was before either of them, its copy of `start` on `Timer`, too."""
    plain = there()
    ours = both(first)
    patched = there()
    ThreadingInstrumentor().uninstrument()
    assert same(there(), patched)
    ours.uninstrument()
    assert same(there(), plain)


def test_its_class_and_its_module_are_what_they_were(both):
    """The methods that were replaced are, by identity, and so is what it knows contexts by."""
    owners = (ThreadingInstrumentor, official_module)
    before = [dict(vars(owner)) for owner in owners]
    both("theirs").uninstrument()
    ThreadingInstrumentor().uninstrument()
    for owner, was in zip(owners, before, strict=True):
        now = {name for name, value in vars(owner).items() if value is not was.get(name)}
        assert now <= {"_instance", "_is_instrumented_by_opentelemetry"}


def test_what_it_has_left_behind_earlier_is_taken_off_too(both, tracer):
    """Its undo leaves its copy of `Thread.start` on `Timer`, which leads past this library's."""
    ThreadingInstrumentor().instrument()
    ThreadingInstrumentor().uninstrument()
    left = there()
    assert their_wrappers() == [(threading.Timer, "start")]
    ours = both("neither")
    with tracer.start_as_current_span("origin") as origin:
        assert seen_in(threading.Timer, 0) is origin
    ours.uninstrument()
    assert same(there(), left)


def test_somebody_elses_patch_over_this_library_stays(both):
    """What comes back is put over it, and reaches it."""
    ours = both("theirs")
    original, calls = threading.Thread.start, []

    @functools.wraps(original)
    def start(self):
        calls.append(self)
        return original(self)

    threading.Thread.start = start
    ours.uninstrument()
    assert _official_threading._is_theirs(vars(threading.Thread)["start"])
    thread = threading.Thread(target=int)
    thread.start()
    thread.join(WAIT)
    assert calls == [thread]


def seen_in(kind, *args):
    """Return the current span in a thread of some kind."""
    seen = []
    thread = kind(*args, lambda: seen.append(trace.get_current_span()))
    thread.start()
    thread.join(WAIT)
    return seen[0]


# --- what this library promises ---


class Overriding(threading.Timer):
    """A timer with a `run` of its own, and nothing of its base's."""

    def run(self):
        self.function()


@IN_BOTH_ORDERS
def test_a_timer_that_overrides_run_has_its_context(first, both, tracer):
    """Its `start` is `Thread`'s, as without the other one."""
    both(first)
    with tracer.start_as_current_span("origin") as origin:
        assert seen_in(Overriding, 0) is origin
        assert seen_in(threading.Timer, 0) is origin


@IN_BOTH_ORDERS
def test_a_timer_that_arms_itself_again_has_rounds(first, both, tracer, exporter):
    """Each round is a trace of its own from the second on, with a link to the one before."""
    both(first)
    done = threading.Event()

    def beat(left):
        with tracer.start_as_current_span(f"round {left}"):
            if left:
                arm(left - 1)
            else:
                done.set()

    def arm(left):
        timer = threading.Timer(0, beat, (left,))
        timer.start()
        timers.append(timer)

    timers = []
    with tracer.start_as_current_span("origin"):
        arm(2)
    assert done.wait(WAIT)
    for timer in timers:
        timer.join(WAIT)
    spans = {span.name: span for span in exporter.get_finished_spans()}
    assert spans["round 2"].parent.span_id == spans["origin"].context.span_id
    for later, earlier in (("round 1", "round 2"), ("round 0", "round 1")):
        assert spans[later].parent is None
        (link,) = spans[later].links
        assert link.context.span_id == spans[earlier].context.span_id


@pytest.mark.parametrize("patched", [False, True], ids=["on top", "patched over"])
@IN_BOTH_ORDERS
def test_pools_and_threads_have_links(first, patched, both, tracer):
    """Under `link`, also where somebody has patched over the other one before this library came."""
    if patched:
        ThreadingInstrumentor().instrument()
        for owner, name in PLACES:
            setattr(owner, name, passing_on(vars(owner)[name]))
        del threading.Timer.start  # nobody patches it there
        first = "neither"
    both(first, futures="link", threading="link")

    def work():
        with tracer.start_as_current_span("work") as span:
            return span.parent, [link.context.span_id for link in span.links]

    with tracer.start_as_current_span("origin") as origin, ThreadPoolExecutor(1) as pool:
        linked = (None, [origin.get_span_context().span_id])
        assert pool.submit(work).result(WAIT) == linked
        results = []
        for kind, *args in ((threading.Thread, None), (threading.Timer, 0), (Overriding, 0)):
            thread = kind(*args, lambda: results.append(work()))
            thread.start()
            thread.join(WAIT)
        assert results == [linked] * 3


def passing_on(original):
    """Return a patch as Sentry makes them."""

    @functools.wraps(original)
    def patch(self, *args, **kwargs):
        return original.__get__(self, type(self))(*args, **kwargs)

    return patch


def test_where_it_is_patched_over_it_works_again_afterwards(both, tracer):
    """It captures and attaches as before once this library is off."""
    ThreadingInstrumentor().instrument()
    ThreadPoolExecutor.submit = passing_on(vars(ThreadPoolExecutor)["submit"])
    both("neither").uninstrument()
    with tracer.start_as_current_span("origin") as origin, ThreadPoolExecutor(1) as pool:
        assert pool.submit(trace.get_current_span).result(WAIT) is origin


def test_work_in_flight_keeps_its_context(both, tracer):
    """What was submitted through it runs in its context, though it is set aside meanwhile."""
    ThreadingInstrumentor().instrument()
    ThreadPoolExecutor.submit = passing_on(vars(ThreadPoolExecutor)["submit"])
    go = Future()
    with ThreadPoolExecutor(1) as pool:
        pool.submit(go.result, WAIT)
        with tracer.start_as_current_span("origin") as origin:
            waiting = pool.submit(trace.get_current_span)
        both("neither")
        go.set_result(None)
        assert waiting.result(WAIT) is origin
        assert not pool.submit(context.get_current).result(WAIT)


@pytest.mark.parametrize("first", ["theirs", "ours"])
def test_timers_of_a_program_that_gevent_has_patched_fire(first):
    """With the other one alone they never do."""
    pytest.importorskip("gevent")
    program = """
        from gevent import monkey
        monkey.patch_all()
        import threading
        from opentelemetry import context
        from opentelemetry.instrumentation.threading import ThreadingInstrumentor
        from otel_concurrency import ConcurrencyInstrumentor
        for one in ({order}):
            one().instrument()
        context.attach(context.set_value("key", "carried"))
        timer = threading.Timer(0, lambda: print(context.get_value("key")))
        timer.start()
        timer.join(20)
    """
    names = ["ThreadingInstrumentor", "ConcurrencyInstrumentor"]
    order = ", ".join(names if first == "theirs" else reversed(names))
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program.format(order=order))],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.stdout, done.returncode) == ("carried\n", 0), done.stderr


# --- what is off, or fails, is left to it ---


@pytest.mark.parametrize(
    ("primitive", "left"), [("threading", PLACES[:4]), ("futures", PLACES[4:])]
)
@IN_BOTH_ORDERS
def test_a_primitive_that_is_off_leaves_its_part_alone(first, primitive, left, both, tracer):
    """It goes on to carry what this library is told not to."""
    ours = both(first, **{primitive: "off"})
    assert their_wrappers() == left
    with tracer.start_as_current_span("origin") as origin, ThreadPoolExecutor(1) as pool:
        assert pool.submit(trace.get_current_span).result(WAIT) is origin
        assert seen_in(threading.Thread, None) is origin
    ours.uninstrument()
    assert their_wrappers() == PLACES


@IN_BOTH_ORDERS
def test_a_primitive_that_cannot_be_patched_gives_its_part_back(first, both, monkeypatch):
    """It is better to be carried by the other one than not at all."""

    def fail(*_):
        raise AttributeError("another shape")

    monkeypatch.setitem(handoff.seams, "futures", None)  # comes back with the primitive
    monkeypatch.setitem(
        _instrumentor.primitives_in_use,
        "futures",
        _instrumentor.Primitive("futures", {"concurrent.futures.thread": fail}),
    )
    ours = both(first)
    assert their_wrappers() == PLACES[4:]
    ours.uninstrument()
    assert their_wrappers() == PLACES


@IN_BOTH_ORDERS
def test_it_can_be_kept_as_it_is(first, both, monkeypatch, caplog):
    """By a keyword, or by a variable of the environment; nothing is said then."""
    caplog.set_level(logging.INFO, "otel_concurrency")
    monkeypatch.setenv("OTEL_PYTHON_CONCURRENCY_KEEP_OFFICIAL_THREADING", "true")
    methods = dict(vars(ThreadingInstrumentor))
    ours = both(first)
    for name, method in methods.items():
        if name.startswith(("_instrument", "_uninstrument")):
            assert vars(ThreadingInstrumentor)[name] is method
    if first == "ours":
        assert their_wrappers() == PLACES
    else:
        assert _official_threading._is_theirs(vars(ThreadPoolExecutor)["submit"])
    assert not _official_threading.is_set_aside()
    assert not caplog.records
    if first == "ours":  # it cannot undo what it does not find on top
        ThreadingInstrumentor().uninstrument()
    ours.uninstrument()


@pytest.mark.parametrize("primitive", ["futures", "threading"])
@IN_BOTH_ORDERS
def test_kept_beside_links_it_is_warned_of_once(first, primitive, both, caplog):
    """The line names the other instrumentor, and what to do."""
    ours = both(first, keep_official_threading=True, **{primitive: "link"})
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    message = record.getMessage()
    assert "opentelemetry-instrumentation-threading" in message
    assert "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS=threading" in message
    assert _official_threading.SETTING in message
    if first == "ours":
        ThreadingInstrumentor().uninstrument()
    ours.uninstrument()


def test_kept_without_links_nothing_is_said(both, caplog):
    """Nor where it was kept beside links once, and is not any more."""
    both("neither", keep_official_threading=True).uninstrument()
    both("neither", futures="link")
    assert not caplog.records


# --- what is said ---


@IN_BOTH_ORDERS
def test_a_line_of_log_says_so_once(first, both, caplog):
    """At the level INFO, and only where there is something to set aside."""
    caplog.set_level(logging.INFO, "otel_concurrency")
    both("neither").uninstrument()
    assert not caplog.records
    both(first).uninstrument()
    ConcurrencyInstrumentor().instrument()
    (record,) = caplog.records
    assert record.levelno == logging.INFO
    assert "opentelemetry-instrumentation-threading is set aside" in record.getMessage()
    assert _official_threading.SETTING in record.getMessage()


def test_a_version_of_another_shape_is_left_alone(both, monkeypatch, caplog):
    """One line of log says so; this library is on all the same."""
    monkeypatch.delattr(ThreadingInstrumentor, "_uninstrument_timer")
    monkeypatch.setattr(_official_threading, "_layers", [])
    ours = both("neither")
    (record,) = caplog.records
    assert "opentelemetry-instrumentation-threading is left alone" in record.getMessage()
    assert record.exc_info in (None, False)
    assert not _official_threading.is_set_aside()
    ours.uninstrument()
    assert len(caplog.records) == 1
