"""By hand and by the library at once: one parent, and the table in the docs says which."""

from __future__ import annotations

import _thread
import asyncio
import concurrent.futures
import contextvars
import multiprocessing
import queue
import re
import sched
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from opentelemetry.context import attach, detach
from opentelemetry.instrumentation.threading import ThreadingInstrumentor
from seen import NOTHING, WAIT, context_of, current, id_of, in_context, without_context

from otel_concurrency import ConcurrencyInstrumentor, HandOff, batch, capture, clean, wrap

DOCS = Path(__file__).parents[2] / "docs" / "by-hand.md"


class Case:
    """What a row needs: two spans, and what work sees of the context."""

    def __init__(self, tracer):
        self.tracer = tracer
        self.first = tracer.start_span("first")
        self.second = tracer.start_span("second")
        self.handoff = in_context(context_of(self.first, "first"), capture)
        self.link = in_context(context_of(self.first, "first"), capture, "link")
        self.by_hand = id_of(self.first), "first"
        self.seen = []

    def work(self, *_):
        self.seen.append(current())

    def elsewhere(self, function, *args):
        """Call a function in the second span, where the work is handed off."""
        return in_context(context_of(self.second, "second"), function, *args)

    @property
    def saw(self):
        (one,) = self.seen
        return one


def _join(thread):
    thread.join(WAIT)
    assert not thread.is_alive()


def _submit(case, work):
    with ThreadPoolExecutor(1) as pool:
        case.elsewhere(pool.submit, work).result(WAIT)


def _thread_(case, work):
    started = threading.Thread(target=work)
    case.elsewhere(started.start)
    _join(started)


def _timer(case, work):
    started = threading.Timer(0, work)
    case.elsewhere(started.start)
    _join(started)


def _raw_thread(case, work):
    done = threading.Event()
    case.elsewhere(_thread.start_new_thread, lambda: (work(), done.set()), ())
    assert done.wait(WAIT)


def _scheduled(case, work):
    scheduler = sched.scheduler()
    case.elsewhere(scheduler.enter, 0, 1, work)
    scheduler.run()


def _done_callback(case, work):
    future = concurrent.futures.Future()
    case.elsewhere(future.add_done_callback, work)
    future.set_result(None)


def _run_in_executor(case, work):
    async def main():
        await case.elsewhere(asyncio.get_running_loop().run_in_executor, None, work)

    asyncio.run(main())


def _call_soon(case, work):
    async def main():
        case.elsewhere(asyncio.get_running_loop().call_soon, work)
        await asyncio.sleep(0)

    asyncio.run(main())


def _to_thread(case, work):
    async def main():
        await case.elsewhere(asyncio.ensure_future, asyncio.to_thread(work))

    asyncio.run(main())


def _copied_context(case, work):
    case.elsewhere(contextvars.copy_context).run(work)


HANDED_OFF = (
    _submit,
    _thread_,
    _timer,
    _raw_thread,
    _scheduled,
    _done_callback,
    _run_in_executor,
    _call_soon,
    _to_thread,
    _copied_context,
)


# --- the rows of the table, each with what it says ---

ROWS = {}


def row(words):
    """Add a test: the row of the table with these words is as it says."""

    def add(test):
        ROWS[words] = test
        return test

    return add


@row(
    "a wrapped callable, handed to a thread, a pool, a timer, a scheduler, an event loop, a future"
)
def _wrapped_and_carried(case):
    for hand_off in HANDED_OFF:
        case.seen.clear()
        hand_off(case, case.handoff.wrap(case.work))
        assert case.saw == case.by_hand, hand_off.__name__


@row("a wrapped callable, under another policy of the library than its own")
def _policies_differ(case):
    for hand_off in (_submit, _thread_):
        for handoff, expected in ((case.handoff, case.by_hand), (case.link, (0, "first"))):
            case.seen.clear()
            hand_off(case, handoff.wrap(case.work))
            assert case.saw == expected


@row("a wrapped callable, run by a library in `copy_context()`")
def _in_a_copy(case):
    _copied_context(case, case.handoff.wrap(case.work))
    assert case.saw == case.by_hand


@row("a hand-off put into a queue beside its item")
def _beside_an_item(case):
    items = queue.Queue()
    case.elsewhere(lambda: items.put((capture(), "item")))

    def consume():
        handoff, _ = items.get()
        with handoff:
            case.work()

    without_context(consume)
    assert case.saw == (id_of(case.second), "second")


@row("a hand-off entered around `get`, whose span still runs")
def _around_get(case):
    items = queue.Queue()
    case.elsewhere(items.put, "item")

    def consume():
        with case.handoff:
            items.get()
            case.work()
        return current()

    assert without_context(consume) == NOTHING
    assert case.saw == case.by_hand


@row("`clean()` entered around `get`")
def _clean_around_get(case):
    items = queue.Queue()
    case.elsewhere(items.put, "item")

    def consume():
        with clean():
            items.get()
            case.work()
        return current()

    assert without_context(consume) == NOTHING
    assert case.saw == ((id_of(case.second), "second") if case.library == "on" else NOTHING)


