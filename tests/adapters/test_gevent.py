"""gevent: greenlets, its thread pool and its queues, and what is monkey-patched."""

from __future__ import annotations

import gc
import os
import sched
import subprocess
import sys
import sysconfig
import threading
import weakref
from importlib.metadata import entry_points
from pathlib import Path

import gevent
import gevent.pool
import gevent.queue
import gevent.thread
import gevent.threadpool
import pytest
from green_suite import PATCHED, check_all_ask_for_the_green_thread
from opentelemetry import context, trace
from suite import IN_BOTH_ORDERS, ON, WAIT, Calls, Items, check_undo, outside, run_program

from otel_concurrency import ConcurrencyInstrumentor
from otel_concurrency._core import handoff
from otel_concurrency._linking import rounds


class _Greenlets(Calls):
    setting = "threading"


class TestSpawn(_Greenlets):
    def hand_off(self, work):
        return gevent.spawn(work).get(timeout=WAIT)


class TestSpawnLater(_Greenlets):
    def hand_off(self, work):
        return gevent.spawn_later(0.001, work).get(timeout=WAIT)


class TestPool(_Greenlets):
    @pytest.fixture(autouse=True)
    def worker(self):
        self.pool = gevent.pool.Pool(1)
        yield
        self.pool.kill()

    def hand_off(self, work):
        return self.pool.spawn(work).get(timeout=WAIT)


class TestGroup(_Greenlets):
    def hand_off(self, work):
        return gevent.pool.Group().spawn(work).get(timeout=WAIT)


class TestPoolMap(TestPool):
    def hand_off(self, work):
        (result,) = self.pool.map(lambda _: work(), [1])
        return result


class _Own(gevent.Greenlet):
    def __init__(self, work):
        super().__init__()
        self.work = work

    def _run(self):
        return self.work()


class TestSubclass(_Greenlets):
    def hand_off(self, work):
        greenlet = _Own(work)
        greenlet.start()
        return greenlet.get(timeout=WAIT)


class TestSpawnRaw(_Greenlets):
    def hand_off(self, work):
        result = gevent.event.AsyncResult()

        def run():
            try:
                result.set(work())
            except Exception as error:
                result.set_exception(error)

        gevent.spawn_raw(run)
        return result.get(timeout=WAIT)


class TestThreadPool(Calls):
    setting = "futures"

    @pytest.fixture(autouse=True)
    def worker(self):
        self.pool = gevent.threadpool.ThreadPool(1)
        yield
        self.pool.kill()

    def hand_off(self, work):
        return self.pool.spawn(work).get(timeout=WAIT)


class TestThreadPoolOfTheHub(Calls):
    setting = "futures"

    def hand_off(self, work):
        return gevent.get_hub().threadpool.spawn(work).get(timeout=WAIT)


class TestThreadPoolExecutor(Calls):
    setting = "futures"

    @pytest.fixture(autouse=True)
    def worker(self):
        with gevent.threadpool.ThreadPoolExecutor(1) as self.pool:
            yield

    def hand_off(self, work):
        return self.pool.submit(work).result(timeout=WAIT)


class _Queues(Items):
    def run(self, *flows):
        greenlets = [gevent.spawn(outside, flow) for flow in flows]
        return [greenlet.get(timeout=WAIT) for greenlet in greenlets]


class TestQueue(_Queues):
    def make(self, size=None):
        return gevent.queue.Queue(size)


class TestSimpleQueue(_Queues):
    def make(self, size=None):
        return gevent.queue.SimpleQueue(size)


class TestPriorityQueue(_Queues):
    def make(self, size=None):
        return gevent.queue.PriorityQueue(size)


class TestLifoQueue(_Queues):
    def make(self, size=None):
        return gevent.queue.LifoQueue(size)

    def put_in_spans(self, queue, tracer, items):
        return super().put_in_spans(queue, tracer, items[::-1])[::-1]


class TestJoinableQueue(_Queues):
    def make(self, size=None):
        return gevent.queue.JoinableQueue(size)


class TestNoWait(TestQueue):
    def put(self, queue, item):
        queue.put_nowait(item)

    def get(self, queue):
        return queue.get_nowait()


@pytest.mark.parametrize("name", ["Queue", "SimpleQueue", "PriorityQueue", "LifoQueue"])
def test_a_consumer_and_a_producer_that_have_to_wait(name, instrument, tracer):
    """Each item goes with its putter's context, though it is the hub that puts what had to wait."""
    instrument()
    queue = getattr(gevent.queue, name)(1)
    ids, seen = {}, {}

    def producer(number):
        with tracer.start_as_current_span("put") as span:
            ids[number] = span.get_span_context().span_id
            queue.put(number)

    def consumer():
        for _ in range(4):
            number = queue.get()
            gevent.sleep(0)
            seen[number] = tracer.start_span("work").parent.span_id

    gevent.joinall(
        [gevent.spawn(consumer), *(gevent.spawn(producer, n) for n in range(4))],
        timeout=WAIT,
        raise_error=True,
    )
    assert seen == ids


