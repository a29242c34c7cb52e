"""What is expected of an item that crosses a process boundary in a ``multiprocessing`` queue.

Its spans belong to whoever put it, from ``get`` until the consumer is done with it; and to a
process that is not instrumented it is the plain item.
"""

from __future__ import annotations

import contextlib
import contextvars
import functools
import gc
import logging
import logging.handlers
import multiprocessing
import os
import pickle
import queue
import signal
import subprocess
import sys
import textwrap
import threading
import traceback
from multiprocessing.reduction import ForkingPickler

import pool_work
import pytest
from forms import WAIT, without_context
from item_forms import eventually
from opentelemetry import baggage, context, propagate
from opentelemetry.context import attach, detach, get_current
from opentelemetry.propagators.textmap import TextMapPropagator, default_getter, default_setter
from pool_work import NOTHING, look

from interpreters import weak_reference
from otel_concurrency import ConcurrencyInstrumentor
from otel_concurrency._crossing import trailers, wire_format
from otel_concurrency._linking import policies

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")

PATIENCE = 60
"""Seconds after which a process that has to start first will not answer any more."""

CLASSES = ("Queue", "JoinableQueue", "SimpleQueue")
fork = multiprocessing.get_context("fork")
every_class = pytest.mark.parametrize("name", CLASSES)
every_method = pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])


def close(items):
    """Close a queue, and wait until all that was put is gone."""
    items.close()
    if hasattr(items, "join_thread"):
        items.join_thread()


@pytest.fixture
def make():
    """Return what makes a queue of a class, and closes it in the end."""
    with contextlib.ExitStack() as stack:

        def make(name, method="fork", *args):
            kind = getattr(multiprocessing.get_context(method), name) if type(name) is str else name
            items = kind(*args)
            stack.callback(close, items)
            return items

        yield make


@pytest.fixture
def propagate_with():
    """Return what sets the global propagator for the length of a test."""
    before = propagate.get_global_textmap()
    yield propagate.set_global_textmap
    propagate.set_global_textmap(before)


@contextlib.contextmanager
def attached(new):
    """Attach a context for a while."""
    token = attach(new)
    try:
        yield
    finally:
        detach(token)


def put_under(tracer, put, item, value="value"):
    """Put inside a span, with baggage; return what is to be seen while the item is handled."""
    with (
        tracer.start_as_current_span("producer") as span,
        attached(baggage.set_baggage("key", value)),
    ):
        put(item)
        return span.get_span_context().span_id, value, False


@contextlib.contextmanager
def started(method, target, *args):
    """Run a process that sends what it sees; yield what receives that."""
    ctx = multiprocessing.get_context(method)
    receiver, sender = ctx.Pipe(duplex=False)
    process = ctx.Process(target=target, args=(*args, sender))
    process.start()
    sender.close()

    def receive():
        assert receiver.poll(PATIENCE)
        return receiver.recv()

    try:
        yield receive
        process.join(PATIENCE)
        assert process.exitcode == 0
    finally:
        process.kill()
        process.join()
        receiver.close()


class FlowOfItsOwn(threading.Thread):
    """Does something in no context; :meth:`result` returns what it returned."""

    def __init__(self, function, *args):
        super().__init__(daemon=True)
        self._function = functools.partial(function, *args)
        self._outcome = None
        with attached(context.Context()):
            self.start()

    def run(self):
        """Do it."""
        self._outcome = self._function()

    def result(self):
        """Wait for it."""
        self.join(PATIENCE)
        assert not self.is_alive()
        return self._outcome


def in_a_flow(function, *args):
    """Return what ``function`` returns in a thread of its own."""
    return FlowOfItsOwn(function, *args).result()


def handle(items, number):
    """Get items; return each with what is seen then."""
    return [(items.get(), look()) for _ in range(number)]


# To another process


@every_class
@every_method
def test_a_consumer_process_handles_each_item_under_its_producer(
    name, method, make, instrumented, tracer
):
    """Also items without a context, and not those after them; and when it is done it lets go."""
    items = make(name, method)
    with started(method, pool_work.consume, items) as receive:
        expected = [("a", put_under(tracer, items.put, "a", "1"))]
        expected.append(("b", put_under(tracer, items.put, "b", "2")))
        items.put("c")
        expected.append(("c", NOTHING))
        with attached(baggage.set_baggage("key", "alone")):
            items.put("d")
        expected.append(("d", (None, "alone", False)))
        last = put_under(tracer, items.put, None, "3")
        assert [receive() for _ in range(4)] == expected
        done = NOTHING if name == "JoinableQueue" else last
        assert receive() == ("done", done)