@row("work that attaches a context itself")
def _attaches_itself(case):
    def work():
        token = attach(context_of(case.second, "second"))
        case.work()
        detach(token)
        case.work()

    without_context(case.handoff.wrap(work))
    assert case.seen == [(id_of(case.second), "second"), case.by_hand]


@row("a span that is started with `context=`")
def _explicit_context(case):
    with case.handoff:
        span = case.tracer.start_span("explicit", context=context_of(case.second))
    assert span.parent == case.second.get_span_context()


@row("one hand-off inside another, or inside a batch or `clean()`")
def _innermost(case):
    other = case.elsewhere(capture)
    for outer in (other, batch([other]), clean(), case.link):
        case.seen.clear()
        with outer:
            case.handoff.run(case.work)
        assert case.saw == case.by_hand
    with case.handoff, clean():
        assert current() == NOTHING


@row("a thread or callable that starts clean (`EXCLUDED`), with a wrapped target")
def _excluded(case):
    _thread_(case, case.handoff.wrap(case.work))
    assert case.saw == case.by_hand


@row("a timer that re-arms itself with a wrapped callable")
def _periodic(case):
    done = threading.Event()
    spans = []

    def tick():
        spans.append(case.tracer.start_span("round"))
        if len(spans) == 3:
            done.set()
        else:
            threading.Timer(0, wrapped).start()

    wrapped = case.handoff.wrap(tick)
    case.elsewhere(threading.Timer(0, wrapped).start)
    assert done.wait(WAIT)
    assert {span.parent.span_id for span in spans} == {id_of(case.first)}
    assert not [link for span in spans for link in span.links]


@row("headers by hand in a message whose instrumentor has a span of its own current")
def _inside_an_instrumentors_span(case):
    headers = case.handoff.headers()
    with case.tracer.start_as_current_span("process"), HandOff.from_headers(headers):
        case.work()
    assert case.saw == case.by_hand


@row("a wrapped callable, beside the official threading instrumentor")
def _beside_the_official(case):
    ThreadingInstrumentor().instrument()
    try:
        for hand_off in (_submit, _thread_, _timer):
            case.seen.clear()
            hand_off(case, case.handoff.wrap(case.work))
            assert case.saw == case.by_hand
    finally:
        ThreadingInstrumentor().uninstrument()


@row("a hand-off that is pickled, in a child process to which this library carries context")
def _pickled(case):
    get, put = multiprocessing.get_context("spawn").Pipe(duplex=False)
    process = multiprocessing.get_context("spawn").Process(
        target=in_a_child, args=(case.handoff, put)
    )
    case.elsewhere(process.start)
    assert get.poll(60)
    assert get.recv() == case.by_hand
    process.join(60)


def in_a_child(handoff, put):
    """Send what is current inside the hand-off."""
    with handoff:
        put.send(current())


def _settings(words):
    if "policy" in words:
        return [{"policy": "link"}, {}]
    if "EXCLUDED" in words:
        return [{"excluded": f"{__name__},seen"}]
    return [{}]


CASES = [
    (words, library, settings)
    for words in ROWS
    for library in ("off", "on")
    for settings in (_settings(words) if library == "on" else [{}])
]


@pytest.mark.parametrize(("words", "library", "settings"), CASES)
def test_one_parent(words, library, settings, instrument, tracer, official):
    """As the table has it, with the library off and on: the innermost one stands."""
    case = Case(tracer)
    case.library = library
    if library == "on":
        instrument(**settings)
    ROWS[words](case)
    for span in (case.first, case.second):
        span.end()


def test_the_table_has_these_rows():
    """The docs say who wins in just the cases that are tested here."""
    text = DOCS.read_text(encoding="utf-8")
    table = text.split("## Who wins", 1)[1].split("\n## ", 1)[0]
    rows = re.findall(r"^\| (.+?) \| ", table, re.M)
    assert rows[2:] == [*ROWS]


def test_one_span_in_one_trace(instrument, tracer, exporter):
    """A span in a callable that is wrapped, submitted and carried is exported once."""
    instrument()
    with tracer.start_as_current_span("request") as request, ThreadPoolExecutor(1) as pool:
        pool.submit(wrap(lambda: tracer.start_span("work").end())).result(WAIT)
    spans = [span for span in exporter.get_finished_spans() if span.name == "work"]
    assert [span.parent for span in spans] == [request.get_span_context()]


def test_a_span_is_one_though_links_were_given_by_hand_before(tracer):
    """Switched on later, the library sees each span once; switched off, links are given again."""
    with tracer.start_as_current_span("linked"):
        linked = capture("link")
    ConcurrencyInstrumentor().instrument()
    items, spans = queue.Queue(), []

    def consume():
        items.get()
        with pytest.raises(queue.Empty):
            items.get_nowait()
        for _ in range(2):
            with tracer.start_as_current_span("work") as span:
                spans.append(span)

    try:
        with tracer.start_as_current_span("producer") as producer:
            items.put(1)
        without_context(consume)
    finally:
        ConcurrencyInstrumentor().uninstrument()
    assert spans[0].parent.span_id == producer.get_span_context().span_id
    assert spans[1].parent is None
    with linked, tracer.start_as_current_span("later") as later:
        assert later.parent is None
        assert len(later.links) == 1
