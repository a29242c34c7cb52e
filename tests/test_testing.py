"""What users' tests import: what is seen, what is asserted of it, and what is said if it fails."""

from __future__ import annotations

import functools
import os
import queue
import re
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from opentelemetry import baggage, context, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from otel_concurrency import ConcurrencyInstrumentor, _settings, capture, testing, wrap
from otel_concurrency._observer import observer, state
from otel_concurrency._trace_report.model import Link, Orphan, Report, Span, SpanId
from otel_concurrency._trace_report.outline import outline

WAIT = 60


@pytest.fixture(autouse=True)
def _no_provider(monkeypatch):
    """Let each test find a process in which no tracer provider is configured."""
    monkeypatch.delenv("OTEL_PYTHON_TRACER_PROVIDER", raising=False)
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", None)
    monkeypatch.setattr(trace, "_TRACER_PROVIDER_SET_ONCE", type(trace._TRACER_PROVIDER_SET_ONCE)())


def place_order():
    """Hand work to a pool inside a span, and return when it is done."""
    tracer = trace.get_tracer("shop")
    with tracer.start_as_current_span("order"), ThreadPoolExecutor(1) as pool:
        with tracer.start_as_current_span("validate"):
            pass
        pool.submit(reserve).result(WAIT)  # at fault


def reserve():
    """Make a span, and one inside it."""
    tracer = trace.get_tracer("shop")
    with tracer.start_as_current_span("reserve"), tracer.start_as_current_span("stock"):
        pass


def failure(function, *arguments):
    """Return the words with which an assertion fails, times left out."""
    with pytest.raises(AssertionError) as raised:
        function(*arguments)
    return re.sub(r" +[\d.]+ m?s ", " N ms ", str(raised.value))


def line_with(comment):
    """Return the number of the one line of this file that ends with a comment."""
    lines = Path(__file__).read_text(encoding="utf-8").splitlines()
    (number,) = (n for n, line in enumerate(lines, 1) if line.endswith(f"  {comment}"))
    return number


def forget():
    """Attach a context, and leave it."""
    context.attach(baggage.set_baggage("tenant", "acme"))  # forgotten


def test_spans_are_seen_in_the_order_of_their_start():
    """With their names, their parents and the thread that they ran on."""
    with testing.watch() as spans:
        place_order()
    assert [span.name for span in spans] == ["order", "validate", "reserve", "stock"]
    assert len(spans) == 4
    assert spans[0].parent is None
    assert [span.parent for span in spans[1:3]] == [spans[0].id] * 2
    assert spans.named("reserve") == (spans[2],)
    assert spans[2].thread != spans[0].thread
    assert not spans.named("nothing")


def test_what_hangs_together_passes():
    """With the library on, all of it is one trace, and every assertion that says so holds."""
    with testing.watch() as spans:
        place_order()
    spans.assert_connected()
    spans.assert_connected("order", "stock")
    spans.assert_parent("reserve", "order")
    spans.assert_parent("order", None)
    spans.assert_no_orphans()
    spans.assert_no_leaks()


def test_the_library_is_on_meanwhile_and_off_again():
    """With the settings that are given; what was patched is what it was, by identity."""
    before = vars(threading.Thread)["start"], vars(ThreadPoolExecutor)["submit"], queue.SimpleQueue
    with testing.watch(futures="link") as spans:
        assert ConcurrencyInstrumentor().is_instrumented_by_opentelemetry
        place_order()
    assert not ConcurrencyInstrumentor().is_instrumented_by_opentelemetry
    after = vars(threading.Thread)["start"], vars(ThreadPoolExecutor)["submit"], queue.SimpleQueue
    assert all(one is other for one, other in zip(before, after, strict=True))
    spans.assert_linked("reserve", "order")
    spans.assert_no_orphans()


def test_a_library_that_is_on_stays_on(instrumented):
    """As it is, unless something else is asked for."""
    before = _settings.in_force
    with testing.watch() as spans:
        place_order()
        assert _settings.in_force is before
    assert instrumented.is_instrumented_by_opentelemetry
    spans.assert_connected()


