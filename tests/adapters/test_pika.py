"""pika beside OpenTelemetry's instrumentor: a RabbitMQ of the test's own, callbacks and a loop."""

from __future__ import annotations

import json
import threading

import pika
import pytest
from consumer_suite import HAND_ON, parents_of
from pika.adapters.blocking_connection import BlockingConnection
from pika.adapters.select_connection import IOLoop
from suite import (
    IN_BOTH_ORDERS,
    WAIT,
    Calls,
    answer_of,
    answering,
    check_undo,
    outside,
    run_program,
    spans_of,
)

PROGRAM = """
import json
import pika
from opentelemetry.instrumentation.pika import PikaInstrumentor

PikaInstrumentor().instrument()
connection = pika.BlockingConnection(pika.ConnectionParameters("127.0.0.1", PORT))
channel = connection.channel()
channel.queue_declare("orders")
seen, contexts = {}, []

def send(*names):
    for name in names:
        token = context.attach(baggage.set_baggage("tenant", f"of {name}"))
        with tracer.start_as_current_span(f"origin-{name}"):
            channel.basic_publish("", "orders", name.encode())
        context.detach(token)
    channel.basic_publish("", "orders", b"last")

def handle(channel, method, properties, body):
    name = body.decode()
    channel.basic_ack(method.delivery_tag)
    if name == "last":
        channel.stop_consuming()
    else:
        seen[name] = hand_on(name)
        context.attach(context.set_value("forgotten", 1))

send("a", "b")
channel.basic_consume("orders", handle, consumer_tag="callback")
channel.start_consuming()
contexts.append(len(context.get_current()))

send("c", "d")
for method, properties, body in channel.consume("orders", inactivity_timeout=20):
    name = body.decode()
    channel.basic_ack(method.delivery_tag)
    if name == "last":
        break
    seen[name] = hand_on(name)
connection.close()
print(json.dumps([seen, contexts]))
"""


@pytest.fixture(scope="module")
def found(ports, tmp_path_factory):
    """Return the baggage of each message, what the consumer was left in, and all spans."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        program = HAND_ON + PROGRAM.replace("PORT", ports("rabbitmq"))
        printed, spans = spans_of(program, tmp_path_factory.mktemp("pika"), monkeypatch)
    return *json.loads(printed), spans


@pytest.mark.parametrize("message", ["a", "b", "c", "d"])
def test_what_is_handed_on_belongs_to_the_message(message, found):
    """One trace from who has sent it, by callback or loop, to each way in which it is handed on."""
    *_, spans = found
    by_id = {me: (name, parent) for name, me, parent, *_ in spans}
    (me,) = parents_of(spans, message)
    names = []
    while me != "None":
        name, me = by_id[me]
        names.append(name)
    # The instrumentor makes two spans of one message that is sent, with and without this library.
    assert names == ["orders_receive", "orders_send", "orders_send", f"origin-{message}"]


@pytest.mark.parametrize("message", ["a", "b"])
def test_baggage_goes_with_a_message_to_a_callback(message, found):
    """In a loop the instrumentor does not attach it."""
    seen, *_ = found
    assert seen[message] == [f"of {message}"] * 4


def test_a_message_is_received_once(found):
    """There is one span for each, also for those that were sent outside of everything."""
    *_, spans = found
    assert [name for name, *_ in spans].count("orders_receive") == 6


def test_between_callbacks_the_consumer_is_in_no_context(found):
    """Nothing is left of a message, nor of what its callback forgets to detach."""
    _, contexts, _ = found
    assert contexts == [0]


# --- what is posted to a connection's loop ---


@pytest.fixture(scope="module")
def connection(ports):
    """Return a blocking connection."""
    parameters = pika.ConnectionParameters("127.0.0.1", ports("rabbitmq"))
    with BlockingConnection(parameters) as connection:
        yield connection


class TestThreadsafe(Calls):
    setting = "threading"

    @pytest.fixture(autouse=True)
    def connected(self, connection):
        self.connection = connection

    def post(self, callback):
        thread = threading.Thread(target=self.connection.add_callback_threadsafe, args=[callback])
        thread.start()
        thread.join(WAIT)

    def wait(self):
        self.connection.process_data_events(WAIT)

    def hand_off(self, work):
        answers = []
        self.post(answering(work, answers))
        while not answers:
            outside(self.wait)
        return answer_of(answers)


class TestCallLater(TestThreadsafe):
    def post(self, callback):
        self.connection.call_later(0.001, callback)


class _Loops(TestThreadsafe):
    @pytest.fixture(autouse=True)
    def connected(self):
        self.loop = IOLoop()
        self.loop.activate_poller()
        yield
        self.loop.close()

    def wait(self):
        self.loop.poll()
        self.loop.process_timeouts()


class TestLoopsThreadsafe(_Loops):
    def post(self, callback):
        self.loop.add_callback_threadsafe(callback)


class TestLoopsCallLater(_Loops):
    def post(self, callback):
        self.loop.call_later(0.001, callback)


def test_a_callback_that_posts_itself_again_is_a_trace_each_time(connection, instrument, tracer):
    """From the second round on, with a link to the one before."""
    instrument()
    rounds = []

    def each():
        rounds.append(tracer.start_span("round"))
        if len(rounds) < 3:
            connection.call_later(0, each)

    with tracer.start_as_current_span("origin") as origin:
        connection.call_later(0, each)
    while len(rounds) < 3:
        outside(connection.process_data_events, WAIT)
    first, *others = rounds
    assert first.parent == origin.get_span_context()
    assert [span.parent for span in others] == [None, None]
    links = [link.context for span in others for link in span.links]
    assert links == [span.get_span_context() for span in rounds[:2]]


def test_timers_of_pikas_own_are_left_alone(instrument, tracer, ports):
    """A heartbeat of a connection that was made inside a request has no context of it."""
    instrument()
    parameters = pika.ConnectionParameters("127.0.0.1", ports("rabbitmq"), heartbeat=20)
    with tracer.start_as_current_span("request"), BlockingConnection(parameters) as connection:
        waiting = connection._impl.ioloop._timer._timeout_heap
        assert waiting
        assert not [one for one in waiting if type(one.callback).__name__ == "Posted"]


def test_a_callback_can_be_removed(connection, instrument):
    """And what is no callable, or comes too late, is refused as without the library."""
    instrument()
    connection.remove_timeout(connection.call_later(60, print))
    with pytest.raises(TypeError):
        connection.call_later(0, None)
    with pytest.raises(ValueError, match="negative"):
        connection.call_later(-1, print)


LOOP = """
from opentelemetry import context
from pika.adapters.select_connection import IOLoop
loop = IOLoop()
context.attach(context.set_value("key", "value"))
loop.call_later(0, lambda: (print(context.get_value("key")), loop.stop()))
context.attach({})
loop.start()
"""


@IN_BOTH_ORDERS
def test_imported_before_or_after(first):
    """The order of imports does not matter."""
    assert run_program(first.format(module="pika") + LOOP) == "value\n"


def test_undo_is_exact():
    """Every attribute that was replaced is what it was, by identity."""
    check_undo(BlockingConnection, IOLoop)