@pytest.mark.parametrize("name", ["SimpleQueue", "Queue", "LifoQueue", "PriorityQueue"])
def test_identical_items_whose_putters_wait(name, instrument, tracer):
    """One that was handed to `put` without a context has none, whoever waits behind it."""
    instrument()
    queue = getattr(gevent.queue, name)(1)
    queue.put(1)
    putters = [gevent.spawn(queue.put, 1)]
    gevent.sleep(0)
    with tracer.start_as_current_span("put") as span:
        putters.append(gevent.spawn(queue.put, 1))
        gevent.sleep(0)

    def consume():
        seen = []
        for _ in range(3):
            queue.get()
            seen.append(trace.get_current_span())
        return seen

    consumer = gevent.spawn(consume)
    assert consumer.get(timeout=WAIT) == [trace.INVALID_SPAN, trace.INVALID_SPAN, span]
    gevent.joinall(putters, timeout=WAIT)


def test_a_queue_is_what_it_was_to_who_looks_at_it(instrument, tracer):
    """Its items, its type and its subclasses are the program's."""
    before = gevent.queue.Queue()
    plain = gevent.queue.Queue
    instrument()
    queue = gevent.queue.Queue()
    with tracer.start_as_current_span("put"):
        queue.put("item")
    assert list(queue.queue) == ["item"]
    assert queue.peek() == "item"
    assert isinstance(before, gevent.queue.Queue)
    assert isinstance(queue, plain)
    assert isinstance(queue, gevent.queue.SimpleQueue)
    assert issubclass(gevent.queue.JoinableQueue, gevent.queue.Queue)
    assert gevent.queue.Queue.__qualname__ == plain.__qualname__
    queue.shutdown(immediate=True)
    assert not queue.unfinished_tasks


def test_a_greenlet_that_is_killed_before_it_runs_lets_go(instrument, tracer):
    """What never runs keeps no context."""
    instrument()
    with tracer.start_as_current_span("origin") as span:
        greenlet = gevent.spawn(int)
        greenlet.kill()
    reference = weakref.ref(span)
    del span
    gc.collect()
    assert greenlet.dead
    assert reference() is None


def test_a_context_that_the_program_has_given_a_greenlet_is_its_word(instrument, tracer):
    """Nothing is attached over a `gr_context` of the user's."""
    import contextvars

    instrument()
    with tracer.start_as_current_span("origin"):
        greenlet = gevent.Greenlet(context.get_current)
        greenlet.gr_context = contextvars.Context()
        greenlet.start()
    assert not greenlet.get(timeout=WAIT)


@pytest.mark.parametrize("kind", ["Queue", "LifoQueue", "PriorityQueue", "SimpleQueue"])
def test_a_greenlet_may_begin_with_any_call(kind, instrument):
    """Nobody has called it: there is no frame below."""
    instrument()
    items = gevent.spawn(getattr(gevent.queue, kind)).get(timeout=WAIT)
    gevent.spawn(items.put, 1).get(timeout=WAIT)
    assert gevent.spawn(items.get).get(timeout=WAIT) == 1


def test_greenlets_of_one_thread_are_flows_of_their_own(instrument, tracer):
    """What runs in one of them is not taken for what runs in another."""
    instrument()
    queue = gevent.queue.Queue()

    def consumer():
        seen = []
        for _ in range(2):
            queue.get()
            seen.append(trace.get_current_span().name)
        return seen

    def other():
        gevent.sleep(0.01)

    with tracer.start_as_current_span("start"):
        waiting = gevent.spawn(consumer)
        gevent.sleep(0)
        gevent.spawn(other).join(timeout=WAIT)
    for name in ("first", "second"):
        with tracer.start_as_current_span(name):
            queue.put(name)
            gevent.sleep(0)
    assert waiting.get(timeout=WAIT) == ["first", "second"]


def test_undo_is_exact():
    """Every attribute that was replaced is what it was, by identity."""
    check_undo(
        gevent,
        gevent.hub,
        gevent.queue,
        gevent.threadpool.ThreadPool,
        handoff,
        rounds,
    )


def test_all_modules_ask_for_the_greenlet(instrument):
    """Also those that are imported when the program imports what they patch, or a library."""
    instrument()
    check_all_ask_for_the_green_thread()


@pytest.mark.parametrize("arm", ["timer", "scheduler"])
def test_what_runs_while_it_is_switched_off_leaves_nothing(arm, instrument):
    """Its thread has another number afterwards: gevent's is asked for no more."""
    others = dict(handoff.bodies)  # of threads that earlier tests have started, and that run still
    instrument()
    off = ConcurrencyInstrumentor().uninstrument
    if arm == "timer":
        timer = threading.Timer(0, off)
        timer.start()
        timer.join(WAIT)
    else:
        scheduler = sched.scheduler()
        scheduler.enter(0, 0, off)
        scheduler.run()
    assert not rounds.running
    assert handoff.bodies == others


