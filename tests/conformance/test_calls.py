"""What holds for every callable that is handed off, in whatever form.

Each test runs for every form of ``forms.py`` that can do what the test is about.
"""

from __future__ import annotations

import contextlib
import gc
import sched
import threading

import pytest
from forms import FORMS, NO_THREADS, SHUT_DOWN, WAIT, Fatal, Submit, ThreadTarget, without_context
from opentelemetry import baggage, trace
from opentelemetry.context import Context, attach, detach, get_current, get_value, set_value
from opentelemetry.instrumentation.utils import (
    is_instrumentation_enabled,
    suppress_instrumentation,
)

from interpreters import THREADS_INHERIT, death_of
from otel_concurrency import ConcurrencyInstrumentor

OURS = "otel"
"""What every name that the library puts into somebody else's object contains."""


"""Whether CPython itself (3.14+, by a flag) starts threads in a copied context."""


def forms(*conditions):
    """Parametrise ``form`` with the forms that meet every condition."""
    chosen = [form for form in FORMS if all(condition(form) for condition in conditions)]
    assert chosen
    return pytest.mark.parametrize(
        "form", [pytest.param(form, id=form.name) for form in chosen], indirect=True
    )


def patched(form):
    """Whether it is the library that carries context."""
    return form.setting is not None


def cancels(form):
    """Whether what is handed off can be cancelled."""
    return form.cancels


def reuses_worker(form):
    """Whether the next work finds what the last one left."""
    return form.reuses_worker


every_form = forms()
every_patched_form = forms(patched)
every_thread = forms(lambda form: hasattr(form, "make"))
every_failure = pytest.mark.parametrize(
    ("form", "way"),
    [
        pytest.param(form, way, id=f"{form.name}, {way}")
        for form in FORMS
        for way in form.ways_to_fail
    ],
    indirect=["form"],
)
every_exception = pytest.mark.parametrize(
    ("form", "exception"),
    [
        pytest.param(form, exception, id=f"{form.name}, {exception.__name__}")
        for form in FORMS
        for exception in form.raises
    ],
    indirect=["form"],
)


@pytest.fixture
def form(request, switch_on):
    """Instrument, and open the form."""
    switch_on(**request.param.settings)
    with request.param() as opened:
        yield opened


@pytest.fixture
def no_gc():
    """Leave it to reference counts alone to free what is not needed."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@contextlib.contextmanager
def attached(context):
    """Attach ``context`` for the length of a ``with``."""
    token = attach(context)
    try:
        yield context
    finally:
        detach(token)


def hand_off_in_new_span(form, work, tracer, name="origin"):
    """Hand off inside a span that ends at once; return the handle and the span's death."""
    with tracer.start_as_current_span(name) as span:
        return form.hand_off(work), death_of(span)


class Recorder:
    """Work that records what it is run in, in a thread-safe list."""

    def __init__(self, look=get_current):
        self.seen = []
        self._look = look

    def __call__(self):
        self.seen.append(self._look())


def current_span_id():
    """Return the id of the current span, or 0."""
    return trace.get_current_span().get_span_context().span_id


# What travels


@every_form
def test_a_span_of_the_work_is_a_child_of_the_span_that_handed_it_off(form, tracer, exporter):
    """A span started by the work has the submitter's span as parent, also if that has ended."""

    def work():
        with tracer.start_as_current_span("work"):
            pass

    with tracer.start_as_current_span("origin") as origin:
        handle = form.hand_off(work)
    handle.wait()

    (span,) = (span for span in exporter.get_finished_spans() if span.name == "work")
    assert span.parent == origin.get_span_context()
    assert span.context.trace_id == origin.get_span_context().trace_id


@every_form
def test_work_without_a_span_of_its_own_runs_in_the_submitters_span(form, tracer):
    """Work that starts no span finds the submitter's own, live, recording span object current."""
    current = Recorder(trace.get_current_span)

    with tracer.start_as_current_span("origin") as origin:
        form.hand_off(current).wait()

    assert len(current.seen) == 1
    assert current.seen[0] is origin
    current.seen.clear()


@every_form
def test_baggage_travels_without_a_span(form):
    """Baggage travels by itself, and brings no span with it."""
    seen = Recorder(lambda: (baggage.get_all(), trace.get_current_span()))

    with attached(baggage.set_baggage("order", "42")):
        handle = form.hand_off(seen)
    handle.wait()

    assert seen.seen == [({"order": "42"}, trace.INVALID_SPAN)]