@every_class
def test_a_consumer_process_with_a_span_of_its_own_keeps_it(name, make, instrumented, tracer):
    """What it collects belongs to what it does."""
    items = make(name)
    with started("fork", pool_work.consume_in_a_span, items) as receive:
        own = receive(), None, True
        put_under(tracer, items.put, "a")
        items.put(None)
        assert [receive(), receive()] == [("a", own), ("done", own)]


@every_class
def test_a_consumer_that_was_started_in_a_span_adopts(name, make, instrumented, tracer):
    """The process has nothing of its own going but what it was handed."""
    items = make(name)
    with contextlib.ExitStack() as stack:
        with tracer.start_as_current_span("starter"):
            receive = stack.enter_context(started("fork", pool_work.consume, items))
        expected = put_under(tracer, items.put, "a")
        items.put(None)
        assert receive() == ("a", expected)
        receive()


@every_method
@pytest.mark.parametrize("name", ["Queue", "JoinableQueue"])
def test_a_bound_put_can_be_sent_to_a_producer(name, method, make, instrumented):
    """Every one of several producers' items is handled under its own span."""
    items = make(name, method)
    ctx = multiprocessing.get_context(method)
    producers = [
        ctx.Process(target=pool_work.produce, args=(put, number))
        for number, put in enumerate([items.put, items.put_nowait])
    ]
    for producer in producers:
        producer.start()
    handled = in_a_flow(handle, items, 4)
    for producer in producers:
        producer.join(PATIENCE)
    assert sorted(text for (text, _), _ in handled) == ["0 0", "0 1", "1 0", "1 1"]
    assert [parent for (_, parent), _ in handled] == [seen[0] for _, seen in handled]


@every_class
def test_a_queue_is_picked_up_by_a_fork_as_it_is(name, make, instrumented, tracer):
    """What waits in the parent stays there; what the child puts is its own."""
    items = make(name)
    with tracer.start_as_current_span("parent"):
        items.put("of the parent")
        child = fork.Process(target=pool_work.produce, args=(items.put, "child"))
        child.start()
    handled = dict(in_a_flow(handle, items, 3))
    child.join(PATIENCE)
    assert len(handled) == 3
    for item, seen in handled.items():
        if item != "of the parent":
            assert item[1] == seen[0]


