"""What the observer tells of real programs, and what the analysis makes of it."""

from __future__ import annotations

import _thread
import asyncio
import concurrent.futures
import multiprocessing.pool
import multiprocessing.queues
import os
import queue
import sched
import subprocess
import sys
import sysconfig
import threading
import time
from collections import Counter

import pytest
from opentelemetry import baggage, context, trace
from opentelemetry.sdk.trace import Span, Tracer
from opentelemetry.sdk.trace.export import BatchSpanProcessor

import watching
from interpreters import measures_memory
from otel_concurrency import ConcurrencyInstrumentor
from otel_concurrency._core import frames
from otel_concurrency._generators import monitoring
from otel_concurrency._observer import observer
from otel_concurrency._trace_report.analysis import Collection
from programs import BROKEN


@pytest.mark.parametrize("library", [True, False], ids=["on", "off"])
def test_calls_are_seen_with_their_sites(tmp_path, library):
    """Each call is a hand-off with the line that made it, whether or not it carries the context."""
    report = watching.run(tmp_path, "calls.py", library=library)
    source = (watching.APPS / "calls.py").read_text().splitlines()
    spans = {span.name: span for span in report.spans}
    hand_offs = {hand_off.id: hand_off for hand_off in report.hand_offs}
    handed_off = [span for span in report.spans if span.hand_off]
    assert len(handed_off) == len(spans) - 2 == 9
    for span in handed_off:
        by = hand_offs[span.hand_off]
        assert by.call == span.name
        assert by.origin in (spans["request"].id, spans["request of a loop"].id)
        assert by.call.rpartition(".")[2] in source[int(by.site.rpartition(":")[2]) - 1]
        assert by.to_thread == span.thread
        assert by.waited_ns is not None
        carried = library or span.name == "asyncio.to_thread"
        assert by.carried == carried == (span.parent == by.origin), span
    assert report.exit_status == 0


@pytest.mark.parametrize("started", ["before any span", "in a span"])
def test_the_start_of_a_worker_is_not_what_brought_its_work_by_hand(started, tmp_path):
    """Each job is in the trace of its request: no line of the start of the worker stands there."""
    report = watching.run(tmp_path, "worker_by_hand.py", started)
    requests = {span.id: span for span in report.spans if span.name == "request"}
    jobs = [span for span in report.spans if span.name == "job"]
    assert {job.parent for job in jobs} == requests.keys()
    starts = {each.id: each for each in report.hand_offs if each.call == "Thread.start"}
    assert len(starts) == 1
    first = min(requests, key=lambda one: requests[one].start_ns)
    kept = [first] if started == "in a span" else []  # it was started there
    assert [job.parent for job in jobs if job.hand_off in starts] == kept


@pytest.mark.skipif(not monitoring.IS_THERE, reason="generators keep their context from 3.12 on")
def test_a_generator_that_is_resumed_elsewhere_is_seen(tmp_path):
    """It is one hand-off, from the line that made its span current to the one that resumes it."""
    report = watching.run(tmp_path, "resumed_generator.py")
    fetches = [span for span in report.spans if span.name == "fetch"]
    (stream,) = [span.id for span in report.spans if span.name == "stream"]
    (by,) = [each for each in report.hand_offs if each.primitive == "generators"]
    assert [span.parent for span in fetches] == [stream] * 4
    assert [span.hand_off for span in fetches] == [None, by.id, by.id, None]
    assert (by.call, by.origin, by.carried) == ("generator stream", stream, True)
    assert by.site == watching.line_marked("resumed_generator.py", "started")
    assert by.to_thread == "reader"
    assert by.to_site == watching.line_marked("resumed_generator.py", "resumed")
    assert by.waited_ns is None
    assert (report.orphans, report.leaks) == ((), ())


def test_a_call_that_does_not_carry_makes_an_orphan(tmp_path):
    """Without the library each root in work that was handed off is an orphan, and says by what."""
    report = watching.run(tmp_path, "calls.py", library=False)
    names = {span.id: span.name for span in report.spans}
    by = {hand_off.call: hand_off for hand_off in report.hand_offs}
    orphans = {names[orphan.span]: orphan for orphan in report.orphans}
    assert set(orphans) == set(by) - {"asyncio.to_thread"}
    for call, orphan in orphans.items():
        assert orphan.site == by[call].site
        assert orphan.origin == by[call].origin