def test_a_library_that_is_on_is_off_where_that_is_asked_for(monkeypatch):
    """What is lost without it is lost then; afterwards it is as it was, metrics and all."""
    instrumentor = ConcurrencyInstrumentor()
    reader = InMemoryMetricReader()
    instrumentor.instrument(futures="link", metrics=True, meter_provider=MeterProvider([reader]))
    before = _settings.in_force
    try:
        with testing.watch(library=False) as spans:
            assert not instrumentor.is_instrumented_by_opentelemetry
            monkeypatch.setenv("OTEL_PYTHON_CONCURRENCY_FUTURES", "off")
            place_order()
        assert instrumentor.is_instrumented_by_opentelemetry
        assert _settings.in_force is before
        with testing.watch() as again:
            place_order()
        metrics = reader.get_metrics_data().to_json()
    finally:
        instrumentor.uninstrument()
    assert [orphan.reason for orphan in spans.report().orphans] == ["primitive_off"]
    again.assert_linked("reserve", "order")
    assert "otel_concurrency.hand_offs" in metrics


def test_a_library_that_is_on_has_the_settings_that_are_asked_for(instrumented):
    """For the time, and no others; inside another test's time as well."""
    before = _settings.in_force
    with testing.watch(threading="off") as outer:
        with testing.watch(futures="link") as inner:
            place_order()
        inner.assert_linked("reserve", "order")
        assert _settings.in_force.policies["threading"].value == "off"
    outer.assert_linked("reserve", "order")
    assert _settings.in_force is before
    assert instrumented.is_instrumented_by_opentelemetry


def test_a_broken_trace_is_drawn_with_its_break_and_the_line_at_fault():
    """The orphan stands where it should be, below the span that it comes from."""
    with testing.watch(library=False) as spans:
        place_order()
    words = failure(spans.assert_connected)
    lines = words.splitlines()
    assert lines[0] == "the spans are not connected: they are 2 traces"
    assert lines[2].split() == ["order", "N", "ms", "MainThread"]
    assert lines[3].startswith("├─ validate ")
    assert lines[4].startswith("└✗ reserve ")
    assert lines[4].endswith("✗ a trace of its own, apart from 'order'")
    assert lines[-1].startswith("   └─ stock ")
    reason = " ".join(line.strip(" │") for line in lines[5:-1])
    assert f"{Path(__file__).name}:{line_with('# at fault')}" in reason
    assert "ThreadPoolExecutor.submit" in reason


def test_an_orphan_fails_and_says_why():
    """As many as there are, each with its reason."""
    with testing.watch(futures="off") as spans:
        place_order()
        place_order()
    words = failure(spans.assert_no_orphans)
    assert words.startswith("2 spans have lost the parent\n")
    assert words.count("✗ orphan: a trace of its own") == 2
    assert words.count("ThreadPoolExecutor.submit") == 2


@pytest.mark.parametrize("by_hand", [wrap, lambda f: functools.partial(capture().run, f)])
def test_a_hand_off_by_hand_that_captured_too_early_is_named(by_hand):
    """Its function and line are, since the work runs in the empty context that it captured."""
    early = by_hand(reserve)
    order = trace.get_tracer("shop").start_as_current_span("order")
    with testing.watch() as spans, ThreadPoolExecutor(1) as pool, order:
        pool.submit(early).result(WAIT)
    words = failure(spans.assert_no_orphans)
    reason = " ".join(line.strip(" │") for line in words.splitlines())
    line = reserve.__code__.co_firstlineno
    assert f"`reserve` at {os.path.relpath(__file__)}:{line}, which was wrapped" in reason
    assert "`otel_concurrency.wrap(reserve)`" in reason


def test_a_hand_off_by_hand_outside_of_spans_is_no_fault():
    """Work that is handed off where there is no span has nothing to lose."""
    early = wrap(reserve)
    with testing.watch() as spans:
        for _ in range(2):
            thread = threading.Thread(target=early)
            thread.start()
            thread.join(WAIT)
    spans.assert_no_orphans()
    assert len(spans) == 4