@every_form
def test_any_key_of_the_context_travels_by_reference(form):
    """A value under a key that the library has never heard of arrives as the same object."""
    value = object()
    seen = Recorder(lambda: get_value("of somebody else"))

    with attached(set_value("of somebody else", value)):
        handle = form.hand_off(seen)
    handle.wait()

    assert len(seen.seen) == 1
    assert seen.seen[0] is value


@every_form
def test_suppressed_instrumentation_stays_suppressed(form):
    """What an exporter hands off while it suppresses instrumentation is suppressed as well."""
    enabled = Recorder(is_instrumentation_enabled)

    with suppress_instrumentation():
        handle = form.hand_off(enabled)
    handle.wait()

    assert enabled.seen == [False]


@every_form
def test_one_callable_handed_off_under_twenty_spans_sees_each_of_them(form, tracer):
    """The same callable runs in the context of each of its hand-offs, in one context a run."""
    seen = Recorder(current_span_id)
    handles, expected = [], []

    for number in range(20):
        with tracer.start_as_current_span(f"origin {number}") as origin:
            handles.append(form.hand_off(seen))
        expected.append(origin.get_span_context().span_id)
    for handle in handles:
        handle.wait()

    assert sorted(seen.seen) == sorted(expected)


@pytest.mark.parametrize(
    ("form", "between"),
    [
        pytest.param(form, between, id=f"{form.name}, {between.name}")
        for form in FORMS
        for between in (ThreadTarget, Submit)
        if between.setting not in form.settings
    ],
    indirect=["form"],
)
def test_a_chain_of_hand_offs_is_one_trace(form, between, tracer, exporter):
    """Work that hands off work that hands off work makes a chain of parents, across forms."""

    def leaf():
        with tracer.start_as_current_span("3"):
            pass

    def second():
        with tracer.start_as_current_span("2"), type(form)() as inner:
            inner.hand_off(leaf).wait()

    def first():
        with tracer.start_as_current_span("1"), between() as inner:
            inner.hand_off(second).wait()

    with tracer.start_as_current_span("0"):
        form.hand_off(first).wait()

    spans = {span.name: span for span in exporter.get_finished_spans()}
    assert sorted(spans) == ["0", "1", "2", "3"]
    assert [spans[name].parent for name in "123"] == [spans[name].context for name in "012"]


# What comes back


@forms(lambda form: form.returns_result)
def test_a_result_is_the_very_object_that_the_work_returned(form, tracer):
    """The result arrives untouched."""
    result = object()

    handle, _ = hand_off_in_new_span(form, lambda: result, tracer)
    handle.wait()

    assert handle.result() is result


@every_exception
def test_an_exception_is_the_very_object_that_the_work_raised(form, exception, tracer):
    """An exception arrives where the form leaves it, the same object, with nothing added to it."""
    raised = exception("of the program")

    def work():
        raise raised

    handle, _ = hand_off_in_new_span(form, work, tracer)
    handle.wait()

    error = handle.error()
    assert error is raised
    assert error.__cause__ is None
    assert error.__context__ is None
    assert not hasattr(error, "__notes__")
    del error
    raised.__traceback__ = None


@forms(reuses_worker)
@pytest.mark.parametrize("exception", [ValueError, Fatal], ids=["Exception", "BaseException"])
def test_a_worker_survives_an_exception_clean(form, exception, tracer):
    """After work that raised, the next work on the worker runs in no context."""
    if exception not in form.raises:
        exception = form.raises[0]
    seen = Recorder()

    def work():
        raise exception

    hand_off_in_new_span(form, work, tracer)[0].wait()
    without_context(form.hand_off, seen).wait()

    assert seen.seen == [{}]


# What is left behind


@forms(reuses_worker)
def test_the_next_work_without_context_has_neither_parent_nor_baggage(form, tracer):
    """Also where the worker was first used inside a span, it belongs to nobody."""
    seen = Recorder()

    with attached(baggage.set_baggage("order", "42")):
        hand_off_in_new_span(form, int, tracer)[0].wait()
    form.hand_off(seen).wait()
    with attached(baggage.set_baggage("order", "43")):
        hand_off_in_new_span(form, int, tracer)[0].wait()
    form.hand_off(seen).wait()

    assert seen.seen == [{}, {}]


@forms(reuses_worker)
def test_work_that_forgets_to_detach_leaves_nothing_to_the_next(form, tracer):
    """A context that the work attached and never detached ends with the work."""
    seen = Recorder()

    hand_off_in_new_span(form, lambda: attach(Context(left="behind")) and None, tracer)[0].wait()
    without_context(form.hand_off, seen).wait()

    assert seen.seen == [{}]