def test_a_call_that_carries_makes_no_orphan(tmp_path):
    """With the library there are no orphans, and every call site says that it carries."""
    report = watching.run(tmp_path, "calls.py")
    assert report.orphans == ()
    assert [(site.count, site.with_context) for site in report.call_sites] == [(1, 1)] * 9


@pytest.mark.parametrize("name", BROKEN)
def test_the_line_at_fault_is_named(tmp_path, name):
    """Of a program that loses its context the report names the line at fault, and nothing else."""
    reason, settings = BROKEN[name]
    program = f"broken/{name}.py"
    report = watching.run(tmp_path, program, **settings)
    found = (*report.orphans, *report.leaks)
    line = watching.line_at_fault(program)
    assert {(one.reason, one.site) for one in found} == {(reason, line)}
    for one in found:
        assert line in one.words or one.span in {
            span.id for span in report.spans if span.site == line
        }
        assert one.advice


BY_HAND = {
    "captured_late": ["`otel_concurrency.capture()`", "`with handoff:`"],
    "condition": ["`otel_concurrency.capture()` beside the item before {fault}", "`with handoff:`"],
    "consumer_span": ["`otel_concurrency.capture()` beside the item before", "`with handoff:`"],
    "thread_of_a_library": ["`otel_concurrency.capture()`", "`with handoff:`"],
    "thread_of_c": [
        "Wrap `on_data` inside the span",
        "`otel_concurrency.wrap(on_data)`",
        "captures too early: put `otel_concurrency.capture().headers()` into each message",
        "`with otel_concurrency.HandOff.from_headers(headers):`",
    ],
    "wrapped_early": ["`otel_concurrency.wrap(on_data)`", "`otel_concurrency.capture().headers()`"],
}
"""For programs whose hand-off no hook can carry: what the advice names."""


@pytest.mark.parametrize("name", sorted(BY_HAND.keys() & BROKEN.keys()))
def test_the_call_to_write_is_named(tmp_path, name):
    """Where no hook sees a hand-off, the advice has the call of this library that makes it."""
    program = f"broken/{name}.py"
    report = watching.run(tmp_path, program, **BROKEN[name][1])
    for orphan in report.orphans:
        for words in BY_HAND[name]:
            assert words.format(fault=watching.line_at_fault(program)) in orphan.advice


@pytest.mark.parametrize("name", ["never_detached", "not_exported"])
def test_a_leak_is_found_without_the_library(tmp_path, name):
    """What outlives its work, or is lost with its process, is found with the library off too."""
    reason, _ = BROKEN[name]
    report = watching.run(tmp_path, f"broken/{name}.py", library=False)
    assert [leak.reason for leak in report.leaks] == [reason]
    assert [leak.site for leak in report.leaks] == [watching.line_at_fault(f"broken/{name}.py")]


LOSING = {"simple": 1, "same": 1, "batch": 1, "derived": 1, "several": 1, "exec": 1, "replaced": 0}
"""How the spans of a process are exported, and how many the observer finds lost."""


@pytest.mark.parametrize("way", LOSING)
def test_each_processor_has_to_export(tmp_path, way):
    """A span is lost where one batch processor has not exported it, whatever others have."""
    report = watching.run(tmp_path, "exporting.py", way)
    assert [(leak.reason, leak.count) for leak in report.leaks] == [
        ("not_exported", LOSING[way])
    ] * bool(LOSING[way])


def test_spans_are_lost_with_their_process():
    """Not while it runs, but once it has ended, also where nobody has asked yet how."""
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    collection = Collection()
    collection.feed({"event": "queued", "pid": child.pid, "processor": "one"})
    assert collection.report().leaks == ()
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert [leak.reason for leak in collection.report().leaks] == ["not_exported"]
    child.communicate()
    assert [leak.reason for leak in collection.report().leaks] == ["not_exported"]