def test_a_wrong_parent_fails_and_says_which_it_is():
    """The span is marked in the tree, with the parent that it has."""
    with testing.watch() as spans:
        place_order()
    words = failure(spans.assert_parent, "stock", "order")
    assert words.startswith("'stock' is not a child of 'order'\n")
    assert "✗ should be a child of 'order': its parent is 'reserve'" in words
    words = failure(spans.assert_parent, "stock", None)
    assert words.startswith("'stock' is not a root span\n")
    words = failure(spans.assert_parent, "order", "stock")
    assert "✗ should be a child of 'stock': it has no parent" in words


def test_every_span_of_a_name_is_asked():
    """Of two spans of one name, one of which is right, the other one fails."""
    tracer = trace.get_tracer("shop")
    with testing.watch() as spans:
        tracer = trace.get_tracer("shop")
        with tracer.start_as_current_span("order"):
            tracer.start_span("charge").end()
        tracer.start_span("charge").end()
    words = failure(spans.assert_parent, "charge", "order")
    assert words.count("✗") == 1


def test_a_missing_link_fails():
    """The span that has none is marked."""
    with testing.watch() as spans:
        place_order()
    words = failure(spans.assert_linked, "reserve", "order")
    assert words.startswith("'reserve' is not linked to 'order'\n")
    assert "✗ not linked to 'order'" in words


def test_a_span_that_is_not_there_fails():
    """A name that no span has is quoted, and those that there are are drawn."""
    with testing.watch() as spans:
        place_order()
    for assertion in (
        lambda: spans.assert_parent("refund", "order"),
        lambda: spans.assert_parent("reserve", "refund"),
        lambda: spans.assert_linked("refund", "order"),
        lambda: spans.assert_connected("order", "refund"),
    ):
        words = failure(assertion)
        assert words.startswith("there is no span 'refund'\n")
        assert "└─ reserve" in words


def test_nothing_is_not_connected():
    """A test in which no span was started proves nothing."""
    with testing.watch() as spans:
        pass
    assert failure(spans.assert_connected) == "no span was started"


def test_spans_are_named_in_any_form():
    """By name, as they were seen, and by the SDK's own spans."""
    with testing.watch() as spans:
        tracer = trace.get_tracer("shop")
        with tracer.start_as_current_span("outer") as outer:
            inner = tracer.start_span("inner")
            inner.end()
        linked = tracer.start_span("linked", links=[trace.Link(inner.get_span_context())])
        linked.end()
    spans.assert_parent(inner, outer)
    spans.assert_parent(spans[1], "outer")
    spans.assert_connected(outer, spans[1])
    spans.assert_linked(linked, inner)
    assert "'inner' is not a child of 'linked'" in failure(spans.assert_parent, inner, linked)


def test_what_runs_on_is_waited_for():
    """Until it has ended, as often as it is named."""
    go = threading.Event()

    def work():
        go.wait(WAIT)
        trace.get_tracer("shop").start_span("receipt").end()

    with testing.watch() as spans:
        with trace.get_tracer("shop").start_as_current_span("order"):
            workers = [threading.Thread(target=work) for _ in range(2)]
            for worker in workers:
                worker.start()
        assert not spans.named("receipt")
        go.set()
        spans.wait_for("receipt", "receipt", "order")
        spans.assert_parent("receipt", "order")
        for worker in workers:
            worker.join(WAIT)


def test_what_does_not_come_is_not_waited_for_for_ever():
    """The failure names it, and draws what there is."""
    with testing.watch() as spans:
        tracer = trace.get_tracer("shop")
        tracer.start_span("order").end()
        running = tracer.start_span("running")
        words = failure(lambda: spans.wait_for("order", "order", "running", timeout=0.01))
        running.end()
    assert words.startswith("no span 'order', 'running' has ended in 0.01 s\n")
    assert "not ended" in words


def test_what_was_seen_can_be_forgotten():
    """After `clear` a test begins anew."""
    with testing.watch() as spans:
        place_order()
        spans.clear()
        assert len(spans) == 0
        place_order()
    assert len(spans) == 4