CARRIES = """
import gevent.queue
from opentelemetry import context

q = gevent.queue.Queue()
def work():
    return context.get_value("key")
def put():
    context.attach(context.set_value("key", "of the item"))
    q.put(1)
def get():
    q.get()
    return work()
gevent.spawn(put).join()
print(gevent.spawn(get).get())
context.attach(context.set_value("key", "of the call"))
print(gevent.spawn(work).get(), gevent.get_hub().threadpool.apply(work))
"""


@IN_BOTH_ORDERS
def test_it_does_not_matter_which_is_first(first):
    """Imported before the library is switched on, or after it."""
    printed = run_program(first.format(module="gevent, gevent.queue, gevent.threadpool") + CARRIES)
    assert printed.splitlines() == ["of the item", "of the call of the call"]


MONKEY = "from gevent import monkey\nmonkey.patch_all()\n"
RUN = "\nimport gevent\ndef run(*call):\n    gevent.spawn(*call).join()\n"


@pytest.mark.parametrize(
    "first",
    [MONKEY + ON, ON + MONKEY, "import queue, threading, sched\n" + ON + MONKEY],
    ids=["patched first", "instrumented first", "imported, instrumented, patched"],
)
def test_what_is_monkey_patched_carries(first):
    """Threads, timers, pools, schedulers and queues of the standard library, as greenlets."""
    assert run_program(first + RUN + PATCHED) == "wrong: []\n"


def test_what_opentelemetry_patches_before_it_instruments_carries(tmp_path):
    """The same under `opentelemetry-instrument`, asked to have gevent patch first."""
    program = tmp_path / "program.py"
    plain = RUN + PATCHED.replace("trace.set_tracer_provider(TracerProvider())\n", "")
    program.write_text(
        f"{plain}\nfrom gevent import monkey\nassert monkey.is_module_patched('threading')\n"
    )
    installed = {entry.name for entry in entry_points(group="opentelemetry_instrumentor")}
    settings = {
        "OTEL_PYTHON_AUTO_INSTRUMENTATION_EXPERIMENTAL_GEVENT_PATCH": "patch_all",
        "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": ",".join(installed - {"concurrency"}),
        "OTEL_TRACES_EXPORTER": "none",
        "OTEL_METRICS_EXPORTER": "none",
        "OTEL_LOGS_EXPORTER": "none",
    }
    done = subprocess.run(
        [Path(sysconfig.get_path("scripts")) / "opentelemetry-instrument", sys.executable, program],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
        env={**os.environ, **settings},
    )
    assert (done.returncode, done.stdout) == (0, "wrong: []\n"), done.stderr


UNDONE = """
import queue, gevent.queue, gevent.threadpool, threading
I().uninstrument()
q = queue.Queue()
from opentelemetry import context
context.attach(context.set_value("key", 1))
q.put("item")
print(gevent.spawn(lambda: (q.get(), bool(context.get_current()))).get())
I().instrument()
q.put("item")
print(gevent.spawn(lambda: (q.get(), bool(context.get_current()))).get())
"""


@pytest.mark.parametrize("first", [MONKEY + ON, ON + MONKEY], ids=["patched first", "on first"])
def test_under_monkey_patching_it_can_be_switched_off_and_on(first):
    """A queue that is bound meanwhile carries nothing, and works."""
    assert run_program(first + UNDONE) == "('item', False)\n('item', True)\n"


NATIVE = """
import gc, weakref
import gevent, gevent.threadpool
from opentelemetry import context

class Thing: pass
thing = Thing()
pool = gevent.threadpool.ThreadPool(1)
token = context.attach(context.set_value("thing", thing))
pool.spawn(int).get()
context.detach(token)
reference = weakref.ref(thing)
del thing, token
gc.collect()
print(reference(), pool.size)
"""


@pytest.mark.parametrize(
    "first", [ON, MONKEY + ON, ON + MONKEY], ids=["", "patched", "then patched"]
)
def test_a_native_worker_belongs_to_nobody(first):
    """The thread that a request has caused keeps nothing of it."""
    assert run_program(first + NATIVE) == "None 1\n"


@pytest.mark.parametrize("kind", ["Queue", "SimpleQueue", "LifoQueue", "PriorityQueue"])
def test_a_pool_that_looks_before_it_makes_a_thing_hands_nothing_on(kind, instrument, tracer):
    """It finds with ``empty()`` that there is none, so what the request puts is not work."""
    instrument()
    pool = getattr(gevent.queue, kind)()

    def request():
        with tracer.start_as_current_span("request"):
            assert pool.empty()
            pool.put("connection")

    def check():
        assert pool.get(block=False) == "connection"
        with tracer.start_as_current_span("check") as span:
            return span.parent

    outside(request)
    assert outside(check) is None
