"""SQS beside OpenTelemetry's instrumentor of boto3: moto's server, and a loop that polls."""

from __future__ import annotations

import json

import pytest
from consumer_suite import HAND_ON, parents_of
from suite import spans_of

PROGRAM = """
import boto3
import json
from moto.server import ThreadedMotoServer
from opentelemetry.instrumentation.boto3sqs import Boto3SQSInstrumentor

Boto3SQSInstrumentor().instrument()
server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
server.start()
host, port = server.get_host_and_port()
keys = {"aws_access_key_id": "x", "aws_secret_access_key": "x", "region_name": "eu-west-1"}
sqs = boto3.client("sqs", endpoint_url=f"http://{host}:{port}", **keys)
url = sqs.create_queue(QueueName="orders")["QueueUrl"]

for name in ("a", "b"):
    with tracer.start_as_current_span(f"origin-{name}"):
        sqs.send_message(QueueUrl=url, MessageBody=name)
with tracer.start_as_current_span("origin-batch"):
    entries = [{"Id": name, "MessageBody": name} for name in ("c", "d")]
    sqs.send_message_batch(QueueUrl=url, Entries=entries)

left, contexts = {"a", "b", "c", "d"}, []
while left:
    answer = sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10, WaitTimeSeconds=5)
    contexts.append(len(context.get_current()))
    for message in answer.get("Messages", []):
        hand_on(message["Body"])
        sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
        left.discard(message["Body"])
contexts.append(len(context.get_current()))
print(json.dumps(contexts))
server.stop()
"""


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """Return what the loop was in between its messages, and all spans."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        directory = tmp_path_factory.mktemp("sqs")
        printed, spans = spans_of(HAND_ON + PROGRAM, directory, monkeypatch)
    return json.loads(printed), spans


@pytest.mark.parametrize("message", ["a", "b", "c", "d"])
def test_what_is_handed_on_belongs_to_the_message(message, found):
    """Its parent is the one span of the message, which has a link to where that was sent."""
    _, spans = found
    (processed,) = parents_of(spans, message)
    ((_, _, _, link, _),) = (span for span in spans if span[1] == processed)
    ((name, _, origin, _),) = (span for span in spans if span[1] == link)
    ((origin_name, *_),) = (span for span in spans if span[1] == origin)
    assert (name, origin_name) == (
        "orders_send",
        f"origin-{message if message in 'ab' else 'batch'}",
    )


def test_there_is_one_span_for_each_step(found):
    """None is made twice, and a batch has one for each message."""
    _, spans = found
    names = [name for name, *_ in spans]
    assert names.count("orders_send") == names.count("orders_process") == 4


def test_between_messages_the_loop_is_in_no_context(found):
    """Neither what has used a connection before, nor a message, is left to it."""
    contexts, _ = found
    assert set(contexts) == {0}
