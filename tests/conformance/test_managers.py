"""What a manager's server is asked to do belongs to whoever asks: items of its queues, its pools.

The servers are processes of their own, and so are consumers; one server is no child of the test's.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import queue
import subprocess
import sys
import threading
from multiprocessing import managers

import pytest
from forms import WAIT, without_context
from opentelemetry import baggage
from opentelemetry.context import attach, get_current, set_value
from pool_work import NOTHING, look

from interpreters import weak_reference
from otel_concurrency import ConcurrencyInstrumentor

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")

PATIENCE = 60
QUEUES = ("Queue", "JoinableQueue")
every_queue = pytest.mark.parametrize("name", QUEUES)


@pytest.fixture(params=["fork", "forkserver", "spawn"])
def manager(request, instrument):
    """Return a manager whose server is started with the library on, by each method."""
    instrument()
    with multiprocessing.get_context(request.param).Manager() as started:
        yield started


@pytest.fixture
def forked(instrument):
    """Return a manager whose server is forked, with the library on."""
    instrument()
    with multiprocessing.get_context("fork").Manager() as started:
        yield started


def put_under(tracer, put, item, tenant="acme"):
    """Put inside a span, with baggage; return what is to be seen while the item is handled."""

    def request():
        attach(baggage.set_baggage("key", tenant))
        with tracer.start_as_current_span("producer") as span:
            put(item)
        return span.get_span_context().span_id, tenant, False

    return without_context(request)


def get_and_look(get, count):
    """Get items one after the other; return each with what its consumer is in."""

    def consume():
        return [(get(timeout=PATIENCE), look()) for _ in range(count)]

    return without_context(consume)


def consume_and_send(items, count, sender):
    """Get items in another process, and send what it sees."""
    sender.send([(items.get(timeout=PATIENCE), look()) for _ in range(count)])


@every_queue
def test_an_item_belongs_to_whoever_puts_it(name, manager, tracer):
    """In the same process, in another one, and after an item without a context."""
    items = getattr(manager, name)()
    expected = [put_under(tracer, items.put, number, f"tenant {number}") for number in (1, 2)]
    without_context(items.put, 3)
    assert get_and_look(items.get, 3) == [(1, expected[0]), (2, expected[1]), (3, NOTHING)]

    fourth = put_under(tracer, items.put_nowait, 4)
    without_context(items.put, 5)
    ctx = manager._ctx
    receiver, sender = ctx.Pipe(duplex=False)
    process = ctx.Process(target=consume_and_send, args=(items, 2, sender))
    without_context(process.start)
    assert receiver.poll(PATIENCE)
    assert receiver.recv() == [(4, fourth), (5, NOTHING)]
    process.join(PATIENCE)


def test_a_consumer_lets_go_where_it_asks_for_the_next(forked, tracer):
    """Before it waits, when it says that it is done, and not when it asks how many there are."""
    items = forked.JoinableQueue()
    expected = put_under(tracer, items.put, 1)
    seen = []

    def consume():
        items.get()
        items.qsize()
        seen.append(look())
        items.task_done()
        seen.append(look())
        put_under(tracer, items.put, 2)
        items.get_nowait()
        with pytest.raises(queue.Empty):
            items.get(timeout=0)
        seen.append(look())

    without_context(consume)
    assert seen == [expected, NOTHING, NOTHING]


def test_a_consumer_with_a_span_of_its_own_keeps_it(forked, tracer):
    """A request that collects results adopts none."""
    items = forked.Queue()
    put_under(tracer, items.put, 1)
    with tracer.start_as_current_span("request") as span:
        items.get()
        assert look() == (span.get_span_context().span_id, None, True)


def test_the_server_keeps_nothing_of_its_callers(forked, tracer):
    """A thread of the server that has served one is in no context for the next.

    The items are other objects each time: to put the same small integer again that one has just
    taken is to give it back.
    """
    items = forked.Queue()
    for turn in range(3):
        expected = put_under(tracer, items.put, f"first {turn}")
        without_context(items.put, f"second {turn}")
        seen = get_and_look(items.get, 2)
        assert seen == [(f"first {turn}", expected), (f"second {turn}", NOTHING)]


@pytest.mark.parametrize("setting", ["queue", "multiprocessing"])
def test_a_policy_of_links_holds(setting, instrument, tracer):
    """Under `link`, of either, the consumer's spans are linked to the producer's."""
    instrument(**{setting: "link"})
    with multiprocessing.get_context("fork").Manager() as manager:
        items = manager.Queue()
        span_id, *_ = put_under(tracer, items.put, 1)

        def consume():
            items.get()
            span = tracer.start_span("consumer")
            return span.parent, [link.context.span_id for link in span.links]

        assert without_context(consume) == (None, [span_id])


@pytest.mark.parametrize("setting", ["queue", "multiprocessing"])
def test_off_is_off(setting, instrument, tracer):
    """Items are carried by both; where one is off they are not, and arrive all the same."""
    instrument(**{setting: "off"})
    with multiprocessing.get_context("fork").Manager() as manager:
        items = manager.Queue()
        put_under(tracer, items.put, 1)
        assert get_and_look(items.get, 1) == [(1, NOTHING)]


def test_a_managers_pool_works_for_whoever_asks_it(manager, tracer):
    """Its processes are in the context of the caller, in every form."""
    pool = manager.Pool(1)

    def request():
        attach(baggage.set_baggage("key", "acme"))
        with tracer.start_as_current_span("request") as span:
            expected = span.get_span_context().span_id, "acme", False
            found = [
                pool.apply(look),
                pool.apply_async(look).get(PATIENCE),
                *pool.map(look, range(2)),
                *pool.imap(look, range(2)),
                *pool.starmap(look, [(1,)]),
            ]
        return found, [expected] * len(found)

    found, expected = without_context(request)
    assert found == expected
    assert without_context(pool.apply, look) == NOTHING
    pool.close()
    pool.join()


class Jobs:
    """An object of a program's own in a manager's server: it has a queue inside."""

    def __init__(self):
        self._items = queue.Queue()

    def add(self, job):
        self._items.put(job)
        return look()

    def next(self):
        return self._items.get()

    def fail(self):
        raise LookupError("theirs")


class Own(managers.BaseManager):
    """A manager of a program's own."""