def test_a_leak_tells_how_often_it_happens_and_to_whom(tmp_path):
    """One line that leaks is one leak, with its count and a span that it happened to."""
    report = watching.run(tmp_path, "broken/never_detached.py", library=False)
    (leak,) = report.leaks
    (unrelated,) = [span for span in report.spans if span.name == "unrelated"]
    assert (leak.count, leak.span) == (3, unrelated.id)


EXCLUDED = {"OTEL_PYTHON_CONCURRENCY_EXCLUDED": "__main__.poller"}


def test_what_is_not_broken_raises_no_alarm(tmp_path):
    """Patterns that only look like a loss are neither orphans nor leaks."""
    report = watching.run(tmp_path, "innocent.py", **EXCLUDED)
    assert (report.orphans, report.leaks) == ((), ())
    assert len(report.spans) > 50


@pytest.mark.parametrize("settings", [{}, {"library": False}], ids=["on", "off"])
def test_a_parent_that_a_span_belongs_to_is_not_wrong(tmp_path, settings):
    """Context managers, background work and pools that look like a wrong parent raise no alarm."""
    report = watching.run(tmp_path, "belonging.py", **settings)
    assert report.leaks == ()
    assert len(report.spans) > 30


WRONG_PARENTS = (
    "scheduled_action",
    "streaming_async_generator",
    "streaming_generator",
    "worker_task",
    "worker_thread",
)


@pytest.mark.parametrize("name", WRONG_PARENTS)
def test_the_library_makes_wrong_parents_right(tmp_path, name):
    """What is wrong without the library, or with a primitive off, is no leak with all of it on."""
    if "generator" in name and sys.version_info < (3, 12):
        pytest.skip("generators keep a context of their own from Python 3.12 on")
    report = watching.run(tmp_path, f"broken/{name}.py")
    assert (report.orphans, report.leaks) == ((), ())
    assert len(report.spans) > 1


def test_without_the_library_only_what_it_would_carry_is_lost(tmp_path):
    """The same patterns with the library off lose what primitives would carry, and leak nothing."""
    report = watching.run(tmp_path, "innocent.py", library=False, **EXCLUDED)
    names = {span.id: span.name for span in report.spans}
    lost = {names[orphan.span] for orphan in report.orphans}
    assert not any("audit" in name or "poll" in name for name in lost)
    assert {orphan.reason for orphan in report.orphans} == {"primitive_off"}
    assert report.leaks == ()


def test_a_process_that_becomes_another_program_hands_off_anew(tmp_path):
    """Its hand-offs before and after are not mixed up, though the number of the process stays."""
    report = watching.run(tmp_path, "becoming.py")
    hand_offs = {hand_off.id: hand_off for hand_off in report.hand_offs}
    worked = [span for span in report.spans if span.name.startswith("work")]
    assert [span.name for span in worked] == ["work", "work again"]
    for span in worked:
        assert hand_offs[span.hand_off].origin == span.parent
    assert len(hand_offs) == 2


def test_a_hand_off_is_shown_where_the_program_made_it(tmp_path):
    """Items are hand-offs from the line that puts to the consumer, each with its own origin."""
    report = watching.run(tmp_path, "items.py")
    spans = {span.name: span for span in report.spans}
    hand_offs = {hand_off.id: hand_off for hand_off in report.hand_offs}
    for kind in ("Queue", "SimpleQueue", "asyncio.Queue"):
        for number in range(2):
            span = spans[f"{kind} {number}"]
            by = hand_offs[span.hand_off]
            assert by.call == f"{kind}.put"
            assert by.origin == spans[f"request of {kind} {number}"].id == span.parent
            assert by.carried
            assert by.waited_ns is not None


def test_items_that_nobody_carries_are_orphans(tmp_path):
    """With the library off each item's span is an orphan, of the span that put the item."""
    report = watching.run(tmp_path, "items.py", library=False)
    names = {span.id: span.name for span in report.spans}
    found = {names[orphan.span]: names[orphan.origin] for orphan in report.orphans}
    kinds = ("Queue", "SimpleQueue", "asyncio.Queue")
    items = [f"{kind} {number}" for kind in kinds for number in range(2)]
    assert found == {item: f"request of {item}" for item in items}
    assert {orphan.reason for orphan in report.orphans} == {"primitive_off"}


