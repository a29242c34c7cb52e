"""pika beside OpenTelemetry's instrumentor: a RabbitMQ of the test's own, callbacks and a loop."""

from __future__ import annotations

import json

import pytest
from consumer_suite import HAND_ON, parents_of
from suite import spans_of

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