Own.register("Jobs", Jobs)


def test_methods_of_objects_run_in_the_context_of_their_caller(instrument, tracer):
    """And what such a method takes from a queue in the server is adopted by whoever called it."""
    instrument()
    seen = []
    with Own(ctx=multiprocessing.get_context("fork")) as manager:
        jobs = manager.Jobs()
        expected = put_under(tracer, lambda job: seen.append(jobs.add(job)), "job")

        def consume():
            found = jobs.next(), look()
            with pytest.raises(LookupError, match="theirs"):
                jobs.fail()
            return found

        assert without_context(consume) == ("job", expected)
    assert seen == [expected]


def test_data_and_locks_are_as_without_the_library(forked, tracer):
    """What hands nothing off carries nothing, and a dictionary's `get` lets go of nothing."""
    items = forked.Queue()
    data, numbers, lock = forked.dict(), forked.list(), forked.Lock()
    expected = put_under(tracer, items.put, 1)

    def consume():
        items.get()
        data["key"] = 1
        numbers.append(data.get("key"))
        with lock:
            pass
        return look(), list(numbers)

    assert without_context(consume) == (expected, [1])


SERVER = """
import queue, sys
from multiprocessing.managers import BaseManager
class Manager(BaseManager):
    pass
items = queue.Queue()
Manager.register("get_items", callable=lambda: items)
server = Manager(("127.0.0.1", 0), authkey=b"key").get_server()
print(server.address[1], flush=True)
server.serve_forever()
"""

INSTRUMENTED = "from otel_concurrency import ConcurrencyInstrumentor as I; I().instrument()"


@contextlib.contextmanager
def remote_items(*, instrumented=True):
    """Start a server that is no child of multiprocessing's, and connect to its queue."""
    source = f"{INSTRUMENTED if instrumented else ''}\n{SERVER}"
    with subprocess.Popen(
        [sys.executable, "-c", source], stdout=subprocess.PIPE, text=True
    ) as server:
        try:

            class Manager(managers.BaseManager):
                pass

            Manager.register("get_items")
            manager = Manager(("127.0.0.1", int(server.stdout.readline())), authkey=b"key")
            manager.connect()
            yield manager.get_items()
        finally:
            server.kill()


def test_items_cross_to_a_server_of_another_program(instrument, tracer):
    """As over the network: who puts and who gets know the server by its address."""
    instrument()
    with remote_items() as items:
        expected = put_under(tracer, items.put, 1)
        without_context(items.put, 2)
        assert get_and_look(items.get, 2) == [(1, expected), (2, NOTHING)]


def test_a_server_without_the_library_serves_all_the_same(instrument, tracer):
    """Items arrive; nobody knows their contexts, and none is taken for another's."""
    instrument()
    with remote_items(instrumented=False) as items:
        put_under(tracer, items.put, {"an": "item"})
        assert get_and_look(items.get, 1) == [({"an": "item"}, NOTHING)]


def test_a_caller_without_the_library_is_served_all_the_same(tracer):
    """It gets the plain items of one that has it."""
    with remote_items() as items:
        ConcurrencyInstrumentor().instrument()
        put_under(tracer, items.put, 1)
        ConcurrencyInstrumentor().uninstrument()
        items.put(2)
        assert [items.get(), items.get()] == [1, 2]


HOST = """
import sys
sys.path[:] = {path!r}
{instrument}
import os, threading
from multiprocessing.managers import SyncManager
server = SyncManager(("127.0.0.1", 0), authkey=b"key").get_server()
threading.Thread(target=server.serve_forever, daemon=True).start()
print(server.address[1], flush=True)
os.read(0, 1)  # without its lock, which a forked worker would find held
"""

