"""kafka-python beside OpenTelemetry's instrumentor, with a log in the place of the broker."""

from __future__ import annotations

import json

import kafka
import pytest
from consumer_suite import HAND_ON, parents_of
from suite import IN_BOTH_ORDERS, check_undo, run_program, spans_of

LOG = """
import kafka
from types import SimpleNamespace
from opentelemetry.instrumentation.kafka import KafkaInstrumentor

log = []

def send(self, topic, value=None, key=None, headers=None):
    log.append(SimpleNamespace(topic=topic, partition=0, value=value, headers=headers or []))

def no_broker(self, *topics, **configuration):
    self.config, self._closed, self._iterator = {"bootstrap_servers": "log"}, False, None
    self._set_consumer_timeout, self._consumer_timeout = lambda: None, float("inf")

kafka.KafkaProducer.__init__ = kafka.KafkaConsumer.__init__ = no_broker
kafka.KafkaProducer.__del__ = kafka.KafkaConsumer.__del__ = lambda self: None
kafka.KafkaProducer.send = send
kafka.KafkaConsumer._message_generator_v2 = lambda self: iter([log.pop(0)])
producer, consumer = kafka.KafkaProducer(), kafka.KafkaConsumer("orders")
"""
"""Takes the connection away; what the instrumentor and this library patch is the real thing."""

PROGRAM = """
import json
seen, contexts = {}, []

for name in ("a", "b"):
    token = context.attach(baggage.set_baggage("tenant", f"of {name}"))
    with tracer.start_as_current_span(f"origin-{name}"):
        producer.send("orders", name.encode())
    context.detach(token)
producer.send("orders", b"untraced")
log[-1].headers = [("traceparent", b"nonsense"), ("baggage", None)]
producer.send("orders", b"last")
log[-1].headers = None

for record in consumer:
    name = record.value.decode()
    if name == "last":
        contexts.append(len(context.get_current()))
        break
    if name == "untraced":
        contexts.append(len(context.get_current()))
        continue
    seen[name] = hand_on(name)
print(json.dumps([seen, contexts]))
"""


@pytest.fixture(scope="module", params=["instrumentor first", "library first"])
def found(request, tmp_path_factory):
    """Return the baggage of each record, what untraced ones were handled in, and all spans."""
    instrumentor = "KafkaInstrumentor().instrument()\n"
    beginning = [LOG + instrumentor, HAND_ON]
    if request.param == "library first":
        beginning = [HAND_ON, LOG, instrumentor]
    with pytest.MonkeyPatch.context() as monkeypatch:
        directory = tmp_path_factory.mktemp("kafka")
        printed, spans = spans_of("".join(beginning) + PROGRAM, directory, monkeypatch)
    return *json.loads(printed), spans


@pytest.mark.parametrize("record", ["a", "b"])
def test_what_is_handed_on_belongs_to_the_record(record, found):
    """Each way in which it is handed on is under the span that has sent it, with the baggage."""
    seen, _, spans = found
    (parent,) = parents_of(spans, record)
    ((name, _, origin, *_),) = (span for span in spans if span[1] == parent)
    ((origin_name, *_),) = (span for span in spans if span[1] == origin)
    assert (name, origin_name) == ("orders_send", f"origin-{record}")
    assert seen[record] == [f"of {record}"] * 4


def test_there_is_one_span_for_each_step(found):
    """None is made twice."""
    *_, spans = found
    names = [name for name, *_ in spans]
    assert names.count("orders_send") == names.count("orders_receive") == 4


def test_a_record_without_context_is_nobodys(found):
    """Nothing is left of the one before, be there no headers or ones that say nothing."""
    _, contexts, _ = found
    assert contexts == [0, 0]