@forms(lambda form: form.tidies_worker)
def test_work_without_context_that_forgets_to_detach_leaves_nothing_to_the_next(form):
    """A pool's worker is also tidied after work that was handed off without a context."""
    seen = Recorder()

    form.hand_off(lambda: attach(Context(left="behind")) and None).wait()
    form.hand_off(seen).wait()

    assert seen.seen == [{}]


@every_patched_form
def test_handing_off_leaves_the_submitters_own_context_alone(form, tracer):
    """The flow that hands off is in the same context before and after."""
    with tracer.start_as_current_span("origin"):
        before = get_current()
        handle = form.hand_off(int)
        assert get_current() is before
        handle.wait()
        assert get_current() is before


@every_patched_form
def test_no_span_is_kept_alive_by_finished_work(form, tracer, no_gc):
    """While the worker idles and the program holds thread, future or event, the span is gone."""
    handle, span_died = hand_off_in_new_span(form, int, tracer)
    handle.wait()

    assert span_died.wait(5)
    assert ours_in(handle) == []


@every_patched_form
def test_no_span_is_kept_alive_by_work_that_raised(form, tracer, no_gc):
    """The exception that the program holds has a traceback, which refers to no context of ours."""

    def work():
        raise ValueError("of the program")

    handle, span_died = hand_off_in_new_span(form, work, tracer)
    handle.wait()
    error = handle.error()

    assert span_died.wait(5)
    assert error.__traceback__ is not None
    assert ours_in(handle) == []


@forms(patched, cancels)
def test_twenty_cancelled_hand_offs_let_go_at_once(form, tracer, no_gc):
    """Cancelled work never runs, and its span is freed while the worker is still busy."""
    ran = Recorder()

    with form.occupied():
        handed_off = [hand_off_in_new_span(form, ran, tracer) for _ in range(20)]
        for handle, _ in handed_off:
            handle.cancel()

        assert all(span_died.wait(5) for _, span_died in handed_off)
        assert [ours_in(handle) for handle, _ in handed_off] == [[]] * 20
    for handle, _ in handed_off:
        with contextlib.suppress(BaseException):
            handle.wait()

    assert ran.seen == []


@forms(lambda form: SHUT_DOWN in form.ways_to_fail and form.tidies_worker)
def test_work_cancelled_by_a_shutdown_lets_go_at_once(form, tracer, no_gc):
    """``shutdown(cancel_futures=True)`` frees the spans of what it cancels."""
    ran = Recorder()

    with form.occupied():
        handed_off = [hand_off_in_new_span(form, ran, tracer) for _ in range(20)]
        form.pool.shutdown(wait=False, cancel_futures=True)
        if hasattr(form, "loop"):  # the loop's own future learns of it by a callback
            for handle, _ in handed_off:
                handle.wait()

        assert all(span_died.wait(5) for _, span_died in handed_off)

    assert ran.seen == []


@every_failure
def test_a_failed_dispatch_raises_what_it_raises_without_the_library(form, way, tracer):
    """The exception has the type and the words of the uninstrumented one."""
    with (
        tracer.start_as_current_span("origin"),
        form.failing(way),
        pytest.raises((RuntimeError, TypeError)) as instrumented,
    ):
        form.hand_off(int)
    ConcurrencyInstrumentor().uninstrument()
    with (
        type(form)() as plain_form,
        plain_form.failing(way),
        pytest.raises(instrumented.type) as plain,
    ):
        plain_form.hand_off(int)

    assert str(instrumented.value) == str(plain.value)
    assert instrumented.value.__context__ is None
    assert instrumented.value.__cause__ is None


@every_failure
def test_a_failed_dispatch_lets_go_at_once(form, way, tracer, no_gc):
    """Nothing stays attached, and the exception that the program holds keeps no span alive."""
    span_died, held = fail(form, way, tracer)

    assert held.__traceback__ is not None
    assert span_died.wait(5)
    assert not get_current()


@pytest.mark.alone
@pytest.mark.skipif(
    THREADS_INHERIT,
    reason="the thread that did not start keeps CPython's own copy, and the exception the thread",
)
def test_a_pool_without_threads_lets_go_where_threads_are_not_patched(tracer, no_gc, instrument):
    """It notices by itself then that it could not start one."""
    instrument(threading="off")
    with Submit() as form:
        span_died, held = fail(form, NO_THREADS, tracer)

        assert held.__traceback__ is not None
        assert span_died.wait(5)
        seen = Recorder()
        form.hand_off(seen).wait()  # which starts the thread that does both
    assert seen.seen


def fail(form, way, tracer):
    """Hand off in vain; return the span's death and the exception."""
    with tracer.start_as_current_span("origin") as span, form.failing(way):
        span_died = death_of(span)
        del span  # the traceback refers to this frame
        before = death_of(get_current())
        try:
            form.hand_off(int)
        except (RuntimeError, TypeError) as error:
            assert not before.is_set()
            return span_died, error
    raise AssertionError("did not fail")