CONSUMER = """
import sys
sys.path[:] = {path!r}
{instrument}
from multiprocessing.managers import BaseManager
from pool_work import look
class Manager(BaseManager):
    pass
Manager.register("get_items")
manager = Manager(address=("127.0.0.1", {port}), authkey=b"key")
manager.connect()
items = manager.get_items()
print([(items.get(timeout={patience}), look()) for _ in range(2)])
"""


def test_items_cross_to_a_consumer_on_another_host(instrument, tracer):
    """The server, who puts and who gets are three programs, and know the server's address alone."""
    instrument()
    with remote_items() as items:
        expected = put_under(tracer, items.put, 1)
        without_context(items.put, 2)
        _, port = items._token.address
        source = CONSUMER.format(
            path=sys.path, instrument=INSTRUMENTED, port=port, patience=PATIENCE
        )
        consumer = subprocess.run(
            [sys.executable, "-c", source],
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
    assert consumer.stdout == f"{[(1, expected), (2, NOTHING)]}\n", consumer.stderr


def test_pools_and_queues_of_another_host_work_for_whoever_asks_them(instrument, tracer):
    """They are made on request in a server that was not started by the program that asks."""
    instrument()
    source = HOST.format(path=sys.path, instrument=INSTRUMENTED)
    with subprocess.Popen(
        [sys.executable, "-c", source], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as server:  # which ends when its standard input does
        address = ("127.0.0.1", int(server.stdout.readline()))
        manager = managers.SyncManager(address, authkey=b"key")
        manager.connect()
        pool = manager.Pool(1)
        for tenant in ("acme", "other"):
            seen = []
            expected = put_under(
                tracer, lambda _, seen=seen: seen.append(pool.apply(look)), None, tenant
            )
            assert seen == [expected]
        assert without_context(pool.apply, look) == NOTHING
        pool.terminate()
        for name in QUEUES:
            items = getattr(manager, name)()
            expected = put_under(tracer, items.put, 1)
            assert get_and_look(items.get, 1) == [(1, expected)]


# --- what a program may notice ---


def outcomes(manager):
    """Return what comes of wrong and failing calls."""
    items = manager.Queue(1)
    found = []
    for call in (
        lambda: items.put(),
        lambda: items.put(lambda: 1),
        lambda: items.put(1, block=False),
        lambda: items.put_nowait(2),
        lambda: items.get(False),
        lambda: items.get(timeout=0),
        lambda: items.get(wrong=1),
        lambda: items._callmethod("missing"),
        lambda: items._callmethod("qsize", kwds={}),
        lambda: str(items)[:20],
        lambda: items._getvalue(),
    ):
        try:
            found.append(repr(call()))
        except Exception as error:
            found.append((type(error), str(error).strip().splitlines()[-1:]))
    return [str(one).split(" at 0x")[0] for one in found]


def test_calls_fail_as_without_the_library(tracer):
    """With the errors that the server has sent."""
    ctx = multiprocessing.get_context("fork")
    with ctx.Manager() as manager:
        plain = outcomes(manager)
    ConcurrencyInstrumentor().instrument()
    try:
        with ctx.Manager() as manager, tracer.start_as_current_span("request"):
            assert outcomes(manager) == plain
    finally:
        ConcurrencyInstrumentor().uninstrument()


def test_a_consumer_is_not_left_in_an_item_when_the_library_goes(instrument, tracer):
    """It lets go with its next item, as with other queues."""
    instrument()
    with multiprocessing.get_context("fork").Manager() as manager:
        items = manager.Queue()
        put_under(tracer, items.put, 1)
        items.put(2)
        took, off = threading.Event(), threading.Event()
        seen = []

        def consume():
            items.get()
            took.set()
            assert off.wait(WAIT)
            items.get()
            seen.append(dict(get_current()))

        thread = threading.Thread(target=without_context, args=(consume,))
        thread.start()
        assert took.wait(WAIT)
        ConcurrencyInstrumentor().uninstrument()
        off.set()
        thread.join(WAIT)
        assert seen == [{}]
        assert "_callmethod" in vars(items)
        ConcurrencyInstrumentor().instrument()
        assert "_callmethod" not in vars(items)


def test_a_server_that_is_gone_is_the_error_of_the_standard_library(instrument, tracer):
    """The next call says so."""
    instrument()
    manager = multiprocessing.get_context("fork").Manager()
    items = manager.Queue()
    with tracer.start_as_current_span("request"):
        items.put(1)
        manager.shutdown()
        with pytest.raises((OSError, EOFError)):
            items.put(2)


class Value:
    """Something that a weak reference sees."""


def test_a_call_keeps_no_context_alive(forked, no_collector):
    """Nor does a proxy, nor its connection."""
    items = forked.Queue()

    def request():
        value = Value()
        attach(set_value("own", value))
        attach(baggage.set_baggage("key", "acme"))
        items.put(1)
        return weak_reference(value)

    assert without_context(request)() is None
