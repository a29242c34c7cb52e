"""pika beside OpenTelemetry's instrumentor: a RabbitMQ of the test's own, callbacks and a loop."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest
from consumer_suite import HAND_ON, parents_of
from suite import WAIT, spans_of

SERVER = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")

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


def free_ports(number):
    """Return ports of loopback that nobody listens at."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(number)]
    ports = [str(one.getsockname()[1]) for one in sockets]
    for one in sockets:
        one.close()
    return ports


def answers(port):
    """Whether a broker greets who speaks AMQP."""
    try:
        with socket.create_connection(("127.0.0.1", int(port)), 5) as client:
            client.sendall(b"AMQP\x00\x00\x09\x01")
            return client.recv(1) == b"\x01"
    except OSError:
        return False


@pytest.fixture(scope="module")
def port(tmp_path_factory):
    """Run a broker; return its port."""
    directory = tmp_path_factory.mktemp("rabbitmq")
    names, distribution, port = free_ports(3)
    environment = {
        **os.environ,
        "HOME": str(directory),
        "ERL_EPMD_ADDRESS": "127.0.0.1",
        "ERL_EPMD_PORT": names,
        "RABBITMQ_CONF_ENV_FILE": str(directory / "none"),
        "RABBITMQ_CONFIG_FILE": str(directory / "none"),
        "RABBITMQ_DIST_PORT": distribution,
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(directory / "plugins"),
        "RABBITMQ_LOG_BASE": str(directory),
        "RABBITMQ_LOGS": "-",
        "RABBITMQ_MNESIA_BASE": str(directory),
        "RABBITMQ_NODENAME": f"tests{port}@localhost",
        "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
        "RABBITMQ_NODE_PORT": port,
        "RABBITMQ_PID_FILE": str(directory / "pid"),
    }
    with (
        (directory / "log").open("w") as log,
        subprocess.Popen(["epmd", "-port", names], env=environment, stdout=log) as epmd,
        subprocess.Popen(
            [SERVER], env=environment, stdout=log, stderr=log, start_new_session=True
        ) as server,
    ):
        try:
            deadline = time.monotonic() + 4 * WAIT
            while not answers(port):
                assert server.poll() is None, (directory / "log").read_text()
                assert time.monotonic() < deadline, (directory / "log").read_text()
                time.sleep(0.1)
            yield port
        finally:
            os.killpg(server.pid, signal.SIGTERM)
            server.wait(4 * WAIT)
            epmd.terminate()


@pytest.fixture(scope="module")
def found(port, tmp_path_factory):
    """Return the baggage of each message, what the consumer was left in, and all spans."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        program = HAND_ON + PROGRAM.replace("PORT", port)
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