@every_thread
def test_a_thread_that_has_ended_cannot_be_started_again(form, tracer, caplog):
    """Its function is gone: that is the program's fault, and no fault of ours is reported."""
    thread = form.make(int)
    with tracer.start_as_current_span("request"):
        thread.start()
        thread.join(WAIT)
        with pytest.raises(RuntimeError, match="once"):
            thread.start()
    assert not caplog.records


@every_thread
def test_a_thread_that_could_not_be_started_is_as_good_as_before(form, tracer, no_gc):
    """Whether it can be started later is the interpreter's business; nothing of ours is in it."""
    seen = Recorder(current_span_id)
    thread = form.make(seen)
    before = set(vars(thread))

    with (
        tracer.start_as_current_span("first"),
        form.failing(NO_THREADS),
        pytest.raises(RuntimeError),
    ):
        thread.start()
    assert set(vars(thread)) == before
    with tracer.start_as_current_span("second") as second:
        again = outcome_of(thread.start)
    if again is None:
        thread.join(WAIT)
        assert seen.seen == [second.get_span_context().span_id]

    ConcurrencyInstrumentor().uninstrument()
    plain = form.make(int)
    with form.failing(NO_THREADS), pytest.raises(RuntimeError):
        plain.start()
    assert again == outcome_of(plain.start)


def outcome_of(function):
    """Return what ``function`` raises, as text, or None."""
    try:
        function()
    except Exception as error:
        return repr(error)
    return None


@every_thread
def test_a_thread_is_freed_by_reference_counts_alone(form, tracer, no_gc):
    """No reference of ours from a thread leads back to it."""
    thread = form.make(int)
    thread_died = death_of(thread)
    with tracer.start_as_current_span("origin"):
        thread.start()
    thread.join(WAIT)
    del thread

    assert thread_died.wait(5)


def ours_in(handle):
    """Return the attributes of the library's that are in the threads and futures of a hand-off."""
    return [
        name
        for held in handle.held
        if not isinstance(held, sched.Event)  # has no vars() of its own
        for name in getattr(held, "__dict__", ())
        if OURS in name
    ]


# While the library is switched off and on


@every_patched_form
def test_work_that_is_running_when_the_library_is_switched_off_ends_in_pairs(form, tracer):
    """It keeps its context to its end, and leaves its worker clean."""
    seen = Recorder(current_span_id)
    started, go_on = threading.Event(), threading.Event()

    def work():
        seen()
        started.set()
        assert go_on.wait(WAIT)
        seen()

    with tracer.start_as_current_span("origin") as origin:
        handle = form.hand_off(work)
    waiting = threading.Thread(target=handle.wait)
    without_context(waiting.start)
    assert started.wait(WAIT)
    ConcurrencyInstrumentor().uninstrument()
    go_on.set()
    waiting.join(WAIT)

    assert not waiting.is_alive()
    assert handle.error() is None
    assert seen.seen == [origin.get_span_context().span_id] * 2
    assert plainly(form) == {}


@forms(patched, reuses_worker)
def test_work_that_is_queued_when_the_library_is_switched_off_keeps_its_context(form, tracer):
    """It was captured, so it is attached and detached; the worker is clean afterwards."""
    seen = Recorder(current_span_id)

    with form.occupied():
        with tracer.start_as_current_span("origin") as origin:
            handle = form.hand_off(seen)
        ConcurrencyInstrumentor().uninstrument()
    handle.wait()

    assert handle.error() is None
    assert seen.seen == [origin.get_span_context().span_id]
    assert plainly(form) == {}


@pytest.mark.alone
@every_patched_form
def test_the_library_can_be_switched_on_again(form, tracer):
    """Off, nothing travels; on again, everything does, also on the worker of before."""
    seen = Recorder(current_span_id)
    instrumentor = ConcurrencyInstrumentor()

    hand_off_in_new_span(form, seen, tracer)[0].wait()
    instrumentor.uninstrument()
    hand_off_in_new_span(form, seen, tracer)[0].wait()
    instrumentor.instrument(**form.settings)
    with tracer.start_as_current_span("again") as again:
        form.hand_off(seen).wait()

    first, off, on = seen.seen
    assert first != 0
    assert on == again.get_span_context().span_id
    assert off == 0 or THREADS_INHERIT


def plainly(form):
    """Return the context that the next work of ``form`` runs in."""
    seen = Recorder()
    without_context(form.hand_off, seen).wait()
    return seen.seen[0]