CALLS = {
    "Process.start",
    "Pool.apply",
    "Pool.map",
    "Pool.imap",
    "ProcessPoolExecutor.submit",
    "ProcessPoolExecutor.map",
    "multiprocessing.Queue.put",
    "multiprocessing.SimpleQueue.put",
}
ENDS = {"Process.start": 2, "multiprocessing.Queue.put": 1, "multiprocessing.SimpleQueue.put": 1}
"""How often a consumer is started, and told to end."""

WAYS = {
    "os.fork": ("os.fork", {}),
    "command": ("subprocess.run", {"OTEL_PYTHON_CONCURRENCY_SUBPROCESS": "parent"}),
}
METHODS = multiprocessing.get_all_start_methods()


@pytest.mark.parametrize("library", [True, False], ids=["on", "off"])
@pytest.mark.parametrize("method", METHODS)
def test_work_that_crosses_is_seen_on_both_sides(tmp_path, method, library):
    """What a child does is shown with the hand-off that led to it, by whichever start method."""
    report = watching.run(tmp_path, "crossing.py", method, library=library)
    crossed = _crossed(report)
    assert set(crossed) == CALLS
    handed_off = Counter(hand_off.call for hand_off in report.hand_offs)
    assert handed_off == Counter(ENDS) + Counter(CALLS)  # and none of the pools' own
    for call, (span, by) in crossed.items():
        assert by.call == call
        assert by.pid != span.pid
        assert by.to_pid == span.pid
        assert by.carried == (span.parent == by.origin)
        if library or method != "fork":  # a forked child has its parent's context
            assert by.carried == library
        assert span.end_ns is not None
    orphans = {orphan.span: orphan for orphan in report.orphans}
    if library:
        assert all(span.parent == by.origin for span, by in crossed.values())
        assert orphans == {}
        assert report.leaks == ()
    elif method != "fork":
        assert set(orphans) == {span.id for span, _ in crossed.values()}
        assert {orphan.reason for orphan in report.orphans} == {"primitive_off"}


@pytest.mark.parametrize("way", WAYS)
def test_another_way_to_another_process_is_seen(tmp_path, way):
    """A fork of the program's own, and a command, are shown with the spans of that process."""
    call, settings = WAYS[way]
    report = watching.run(tmp_path, "crossing.py", way, **settings)
    ((span, by),) = _crossed(report).values()
    assert span.name == by.call == call
    assert by.pid != span.pid == by.to_pid
    assert by.carried
    assert span.parent == by.origin
    assert (report.orphans, report.leaks) == ((), ())
    assert {process.pid for process in report.processes} == {by.pid, span.pid}


def test_a_command_in_a_trace_of_its_own_is_an_orphan(tmp_path):
    """A command's root span says which line started it, and what to switch on to join its trace."""
    report = watching.run(tmp_path, "crossing.py", "command")
    (orphan,) = report.orphans
    ((_, by),) = _crossed(report).values()
    assert (orphan.reason, orphan.site) == ("primitive_off", by.site)
    assert "OTEL_PYTHON_CONCURRENCY_SUBPROCESS=parent" in orphan.advice


def _crossed(report):
    """Return the spans of work by name, each with the hand-off by which it got where it was."""
    hand_offs = {hand_off.id: hand_off for hand_off in report.hand_offs}
    named = [span for span in report.spans if span.name != "request"]
    return {span.name: (span, hand_offs[span.hand_off]) for span in named}


def event(number, kind="span", **changes):
    """Return an event as an observer tells it."""
    span = {
        "event": kind,
        "pid": 1,
        "id": (f"{number:032x}", f"{number:016x}"),
        "parent": None,
        "name": f"span {number}",
        "start_ns": number,
        "kind": "INTERNAL",
        "links": [],
        "thread": "MainThread",
        "task": "",
        "site": "app.py:1",
        "hand_off": None,
        "suspect": None,
    }
    return {**span, **changes}


BY = {
    "primitive": "queue",
    "call": "Queue.put",
    "site": "app.py:2",
    "at_ns": 0,
    "pid": 1,
    "thread": "MainThread",
    "policy": "off",
    "origin": None,
    "carried": False,
}