def test_a_provider_that_is_configured_keeps_its_spans():
    """Whichever it is, and however many there are; its exporters get what they got."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    trace.set_tracer_provider(provider)
    other = TracerProvider()
    with testing.watch() as spans:
        assert trace.get_tracer_provider() is provider
        place_order()
        other.get_tracer("other").start_span("other").end()
    assert {span.name for span in spans} == {"order", "validate", "reserve", "stock", "other"}
    assert len(exporter.get_finished_spans()) == 4
    assert trace.get_tracer_provider() is provider
    provider.shutdown()
    other.shutdown()


def test_a_provider_that_is_configured_meanwhile_takes_over():
    """What a test configures is what is there, in it and after it."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    with testing.watch() as spans:
        kept = trace.get_tracer("kept")
        kept.start_span("before").end()
        trace.set_tracer_provider(provider)
        kept.start_span("after").end()
    assert trace.get_tracer_provider() is provider
    assert [span.name for span in spans] == ["before", "after"]
    assert [span.name for span in exporter.get_finished_spans()] == ["after"]
    provider.shutdown()


def test_a_lent_provider_is_taken_back():
    """Tracers that a program has kept make no spans then, and those of a later provider later."""
    before = trace.get_tracer("module level")
    with testing.watch() as spans:
        kept = trace.get_tracer("kept")
        for tracer in (before, kept):
            with tracer.start_as_current_span("seen"):
                pass
    assert len(spans) == 2
    assert trace._TRACER_PROVIDER is None
    assert not before.start_span("unseen").is_recording()
    assert not kept.start_span("unseen").is_recording()
    provider = TracerProvider()
    trace.set_tracer_provider(provider)
    for tracer in (before, kept):
        assert tracer.start_span("later").resource is provider.resource
    provider.shutdown()


def test_a_lent_provider_samples_everything(monkeypatch):
    """Whatever the environment says: spans that are not made cannot be looked at."""
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "always_off")
    with testing.watch() as spans:
        place_order()
    assert len(spans) == 4


def test_several_may_watch_at_once():
    """Each sees what happens in its own time, and nobody ends another's."""
    with testing.watch() as outer:
        place_order()
        with testing.watch() as inner:
            place_order()
        place_order()
    assert (len(outer), len(inner)) == (12, 4)
    outer.assert_no_orphans()
    inner.assert_connected()
    assert state.emit is None


def test_who_watches_may_leave_in_any_order():
    """What was switched on for the first goes on for the second, until that leaves too."""
    first, second = testing.watch(), testing.watch()
    first.__enter__()
    spans = second.__enter__()
    first.__exit__(None, None, None)
    try:
        place_order()
        assert len(spans) == 4
        spans.assert_connected()
    finally:
        second.__exit__(None, None, None)
    assert state.emit is None
    assert not ConcurrencyInstrumentor().is_instrumented_by_opentelemetry
    assert trace._TRACER_PROVIDER is None


def test_who_watches_beside_another_may_leave_in_any_order():
    """Where somebody else observes the process, events are told once to each, and go on for it."""
    events = []
    observer.start(events.append)
    try:
        first, second = testing.watch(), testing.watch()
        first.__enter__()
        spans = second.__enter__()
        first.__exit__(None, None, None)
        place_order()
        second.__exit__(None, None, None)
        assert state.emit == events.append
    finally:
        observer.stop()
    assert len(spans) == 4
    told = [event for event in events if event["event"] in ("span", "span_end")]
    assert len(told) == 8


def test_who_watches_already_goes_on(monkeypatch):
    """As under `otel-concurrency trace`: its events are told to it all the same."""
    events = []
    observer.start(events.append)
    try:
        with testing.watch() as spans:
            place_order()
        assert len(spans) == 4
        assert state.emit == events.append
    finally:
        observer.stop()
    assert len([event for event in events if event["event"] == "span"]) == 4


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_does_not_watch():
    """What it does is its own, and its parent's test sees nothing of it."""
    with testing.watch() as spans:
        child = os.fork()
        if not child:
            try:
                place_order()
            finally:
                os._exit(len(spans))
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        place_order()
    assert len(spans) == 4


@pytest.mark.parametrize("given", [None, {"OWN": "1"}], ids=["inherited", "given"])
def test_commands_are_started_as_without(given):
    """Nothing is added to the environment of what is not watched: other processes are not."""
    code = "import os; print(sorted(os.environ.items()))"

    def run():
        return subprocess.run([sys.executable, "-c", code], env=given, capture_output=True).stdout

    plain = run()
    with testing.watch():
        assert run() == plain