@every_class
@every_method
def test_a_receiver_without_the_library_gets_plain_items(name, method, tmp_path):
    """It cannot import it, and has no use for it."""
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\nsys.modules['otel_concurrency'] = None\n", encoding="utf-8"
    )
    (tmp_path / "program.py").write_text(
        textwrap.dedent(
            f"""
            import multiprocessing, os, sys, warnings
            warnings.simplefilter("ignore")
            sys.path.insert(0, {os.path.dirname(pool_work.__file__)!r})
            import pool_work

            if __name__ == "__main__":
                from otel_concurrency import ConcurrencyInstrumentor, Policy
                instrumentor = ConcurrencyInstrumentor()
                instrumentor.instrument()
                os.environ["PYTHONPATH"] = {str(tmp_path)!r}
                ctx = multiprocessing.get_context({method!r})
                items = ctx.{name}()
                receiver, sender = ctx.Pipe(duplex=False)
                if {method!r} == "fork":
                    instrumentor.uninstrument()
                child = ctx.Process(target=pool_work.consume, args=(items, sender))
                child.start()
                instrumentor.instrument()
                with pool_work.tracer.start_as_current_span("origin"):
                    items.put({{"plain": [1]}})
                    items.put(None)
                print(receiver.recv(), receiver.recv()[0])
                child.join()
            """
        ),
        encoding="utf-8",
    )
    ended = subprocess.run(
        [sys.executable, "-Wignore", tmp_path / "program.py"],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    said = [line for line in ended.stderr.splitlines() if "already instrumented" not in line]
    assert (ended.stdout, said) == (f"{({'plain': [1]}, NOTHING)} done\n", [])


# The pickle


@every_class
def test_the_message_is_the_pickle_and_headers_behind_it(name, make, instrumented, tracer):
    """Byte for byte, so that it is made and read by ``pickle`` as without the library."""
    items = make(name)
    item = {"some": ["item", 1]}
    plain = bytes(ForkingPickler.dumps(item))
    put_under(tracer, items.put, item)
    message = items._reader.recv_bytes()
    assert message.startswith(plain)
    assert b"traceparent" in message[len(plain) :]
    assert pickle.loads(message) == item
    without_context(items.put, item)
    assert items._reader.recv_bytes() == plain


@pytest.mark.parametrize("item", [None, b"", "", (), {}, b"\0otel-concurrency\0", bytes(1 << 20)])
@every_class
def test_any_item_comes_out_as_it_was_put(item, name, make, instrumented, tracer):
    """Also one that looks like headers, and one that is larger than a pipe."""
    items = make(name)
    flow = FlowOfItsOwn(handle, items, 2)
    expected = put_under(tracer, items.put, item)
    without_context(items.put, item)
    assert flow.result() == [(item, expected), (item, NOTHING)]


def test_the_first_items_of_two_threads_both_have_their_contexts(monkeypatch, instrumented):
    """One that comes while the other is still getting ready waits for nothing and loses nothing."""
    monkeypatch.setattr(trailers, "sends", False)
    pickler = trailers.pickler(ForkingPickler)
    ready, entered, go = trailers._write_trailers, threading.Event(), threading.Event()

    def slow(stand_in):
        if threading.current_thread() is first:
            entered.set()
            assert go.wait(WAIT)
        ready(stand_in)

    monkeypatch.setattr(trailers, "_write_trailers", slow)

    def send_first():
        trailers.send("first", baggage.set_baggage("tenant", "1", context.Context()))
        messages.append(pickler.dumps("first"))

    messages = []
    first = threading.Thread(target=send_first)
    first.start()
    assert entered.wait(WAIT)
    try:
        trailers.send("second", baggage.set_baggage("tenant", "2", context.Context()))
        messages.append(pickler.dumps("second"))
    finally:
        go.set()
        first.join(WAIT)
    assert [bytes(message).endswith(wire_format._MARK) for message in messages] == [True, True]


def test_an_item_that_cannot_be_pickled_is_reported_as_before(make, instrumented, tracer):
    """The queue's hook gets the plain item and the plain exception; the others keep their own."""
    items = make(pool_work.Forgiving)
    broken = pool_work.Unpicklable()
    pool_work.Forgiving.lost.clear()
    first = put_under(tracer, items.put, "first", "1")
    put_under(tracer, items.put, broken, "2")
    without_context(items.put, "none")
    last = put_under(tracer, items.put, "last", "3")
    handled = in_a_flow(handle, items, 3)
    assert handled == [("first", first), ("none", NOTHING), ("last", last)]
    assert pool_work.Forgiving.lost == [(RuntimeError, broken)]
    assert not trailers.sending


def test_a_simple_queue_raises_what_it_raises_without_the_library(make, instrumented, tracer):
    """And keeps nothing of the failed item, though the exception is kept."""

    class Value:
        pass

    items = make("SimpleQueue")

    def fail():
        value = Value()
        with attached(context.set_value("value", value)):
            try:
                items.put(pool_work.Unpicklable())
            except RuntimeError as error:
                return weak_reference(value), error
        raise AssertionError("it does not raise")

    gc.collect()
    gc.disable()
    try:
        held, error = fail()
        for frame, _ in traceback.walk_tb(error.__traceback__):
            if frame.f_code is not fail.__code__:
                for local in frame.f_locals.values():
                    parts = local if isinstance(local, tuple) else (local,)
                    assert not [part for part in parts if isinstance(part, context.Context)]
        del frame, local, parts
        error.__traceback__ = None
        assert held() is None
    finally:
        gc.enable()
    assert not trailers.sending
    expected = put_under(tracer, items.put, "next")
    assert in_a_flow(handle, items, 1) == [("next", expected)]


def test_headers_that_nobody_can_read_are_reported_once(make, instrumented, caplog):
    """The item is handled in no context."""
    items = make("SimpleQueue")
    message = bytes(ForkingPickler.dumps("item")) + wire_format.trailer(b"\1nonsense")
    for _ in range(2):
        items._writer.send_bytes(message)
    assert in_a_flow(handle, items, 2) == [("item", NOTHING)] * 2
    assert len([record for record in caplog.records if "extract" in record.getMessage()]) == 1


# Within a process


@every_class
def test_items_wait_as_the_users_objects_with_their_contexts(name, make, instrumented, tracer):
    """However many wait, equal and identical ones too, each has its own."""
    items = make(name)
    expected = [
        (number % 3, put_under(tracer, items.put, number % 3, str(number)))
        if number % 5
        else (number % 3, without_context(items.put, number % 3) or NOTHING)
        for number in range(50)
    ]
    assert in_a_flow(handle, items, 50) == expected


def test_what_waits_in_the_buffer_is_what_was_put(make, instrumented, tracer):
    """Who looks into the queue finds the items, and may take some of them out."""
    items = make("Queue")
    without_context(items.put, "starts the thread")
    assert in_a_flow(items.get) == "starts the thread"
    mine = [object(), object(), object()]
    with items._wlock:  # the queue's thread has one in hand, and waits
        put_under(tracer, items.put, "in hand")
        assert eventually(lambda: not items._buffer)
        for item in mine:
            put_under(tracer, items.put, item)
        assert list(items._buffer) == mine
        items._buffer.remove(mine[0])
        items._buffer.clear()
        expected = put_under(tracer, items.put, "after")
    handled = in_a_flow(handle, items, 2)
    assert handled[1] == ("after", expected)


@contextlib.contextmanager
def held_up(items):
    """Keep a queue's thread, which has one item in hand, from taking another for a block."""
    without_context(items.put, "starts the thread")
    in_a_flow(items.get)
    with items._wlock:
        without_context(items.put, "in hand")
        assert eventually(lambda: not items._buffer)
        yield


def test_a_buffer_that_somebody_reached_into_never_gives_another_ones_context(
    make, instrumented, tracer
):
    """All contexts of what waits are dropped; those of later items are there again."""
    items = make("Queue")
    with held_up(items):
        for number in range(4):
            put_under(tracer, items.put, str(number))
        del items._buffer[0]
    assert in_a_flow(handle, items, 4) == [
        ("in hand", NOTHING),
        ("1", NOTHING),
        ("2", NOTHING),
        ("3", NOTHING),
    ]
    expected = put_under(tracer, items.put, "later")
    assert in_a_flow(handle, items, 1) == [("later", expected)]


def test_equal_items_of_a_buffer_that_somebody_reached_into_have_no_context(
    make, instrumented, tracer
):
    """Where they cannot be told apart, that one is missing is noticed by their number."""
    items = make("Queue")
    with held_up(items):
        without_context(items.put, 1)
        for tenant in ("a", "b"):
            put_under(tracer, items.put, 1, tenant)
        del items._buffer[0]
    assert in_a_flow(handle, items, 3) == [("in hand", NOTHING), (1, NOTHING), (1, NOTHING)]
    expected = put_under(tracer, items.put, 1)
    assert in_a_flow(handle, items, 1) == [(1, expected)]


def test_contexts_begin_while_equal_items_without_one_wait(make, instrumented, tracer):
    """Each has its own, or none, however many came before."""
    items = make("Queue")
    for _ in range(20):
        without_context(items.put, 1)
    expected = put_under(tracer, items.put, 1)
    without_context(items.put, 1)
    assert in_a_flow(handle, items, 22) == [(1, NOTHING)] * 20 + [(1, expected), (1, NOTHING)]


@every_class
def test_a_consumer_lets_go_before_it_waits(name, make, instrumented, tracer):
    """It holds nothing while it waits for an item, as that one sees, nor when it got none."""
    items = make(name)

    def consume():
        items.get()
        seen = [look()]
        seen.append(items.get())
        look()
        if name != "SimpleQueue":
            for get in (items.get_nowait, functools.partial(items.get, timeout=0.01)):
                with pytest.raises(queue.Empty):
                    get()
                seen.append(look())
        return seen

    first = put_under(tracer, items.put, "a")
    put_under(tracer, items.put, pool_work.Looking())
    assert in_a_flow(consume) == [first] + [NOTHING] * (1 if name == "SimpleQueue" else 3)


@every_class
def test_an_item_without_a_context_is_handled_in_none(name, make, instrumented, tracer):
    """Not in what the consumer was in either, to which it goes back before the next."""
    items = make(name)

    def consume():
        attach(baggage.set_baggage("key", "of the consumer"))
        items.get()
        return look(), items.get(), look()

    items.put("without")
    items.put(pool_work.Looking())
    idle = (None, "of the consumer", False)
    assert in_a_flow(consume) == (NOTHING, idle, NOTHING)


class GetsAnother:
    """Gets an item from another queue where it is unpickled, or in a signal handler then."""

    queue, how, seen = None, None, None

    def __reduce__(self):
        return GetsAnother._get, ()

    @classmethod
    def _get(cls):
        if cls.how == "in a signal handler":
            before = signal.signal(signal.SIGUSR1, cls._get_one)
            try:
                signal.raise_signal(signal.SIGUSR1)
            finally:
                signal.signal(signal.SIGUSR1, before)
        else:
            cls._get_one()
        return "outer"

    @classmethod
    def _get_one(cls, *_):
        cls.queue.get()
        cls.seen = look()


@every_class
@pytest.mark.parametrize("inner", CLASSES)
@pytest.mark.parametrize("how", ["where it is unpickled", "in a signal handler"])
@pytest.mark.parametrize("is_traced", [True, False], ids=["traced", "untraced"])
def test_an_item_that_is_got_in_the_middle_of_another_is_apart(
    name, inner, how, is_traced, make, instrumented, tracer, monkeypatch
):
    """Neither has the context of the other one."""
    if how == "in a signal handler" and not hasattr(signal, "SIGUSR1"):
        pytest.skip("this platform has no such signal")
    outer, another = make(name), make(inner)
    monkeypatch.setattr(GetsAnother, "queue", another)
    monkeypatch.setattr(GetsAnother, "how", how)
    monkeypatch.setattr(GetsAnother, "seen", None)
    of_another = put_under(tracer, another.put, "inner", "of another")
    if is_traced:
        expected = put_under(tracer, outer.put, GetsAnother())
    else:
        expected = NOTHING
        outer.put(GetsAnother())
    found = contextvars.Context().run(lambda: (outer.get(), look()))
    assert found == ("outer", expected)
    assert GetsAnother.seen == of_another
    assert not trailers.receiving


def test_a_consumer_that_is_done_lets_go(make, instrumented, tracer):
    """With ``task_done()`` as with the queues of one process; ``join()`` returns as before."""
    items = make("JoinableQueue")

    def consume():
        items.get()
        before = look()
        items.task_done()
        after = look()
        with pytest.raises(ValueError, match="too many times"):
            items.task_done()
        items.join()
        return before, after

    flow = FlowOfItsOwn(consume)
    expected = put_under(tracer, items.put, "a")
    assert flow.result() == (expected, NOTHING)


@every_class
def test_a_flow_with_a_span_of_its_own_keeps_it(name, make, instrumented, tracer):
    """And gets the items as they are."""
    items = make(name)
    put_under(tracer, items.put, "a")
    with tracer.start_as_current_span("own") as span:
        before = get_current()
        assert items.get() == "a"
        assert get_current() is before
        assert look()[0] == span.get_span_context().span_id


@pytest.mark.parametrize("name", [pool_work.Stamped, pool_work.StampedSimple])
def test_subclasses_that_override_put_and_get(name, make, instrumented, tracer):
    """What they store is not what the program puts and gets; the context is that of the put."""
    items = make(name)
    expected = [(n, put_under(tracer, items.put, n, str(n))) for n in range(3)]
    assert in_a_flow(handle, items, 3) == expected


def test_bounds_and_time_outs_are_what_they_are(make, instrumented, tracer):
    """A full queue refuses, and what it has refused leaves nothing behind."""
    items = make("Queue", "fork", 1)
    expected = put_under(tracer, items.put, "a", "1")
    for put in (items.put_nowait, functools.partial(items.put, timeout=0.01)):
        with pytest.raises(queue.Full):
            put_under(tracer, put, "b", "2")
    assert in_a_flow(handle, items, 1) == [("a", expected)]
    items.close()
    with pytest.raises(ValueError, match="is closed"):
        put_under(tracer, items.put, "c")
    with pytest.raises(ValueError, match="is closed"):
        items.get()


@every_class
def test_nothing_keeps_a_context_when_the_item_is_gone(name, make, instrumented):
    """As soon as the queue's thread has sent it, without gc."""

    class Value:
        pass

    items = make(name)

    def put():
        value = Value()
        with attached(context.set_value("value", value, baggage.set_baggage("key", "value"))):
            items.put("item")
        return weak_reference(value)

    gc.collect()
    gc.disable()
    try:
        held = put()
        assert in_a_flow(handle, items, 1) == [("item", (None, "value", False))]
        assert eventually(lambda: held() is None)
    finally:
        gc.enable()
    with attached(baggage.set_baggage("key", "of who closes")):
        close(items)
    assert not trailers.sending
    assert not trailers.receiving


def test_a_listener_of_the_logging_package_adopts_nothing(make, instrumented, tracer):
    """It logs other people's records, and belongs to nobody."""
    items = make("Queue")
    seen = []
    logged = threading.Event()

    class Handler(logging.Handler):
        def emit(self, record):
            seen.append(look())
            logged.set()

    listener = logging.handlers.QueueListener(items, Handler())
    listener.start()
    record = logging.LogRecord("name", logging.INFO, "path", 1, "message", None, None)
    put_under(tracer, items.put, record)
    assert logged.wait(WAIT)
    listener.stop()
    assert seen == [NOTHING]


def test_plumbing_carries_nothing(instrumented, tracer):
    """What pools send back is plain, whatever a worker is in."""
    with (
        tracer.start_as_current_span("origin"),
        fork.Pool(1, pool_work.initialize, ("of the worker",)) as pool,
    ):
        outqueue = pool._outqueue
        pool.apply(look)
        received = []

        class Pipe(type(outqueue._reader)):
            def _recv_bytes(self, maxsize=None):
                buffer = super()._recv_bytes(maxsize)
                received.append(buffer.getvalue())
                return buffer

        outqueue._reader.__class__ = Pipe
        for _ in range(3):
            pool.apply(look)
        assert [message[-1:] for message in received[-2:]] == [b"."] * 2
        notified = []

        class Notifier(type(pool._change_notifier._writer)):
            def send_bytes(self, buf, *args):
                notified.append(bytes(buf))
                return super().send_bytes(buf, *args)

        pool._change_notifier._writer.__class__ = Notifier
    assert notified
    assert {message[-1:] for message in notified} == {b"."}


# Policies and faults


@every_class
def test_policy_link_crosses(name, make, tracer):
    """The consumer's span starts a trace, with a link to the producer's; baggage stays."""
    instrumentor = ConcurrencyInstrumentor()
    instrumentor.instrument(multiprocessing="link")
    try:
        items = make(name)
        origin, value, _ = put_under(tracer, items.put, "item")

        def consume():
            items.get()
            with pool_work.tracer.start_as_current_span("work") as span:
                return span.parent, [link.context.span_id for link in span.links], look()[1]

        assert in_a_flow(consume) == (None, [origin], value)
    finally:
        instrumentor.uninstrument()


class FaultyPropagator(TextMapPropagator):
    """Fails on one side."""

    fields = frozenset()

    def __init__(self, side):
        self._side = side

    def inject(self, carrier, context=None, setter=default_setter):
        if self._side == "inject":
            raise ZeroDivisionError
        setter.set(carrier, "header", "value")

    def extract(self, carrier, context=None, getter=default_getter):
        if self._side == "extract":
            raise ZeroDivisionError
        return context


class ToQueue(logging.handlers.QueueHandler):
    """Puts records to a ``multiprocessing`` queue, as programs do that log from many processes."""

    def enqueue(self, record):
        """Use the method that all of the queues have."""
        self.queue.put(record)


@pytest.mark.parametrize("side", ["inject", "extract", "policy"])
@every_class
def test_a_fault_costs_no_more_than_the_context(
    side, name, make, tracer, monkeypatch, propagate_with
):
    """It is reported once, also where the report itself is put to the queue in question.

    A propagator's costs nothing: the standard's headers cross all the same.
    """
    if side == "policy":
        monkeypatch.setattr(policies.origins, "deferred", lambda *_: 1 / 0)
    else:
        propagate_with(FaultyPropagator(side))
    instrumentor = ConcurrencyInstrumentor()
    instrumentor.instrument(multiprocessing="link" if side == "policy" else "parent")
    logger, handler = logging.getLogger("otel_concurrency"), None
    try:
        items = make(name)
        handler = ToQueue(items)
        logger.addHandler(handler)
        flow = FlowOfItsOwn(handle, items, 4)
        put = {item: put_under(tracer, items.put, item) for item in ("a", "b", "c")}
        handled = flow.result()
        reports = [item for item, _ in handled if isinstance(item, logging.LogRecord)]
        seen = {item: seen for item, seen in handled if item not in reports}
        assert seen == (dict.fromkeys(put, NOTHING) if side == "policy" else put)
        assert len(reports) == 1
        assert "ZeroDivisionError" in reports[0].getMessage()
    finally:
        logger.removeHandler(handler)
        instrumentor.uninstrument()


# Switching


@every_class
def test_queues_outlive_the_switch(name, make, tracer):
    """What was put before, meanwhile and after is got, and nobody stays in an item's context."""
    instrumentor = ConcurrencyInstrumentor()
    items = make(name)
    go_on = [threading.Event(), threading.Event()]
    seen = []

    def consume():
        for event in (*go_on, None):
            items.get()
            seen.append(look())
            if event is not None:
                assert event.wait(WAIT)
        return seen

    instrumentor.instrument()
    flow = FlowOfItsOwn(consume)
    expected = put_under(tracer, items.put, "a")
    assert eventually(lambda: len(seen) == 1)
    instrumentor.uninstrument()
    put_under(tracer, items.put, "b")
    go_on[0].set()
    assert eventually(lambda: len(seen) == 2)
    instrumentor.instrument()
    assert "get" not in vars(items)
    again = put_under(tracer, items.put, "c")
    go_on[1].set()
    assert flow.result() == [expected, NOTHING, again]
    instrumentor.uninstrument()


def test_undo_is_exact():
    """Every patched attribute is the one that was there, by identity."""
    from multiprocessing import pool, process, queues

    owners = (
        pool,
        pool.Pool,
        pool.ApplyResult,
        pool.MapResult,
        process.BaseProcess,
        queues,
        queues.Queue,
        queues.JoinableQueue,
        queues.SimpleQueue,
    )
    before = [dict(vars(owner)) for owner in owners]
    instrumentor = ConcurrencyInstrumentor()
    for _ in range(2):
        instrumentor.instrument()
        assert [dict(vars(owner)) for owner in owners] != before
        instrumentor.uninstrument()
        for owner, attributes in zip(owners, before, strict=True):
            for name, value in vars(owner).items():
                assert attributes.get(name, owner) is value, name
            assert list(vars(owner)) == list(attributes)


# What comes back


def take(items):
    """Get what is, or will be, in a queue."""
    return (
        items.get()
        if isinstance(items, multiprocessing.queues.SimpleQueue)
        else items.get(True, WAIT)
    )


@every_class
@pytest.mark.parametrize("permit", [None, 3, "permit", ("a port", 8080)])
def test_a_permit_that_comes_back_is_nobodys(name, permit, make, tracer, instrumented):
    """Though each process has a copy of its own: a check is a root, after any request."""
    permits = make(name)
    permits.put(permit)

    def request():
        with tracer.start_as_current_span("request"), attached(baggage.set_baggage("key", "r")):
            permits.put(take(permits))

    def check():
        permit = take(permits)
        seen = look()
        permits.put(permit)
        return seen

    for _ in range(3):
        assert without_context(check) == NOTHING
        without_context(request)


@every_class
@pytest.mark.parametrize("permit", [None, 3, "permit"])
def test_who_takes_permits_and_returns_them_for_ever(name, permit, make, tracer, instrumented):
    """Each round is a trace of its own, also where the span begins with the permit in hand."""
    permits = make(name)
    permits.put(permit)
    traces = set()

    def round_():
        permit = take(permits)
        with tracer.start_as_current_span("round") as span:
            traces.add(span.get_span_context().trace_id)
            permits.put(permit)

    for _ in range(4):
        without_context(round_)
    assert len(traces) == 4


@every_class
def test_a_job_that_is_put_back_is_its_producers(name, make, tracer, instrumented):
    """Outside of the spans of its tries it is put back in the context that it came with."""
    jobs = make(name)
    expected = without_context(put_under, tracer, jobs.put, {"job": 1})

    def work():
        seen = []
        for _ in range(10):
            job = take(jobs)
            seen.append(look())
            jobs.put(job)
        return seen

    assert without_context(work) == [expected] * 10


@pytest.mark.parametrize("name", ["Queue", "JoinableQueue"])
def test_what_is_made_where_there_is_none_is_nobodys(name, make, tracer, instrumented):
    """A request that has asked in vain puts what it has made, and hands nothing on."""
    permits = make(name)

    def request():
        with tracer.start_as_current_span("request"):
            with pytest.raises(queue.Empty):
                permits.get_nowait()
            permits.put({"a": "connection"})

    without_context(request)

    def check():
        take(permits)
        return look()

    assert without_context(check) == NOTHING
