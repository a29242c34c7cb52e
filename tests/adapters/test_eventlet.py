"""eventlet: green threads, its thread pool and its queues, and what is monkey-patched."""

from __future__ import annotations

import gc
import warnings
import weakref

import pytest
from green_suite import PATCHED, check_all_ask_for_the_green_thread
from opentelemetry import context, trace
from suite import IN_BOTH_ORDERS, ON, WAIT, Calls, Items, check_undo, outside, run_program

from otel_concurrency._core import handoff

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # it warns of itself
    import eventlet
    import eventlet.greenthread
    import eventlet.queue
    import eventlet.tpool


class _Green(Calls):
    setting = "threading"


class TestSpawn(_Green):
    def hand_off(self, work):
        return eventlet.spawn(work).wait()


class TestSpawnAfter(_Green):
    def hand_off(self, work):
        return eventlet.spawn_after(0.001, work).wait()


class TestPool(_Green):
    @pytest.fixture(autouse=True)
    def worker(self):
        self.pool = eventlet.GreenPool(1)

    def hand_off(self, work):
        return self.pool.spawn(work).wait()


class TestPoolMap(TestPool):
    def hand_off(self, work):
        (result,) = self.pool.imap(lambda _: work(), [1])
        return result


class TestSpawnN(_Green):
    spawn_n = staticmethod(eventlet.spawn_n)

    def hand_off(self, work):
        done = eventlet.Event()

        def run():
            try:
                done.send(work())
            except Exception as error:
                done.send_exception(error)

        self.spawn_n(run)
        return done.wait(WAIT)


class TestPoolSpawnN(TestSpawnN):
    @pytest.fixture(autouse=True)
    def worker(self):
        self.spawn_n = eventlet.GreenPool(1).spawn_n


class TestThreadPool(Calls):
    setting = "futures"

    @pytest.fixture(autouse=True)
    def worker(self, monkeypatch):
        monkeypatch.setattr(eventlet.tpool, "QUIET", True)
        yield
        eventlet.tpool.killall()

    def hand_off(self, work):
        return eventlet.tpool.execute(work)


class TestQueue(Items):
    kind = "Queue"

    def make(self, size=None):
        return getattr(eventlet.queue, self.kind)(size)

    def run(self, *flows):
        return [green.wait() for green in [eventlet.spawn(outside, flow) for flow in flows]]


class TestLightQueue(TestQueue):
    kind = "LightQueue"


class TestPriorityQueue(TestQueue):
    kind = "PriorityQueue"


class TestNoWait(TestQueue):
    def put(self, queue, item):
        queue.put_nowait(item)

    def get(self, queue):
        return queue.get_nowait()


@pytest.mark.parametrize("kind", ["LightQueue", "Queue", "PriorityQueue", "LifoQueue"])
@pytest.mark.parametrize("size", [None, 0, 1])
@pytest.mark.parametrize("consumer_first", [True, False])
def test_consumers_and_producers_that_wait(kind, size, consumer_first, instrument, tracer):
    """Each item goes with its putter's context, though it is the hub that puts and takes."""
    instrument()
    queue = getattr(eventlet.queue, kind)(size)
    ids, seen = {}, {}

    def producer(number):
        with tracer.start_as_current_span("put") as span:
            ids[number] = span.get_span_context().span_id
            queue.put(number)

    def consumer():
        for _ in range(2):
            number = queue.get()
            eventlet.sleep(0)
            seen[number] = tracer.start_span("work").parent.span_id
            if hasattr(queue, "task_done"):
                queue.task_done()
                assert not context.get_current()

    def start():
        return [eventlet.spawn(outside, consumer) for _ in range(2)]

    with eventlet.Timeout(WAIT):
        green = start() if consumer_first else []
        eventlet.sleep(0)
        green += [eventlet.spawn(outside, producer, number) for number in range(4)]
        eventlet.sleep(0)
        green += [] if consumer_first else start()
        for one in green:
            one.wait()
    assert seen == ids