def test_no_leaks_passes_what_leaves_nothing():
    """Also what attaches and detaches, and what runs on workers."""
    with testing.no_leaks():
        place_order()
        token = context.attach(baggage.set_baggage("tenant", "acme"))
        context.detach(token)


def test_a_context_that_is_left_attached_is_a_leak():
    """It is named by what is in it, and taken away."""
    with pytest.raises(testing.ContextLeakError) as raised, testing.no_leaks():
        context.attach(baggage.set_baggage("tenant", "acme"))  # left
    words = str(raised.value)
    assert re.fullmatch(r"a context was left attached at \S+, with baggage: detach it .*", words)
    assert f"{Path(__file__).name}:{line_with('# left')}" in words
    assert not context.get_current()
    span = TracerProvider().get_tracer("shop").start_span("order")
    with (
        pytest.raises(testing.ContextLeakError, match="with the span 'order':"),
        testing.no_leaks(),
    ):
        context.attach(trace.set_span_in_context(span))
    assert not context.get_current()


def test_a_context_that_is_left_on_a_worker_is_a_leak():
    """Where the library does not tidy up behind it, the line that has attached it is named."""
    place = f"{Path(__file__).name}:{line_with('# forgotten')}"
    with testing.watch(library=False) as spans, ThreadPoolExecutor(1) as pool:
        pool.submit(forget).result(WAIT)
    assert place in failure(spans.assert_no_leaks)

    def leak():
        with testing.no_leaks(), ThreadPoolExecutor(1) as pool:
            pool.submit(forget).result(WAIT)

    assert place in failure(leak)


def test_an_exception_is_worth_more_than_a_leak():
    """What fails inside fails as it does, and the context is put right all the same."""

    def fail():
        context.attach(baggage.set_baggage("tenant", "acme"))
        raise ValueError("theirs")

    with pytest.raises(ValueError, match="theirs"), testing.no_leaks():
        fail()
    assert not context.get_current()


def test_without_the_sdk_it_says_what_to_install(monkeypatch):
    """The error names the extra."""
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    from otel_concurrency._observer import lent

    lent._lent_provider.cache_clear()
    with pytest.raises(ImportError, match=r"otel-concurrency\[cli\]"), testing.watch():
        pass


def test_an_outline_of_what_is_not_all_there():
    """A parent and a link that were not seen, an orphan of nowhere, a task, no end."""
    trace_id = "a" * 32
    spans = (
        Span(SpanId(trace_id, "1" * 16), SpanId(trace_id, "9" * 16), "child", 1, 2_000_001),
        Span(
            SpanId(trace_id, "2" * 16),
            SpanId(trace_id, "1" * 16),
            "grandchild",
            2,
            None,
            thread="main",
            task="Task-1",
            links=(Link(SpanId("f" * 32, "f" * 16)),),
        ),
        Span(SpanId("b" * 32, "3" * 16), None, "lost", 3, 2_000_000_003),
    )
    orphan = Orphan(spans[2].id, "unknown", "Nobody knows why.", "Ask.", origin=None)
    report = Report((), True, None, 0, 0, spans=spans, orphans=(orphan,))
    assert outline(report).splitlines() == [
        "child             2.0 ms",
        "└─ grandchild  not ended  main, Task-1",
        "      → link to span ffffffffffffffff of another program",
        "✗ lost             2.0 s  ✗ orphan: a trace of its own",
        "     Nobody knows why. Ask.",
    ]


def test_a_wrong_parent_is_shown_in_the_tree():
    """A span under a span of other work fails the assertion, which marks it in the tree."""

    def stream():
        with tracer.start_as_current_span("stream"):
            yield

    with testing.watch(library=False) as spans:
        tracer = trace.get_tracer(__name__)
        for _ in stream():
            tracer.start_span("consumer's").end()
    words = failure(spans.assert_no_wrong_parents)
    assert "generator `stream`" in words
    assert re.search(r"└─ consumer's .*✗ wrong parent$", words, re.MULTILINE)


def test_right_parents_pass():
    """Where every span is under its own work the assertion holds."""
    with testing.watch() as spans:
        place_order()
    spans.assert_no_wrong_parents()