def test_what_is_beyond_the_limit_is_counted():
    """Spans, hand-offs and orphans beyond the limit are dropped, and the report says how many."""
    collection = Collection(limit=10)
    for number in range(25):
        hand_off = {**BY, "id": str(number), "at_ns": number}
        collection.feed({"event": "hand_off", "pid": 1, "hand_off": hand_off})
        attach = {"at_ns": number + 1000 + number, "thread": "worker", "carried": False}
        collection.feed({"event": "attach", "pid": 1, "id": str(number), "of": hand_off, **attach})
        suspect = {"reason": "lost", "origin": None, "by": hand_off}
        collection.feed(event(number, suspect=suspect))
    report = collection.report()
    assert len(report.spans) == len(report.hand_offs) == len(report.orphans) == 10
    assert report.dropped == {"traces": 15, "spans": 15, "hand_offs": 15, "orphans": 15}
    assert collection.counts()["orphans"] == 25
    (site,) = report.call_sites
    assert (site.count, site.with_context) == (25, 0)
    assert (site.wait_p50_ns, site.wait_p95_ns, site.wait_max_ns) == (1012, 1023, 1024)


@measures_memory
def test_what_is_beyond_the_limit_takes_no_memory():
    """Twenty thousand spans take what a thousand do, where a thousand are kept."""
    import tracemalloc

    def taken(spans):
        collection = Collection(limit=1000)
        suspect = {"reason": "lost", "origin": None, "by": {**BY, "id": "1"}}
        tracemalloc.start()
        try:
            for number in range(spans):
                collection.feed(event(number, suspect=suspect))
                collection.feed(event(number, "span_end", end_ns=1, status="OK", attributes={}))
            assert len(collection.report().spans) == 1000
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    assert taken(20_000) < 1.5 * taken(1000)


def test_a_context_that_is_detached_late_is_no_leak():
    """What was taken for a leak is none any more once it is detached."""
    collection = Collection()
    leak = {"reason": "left_attached", "site": "app.py:3", "thread": "worker", "of": None}
    for key in ("1", "2"):
        collection.feed({"event": "leak", "pid": 1, "key": key, "span": None, **leak})
    assert [one.count for one in collection.report().leaks] == [2]
    collection.feed({"event": "leak_over", "pid": 1, "key": "1"})
    assert [one.count for one in collection.report().leaks] == [1]
    collection.feed({"event": "leak_over", "pid": 1, "key": "2"})
    assert collection.report().leaks == ()


WATCHED = (
    (threading.Thread, "start"),
    (threading.Condition, "notify"),
    (threading.Event, "set"),
    (threading.Event, "clear"),
    (_thread, "start_new_thread"),
    (concurrent.futures.ThreadPoolExecutor, "submit"),
    (concurrent.futures.Future, "add_done_callback"),
    (asyncio.BaseEventLoop, "run_in_executor"),
    (asyncio.Queue, "put_nowait"),
    (asyncio.Queue, "get"),
    (queue, "SimpleQueue"),
    (queue.Queue, "put"),
    (queue.Queue, "task_done"),
    (sched.scheduler, "enterabs"),
    (multiprocessing.process.BaseProcess, "start"),
    (multiprocessing.pool.Pool, "apply_async"),
    (multiprocessing.queues.Queue, "put"),
    (subprocess.Popen, "__init__"),
    (os, "_exit"),
    (context, "attach"),
    (Tracer, "start_span"),
    (Span, "end"),
    (BatchSpanProcessor, "on_end"),
)


@pytest.mark.parametrize("library", [False, True], ids=["off", "on"])
def test_stopping_leaves_nothing_behind(library):
    """After `stop` every attribute is what it was before `start`, and nothing is told any more."""
    instrumentor = ConcurrencyInstrumentor()
    if library:
        instrumentor.instrument()
    before = [vars(owner)[name] for owner, name in WATCHED]
    events = []
    observer.start(events.append, library=library)
    during = [vars(owner)[name] for owner, name in WATCHED]
    observer.stop()
    after = [vars(owner)[name] for owner, name in WATCHED]
    if library:
        instrumentor.uninstrument()
    assert all(one is not other for one, other in zip(before, during, strict=True))
    assert all(one is other for one, other in zip(before, after, strict=True))
    told = len(events)
    thread = threading.Thread(target=int)
    thread.start()
    thread.join()
    assert len(events) == told