def test_a_put_that_is_given_up_leaves_nothing(instrument, tracer):
    """Nor is its context another item's."""
    instrument()

    def flow():
        queue = eventlet.queue.Queue(1)
        with tracer.start_as_current_span("fills it"):
            queue.put(1)
        with tracer.start_as_current_span("refused") as span:
            with pytest.raises(eventlet.queue.Full):
                queue.put(1, timeout=0.001)
            with pytest.raises(eventlet.queue.Full):
                queue.put_nowait(1)
        reference = weakref.ref(span)
        del span
        gc.collect()
        assert reference() is None
        queue.get()
        assert trace.get_current_span().name == "fills it"
        with pytest.raises(eventlet.queue.Empty):
            queue.get(timeout=0.001)
        assert not context.get_current()
        queue.put(1)
        queue.get()
        return bool(context.get_current())

    assert eventlet.spawn(outside, flow).wait() is False


def test_a_green_thread_that_is_cancelled_lets_go(instrument, tracer):
    """What never runs keeps no context."""
    instrument()
    with tracer.start_as_current_span("origin") as span:
        green = eventlet.spawn_after(60, int)
    green.cancel()
    reference = weakref.ref(span)
    del span
    gc.collect()
    assert reference() is None


def test_green_threads_of_one_thread_are_flows_of_their_own(instrument, tracer):
    """What runs in one of them is not taken for what runs in another."""
    instrument()
    queue = eventlet.queue.Queue()

    def consumer():
        seen = []
        for _ in range(2):
            queue.get()
            seen.append(trace.get_current_span().name)
        return seen

    with tracer.start_as_current_span("start"):
        waiting = eventlet.spawn(consumer)
        eventlet.sleep(0)
        eventlet.spawn(eventlet.sleep, 0.001).wait()
    for name in ("first", "second"):
        with tracer.start_as_current_span(name):
            queue.put(name)
            eventlet.sleep(0)
    assert waiting.wait() == ["first", "second"]


def test_all_modules_ask_for_the_green_thread(instrument):
    """Also those that are imported when the program imports what they patch, or a library."""
    instrument()
    check_all_ask_for_the_green_thread()


def test_undo_is_exact():
    """Every attribute that was replaced is what it was, by identity."""
    check_undo(
        eventlet.greenthread,
        eventlet.greenthread.GreenThread,
        eventlet.queue.LightQueue,
        eventlet.queue.Queue,
        eventlet.tpool,
        handoff,
    )


QUIET = "import warnings\nwarnings.simplefilter('ignore')\n"
CARRIES = """
from opentelemetry import context
q = eventlet.queue.Queue()
def work():
    return context.get_value("key")
def put():
    context.attach(context.set_value("key", "of the item"))
    q.put(1)
def get():
    q.get()
    return work()
eventlet.spawn(put).wait()
print(eventlet.spawn(get).wait())
context.attach(context.set_value("key", "of the call"))
print(eventlet.spawn(work).wait(), eventlet.tpool.execute(work))
eventlet.tpool.killall()
"""


@IN_BOTH_ORDERS
def test_it_does_not_matter_which_is_first(first):
    """Imported before the library is switched on, or after it."""
    first = QUIET + first.format(module="eventlet, eventlet.queue, eventlet.tpool")
    printed = run_program(first + CARRIES)
    assert printed.splitlines() == ["of the item", "of the call of the call"]


MONKEY = "import eventlet\neventlet.monkey_patch()\n"
RUN = "\ndef run(*call):\n    eventlet.spawn(*call).wait()\n"


@pytest.mark.parametrize(
    "first",
    [MONKEY + ON, ON + MONKEY, "import queue, threading, sched\n" + ON + MONKEY],
    ids=["patched first", "instrumented first", "imported, instrumented, patched"],
)
def test_what_is_monkey_patched_carries(first):
    """Threads, timers, pools, schedulers and queues of the standard library, as green threads."""
    assert run_program(QUIET + first + RUN + PATCHED) == "wrong: []\n"