ADOPTS = """
from opentelemetry import trace
{log}
headers = [("traceparent", b"00-" + b"1" * 32 + b"-" + b"2" * 16 + b"-01")]

def current_after(step):
    producer.send("orders", b"", headers=headers)
    step(consumer)
    return f"{{trace.get_current_span().get_span_context().span_id:x}}"

def poll(consumer):
    try:
        consumer.poll()
    except (AttributeError, KeyError):
        pass  # there is no broker

print(current_after(next), current_after(poll))
{end}
print(current_after(next))
"""


@pytest.mark.decisive
@IN_BOTH_ORDERS
def test_the_consumer_adopts_until_it_asks_again(first):
    """In both orders of import, and until this library is switched off."""
    program = first.format(module="kafka") + ADOPTS.format(log=LOG, end="I().uninstrument()")
    assert run_program(program).split() == ["2" * 16, "0", "0"]


@pytest.mark.parametrize("how", ["adapters='-kafka_python'", "queue='off'"])
def test_switched_off_it_carries_nothing(how):
    """Where the adapter is left out, and where the primitive is off."""
    on = f"from otel_concurrency import ConcurrencyInstrumentor as I\nI().instrument({how})\n"
    program = on + ADOPTS.format(log=LOG, end="")
    assert run_program(program).split() == ["0", "0", "0"]


def test_under_link_a_record_starts_a_trace_of_its_own():
    """It has a link to who has sent it."""
    on = "from otel_concurrency import ConcurrencyInstrumentor as I\nI().instrument(queue='link')\n"
    program = f"""{on}{LOG}
from opentelemetry.sdk.trace import TracerProvider
producer.send("orders", headers=[("traceparent", b"00-" + b"1" * 32 + b"-" + b"2" * 16 + b"-01")])
next(consumer)
span = TracerProvider().get_tracer("tests").start_span("work")
print(span.parent, *(f"{{link.context.span_id:x}}" for link in span.links))
"""
    assert run_program(program).split() == ["None", "2" * 16]


POLLS = """
from opentelemetry import baggage, context
from opentelemetry.sdk.trace import TracerProvider
tracer = TracerProvider().get_tracer("tests")

def headers(number):
    parent = b"00-" + number * 32 + b"-" + number * 16 + b"-01"
    return [("traceparent", parent), ("baggage", b"all=yes,tenant=" + number)]

def poll(*numbers):
    for number in numbers:
        producer.send("orders", b"", headers=headers(number) if number else None)
    polled = {"orders": log[:1], "others": log[1:]}
    kafka.KafkaConsumer._poll_once = lambda *args, **kwargs: polled
    log.clear()
    assert consumer.poll() is polled
    with tracer.start_as_current_span("work") as span:
        found = sorted(baggage.get_all().items())
    after = tracer.start_span("after")
    print(
        f"{span.parent.span_id:x}" if span.parent else None,
        [f"{link.context.span_id:x}"[0] for link in span.links],
        found,
        after.parent, len(after.links),
    )

consumer.config["max_poll_records"] = 500
poll(b"1")
poll(b"1", b"1", b"1")
poll(b"1", b"2", b"1")
poll(b"", b"1")
poll(b"", b"")
kafka.KafkaConsumer._poll_once = lambda *args, **kwargs: {}
consumer.poll()
print(dict(context.get_current()))
"""


@pytest.mark.decisive
@IN_BOTH_ORDERS
def test_what_poll_returns_is_a_batch(first):
    """Its span is a child of the only origin, or linked to each; the next one is a root span."""
    program = first.format(module="kafka") + LOG + POLLS
    of_one = f"{'1' * 16} [] [('all', 'yes'), ('tenant', '1')] None 0"
    assert run_program(program).splitlines() == [
        of_one,
        of_one,
        "None ['1', '2'] [('all', 'yes')] None 0",
        "None ['1'] [] None 0",
        "None [] [] None 0",
        "{}",
    ]


def test_undo_is_exact():
    """Every attribute that was replaced is what it was, by identity."""
    check_undo(kafka.KafkaConsumer)
