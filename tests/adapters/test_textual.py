"""textual: an app without a terminal, in a thread of its own."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import Future

import pytest
from opentelemetry import context, trace
from suite import IN_BOTH_ORDERS, WAIT, Calls, check_undo, outside, run_program
from textual.app import App
from textual.events import Key
from textual.message import Message
from textual.message_pump import MessagePump
from textual.timer import Timer
from textual.widget import Widget

from otel_concurrency._linking import origins


class Work(Message):
    def __init__(self, function):
        super().__init__()
        self.function = function


class Worker(Widget):
    def on_work(self, message):
        message.function()


class Shop(App):
    def compose(self):
        self.worker, self.other = Worker(), Worker()
        yield self.worker
        yield self.other

    def answer(self):
        """Answer an event, once a test has set it."""

    def on_work(self):
        self.answer()

    def on_key(self):
        self.answer()


class Running:
    """An app that runs in a thread; started in a span, if there is one."""

    def __enter__(self):
        self.app, self.ready = Shop(), Future()
        self.thread = threading.Thread(target=asyncio.run, args=[self.main()])
        self.thread.start()
        self.ready.result(WAIT)
        return self

    async def main(self):
        self.leave, self.loop = asyncio.Event(), asyncio.get_running_loop()
        async with self.app.run_test() as pilot:
            await pilot.pause()
            self.ready.set_result(None)
            await self.leave.wait()

    def inside(self, function, *args):
        """Call a function in the app, in the present context; return what it returns."""
        answer, done = answering(lambda: function(*args))
        self.app.call_later(answer)
        return done.result(WAIT)

    def __exit__(self, *_):
        self.loop.call_soon_threadsafe(self.leave.set)
        self.thread.join(WAIT)


def answering(work):
    """Return a function that does the work, and the future of what came of it."""
    done = Future()

    def answer():
        try:
            done.set_result(work())
        except BaseException as error:
            done.set_exception(error)

    return answer, done


class TestMessages(Calls):
    setting = "asyncio"

    @pytest.fixture(autouse=True)
    def worker(self, instrument):
        with Running() as self.running:
            yield

    def post(self, answer):
        self.running.app.worker.post_message(Work(answer))

    def hand_off(self, work):
        answer, done = answering(work)
        self.post(answer)
        try:
            return done.result(WAIT)
        finally:
            del answer, done


class TestCallNext(TestMessages):
    def post(self, answer):
        self.running.app.call_next(answer)


class TestCallAfterRefresh(TestMessages):
    def post(self, answer):
        async def later():
            await asyncio.sleep(0)
            answer()

        self.running.app.call_after_refresh(later)


@pytest.fixture
def running(instrument, tracer):
    """Run an app that was started inside a span, which has ended."""
    instrument()
    with tracer.start_as_current_span("starter"):
        running = Running().__enter__()
    yield running
    running.__exit__()


def test_a_message_goes_up_to_the_parents_in_its_context(running, tracer):
    """Each widget that it reaches handles it under the span in which it was posted."""
    answer, done = answering(trace.get_current_span)
    running.app.answer = answer
    with tracer.start_as_current_span("origin") as origin:
        running.app.worker.post_message(Work(lambda: None))
    assert done.result(WAIT) is origin


def test_one_message_to_two_widgets_is_in_the_context_of_each_post(running, tracer):
    """The contexts of one object are told apart by the receiver."""
    seen, both = [], threading.Semaphore(0)

    def handle():
        seen.append(trace.get_current_span())
        both.release()

    def post():
        message = Work(handle)
        for span, receiver in zip(spans, (running.app.worker, running.app.other), strict=True):
            with trace.use_span(span):
                receiver.post_message(message)

    spans = [tracer.start_span(name) for name in ("one", "two")]
    running.inside(post)
    assert all(both.acquire(timeout=WAIT) for _ in spans)
    assert set(seen) == set(spans)


def test_what_a_terminal_sends_is_in_no_context(running):
    """Whoever has started the app."""
    running.app.answer, done = answering(context.get_current)
    outside(running.app.post_message, Key("x", "x"))
    assert not done.result(WAIT)


def test_a_timer_calls_back_in_the_context_of_who_set_it(running, tracer):
    """Once, be it a function or a coroutine function."""
    answer, done = answering(trace.get_current_span)

    async def later():
        await asyncio.sleep(0)
        answer()

    with tracer.start_as_current_span("origin") as origin:
        running.inside(running.app.set_timer, 0.001, later)
    assert done.result(WAIT) is origin


def test_each_round_of_an_interval_is_a_trace_of_its_own(running, tracer):
    """It has a link to the span in which the timer was started."""
    rounds, done = [], Future()

    def each():
        rounds.append(tracer.start_span("round"))
        if len(rounds) == 2:
            done.set_result(None)

    with tracer.start_as_current_span("origin") as origin:
        timer = running.inside(running.app.set_interval, 0.001, each)
    done.result(WAIT)
    running.inside(timer.stop)
    for span in rounds:
        assert span.parent is None
        (link,) = span.links
        assert link.context == origin.get_span_context()
        assert link.attributes[origins.REASON] == "periodic"


def test_a_timer_that_sets_itself_again_is_a_trace_each_time(running, tracer):
    """From the second round on, with a link to the one before."""
    rounds, done = [], Future()

    def each():
        rounds.append(tracer.start_span("round"))
        if len(rounds) == 3:
            done.set_result(None)
        else:
            running.app.set_timer(0.001, each)

    with tracer.start_as_current_span("origin") as origin:
        running.inside(running.app.set_timer, 0.001, each)
    done.result(WAIT)
    first, *others = rounds
    assert first.parent == origin.get_span_context()
    assert [span.parent for span in others] == [None, None]
    links = [link.context for span in others for link in span.links]
    assert links == [span.get_span_context() for span in rounds[:2]]


def test_a_worker_of_the_app_carries(running, tracer):
    """A task's, and a thread's: asyncio's own do."""
    answers = [answering(trace.get_current_span) for _ in range(2)]

    async def task():
        answers[0][0]()

    def start():
        running.app.run_worker(task())
        running.app.run_worker(answers[1][0], thread=True)

    with tracer.start_as_current_span("origin") as origin:
        running.app.call_later(start)
    assert [done.result(WAIT) for _, done in answers] == [origin, origin]


def test_a_message_that_is_not_taken_keeps_no_context(running, tracer):
    """A widget that is closed takes none."""
    with tracer.start_as_current_span("origin"):
        message = Work(int)
        running.inside(running.app.other.remove)
        while running.inside(running.app.other.post_message, message):
            pass
    assert not any(message._otel_concurrency_contexts.values())


PROGRAM = """
import asyncio
from opentelemetry import context
from textual.app import App
from textual.events import Key
async def main():
    app, seen = App(), []
    async with app.run_test() as pilot:
        context.attach(context.set_value("key", "value"))
        app.call_later(lambda: seen.append(context.get_value("key")))
        await pilot.pause()
    print(*seen)
asyncio.run(main())
"""


@IN_BOTH_ORDERS
def test_imported_before_or_after(first):
    """The order of imports does not matter."""
    assert run_program(first.format(module="textual.app") + PROGRAM) == "value\n"


def test_undo_is_exact():
    """Every attribute that was replaced is what it was, by identity."""
    check_undo(MessagePump, Timer)