def test_a_process_is_watched_from_the_middle(tracer, instrumented):
    """Started after the library, the observer sees what the library carries, and who lost it."""
    collection = Collection()
    observer.start(collection.feed)
    try:
        executor = concurrent.futures.ThreadPoolExecutor(1)
        with tracer.start_as_current_span("request"), executor:
            executor.submit(lambda: tracer.start_span("work").end()).result(30)
            thread = threading.Thread(target=lambda: tracer.start_span("thread").end())
            thread.start()
            thread.join()
            without_a_span = baggage.set_baggage("tenant", "acme", context.Context())
            tracer.start_span("lost", context=without_a_span).end()
    finally:
        observer.stop()
    report = collection.report()
    spans = {span.name: span for span in report.spans}
    hand_offs = {hand_off.id: hand_off for hand_off in report.hand_offs}
    for name in ("work", "thread"):
        assert spans[name].parent == spans["request"].id
        assert hand_offs[spans[name].hand_off].carried
    assert [orphan.span for orphan in report.orphans] == [spans["lost"].id]


class Failing:
    """An exporter of events that fails."""

    def __call__(self, event):
        """Fail."""
        raise RuntimeError("nobody takes it")


def test_a_fault_of_the_observer_is_none_of_the_programs(caplog, tracer):
    """Where events cannot be told of, the program goes on, and it is said once."""
    observer.start(Failing())
    try:
        with tracer.start_as_current_span("request"):
            thread = threading.Thread(target=int)
            thread.start()
            thread.join()
    finally:
        observer.stop()
    assert [record.levelname for record in caplog.records] == ["WARNING"]


def test_a_child_of_a_span_that_ended_long_before_is_a_leak(tracer):
    """A span under a parent that ended long before is a leak, and under one just ended none."""
    collection = Collection()
    observer.start(collection.feed, library=False)
    try:
        for name, seconds in (("recent", 0), ("old", 120)):
            parent = tracer.start_span(name)
            with trace.use_span(parent, end_on_exit=False):
                parent.end(time.time_ns() - seconds * 1_000_000_000)
                tracer.start_span(f"child of {name}").end()
    finally:
        observer.stop()
    report = collection.report()
    spans = {span.name: span for span in report.spans}
    (leak,) = report.leaks
    assert (leak.reason, leak.span) == ("ended_parent", spans["child of old"].id)
    assert leak.site == spans["old"].site


def test_a_worker_that_is_pinned_to_another_request_is_a_leak(tracer):
    """A span that a worker starts under an ended span of other work is a leak of that context."""
    collection = Collection()
    observer.start(collection.feed, library=False)
    try:
        first = tracer.start_span("first request")
        pinned = trace.set_span_in_context(first)
        executor = concurrent.futures.ThreadPoolExecutor(
            1, initializer=context.attach, initargs=(pinned,)
        )
        with executor:
            executor.submit(int).result(30)
            first.end()
            with tracer.start_as_current_span("second request"):
                executor.submit(lambda: tracer.start_span("work").end()).result(30)
    finally:
        observer.stop()
    report = collection.report()
    spans = {span.name: span for span in report.spans}
    (leak,) = report.leaks
    assert leak.span == spans["work"].id
    assert (leak.reason, leak.site) == ("ended_parent", spans["first request"].site)


def test_a_console_script_is_not_a_line_of_the_program():
    """Where a command of a package runs, the line is the package's own, and not the command's."""

    def defined_in(file):
        scope = {}
        exec(compile("def call(function, *args): return function(*args)", file, "exec"), scope)
        return scope["call"]

    command = defined_in(os.path.join(sysconfig.get_path("scripts"), "serve"))
    package = defined_in(os.path.join(sysconfig.get_path("purelib"), "server", "main.py"))
    found = []
    thread = threading.Thread(
        target=command, args=(package, lambda: found.append(frames.site(sys._getframe(1))))
    )
    thread.start()
    thread.join()
    (site,) = found
    assert site.line.endswith(os.path.join("server", "main.py:1"))
