"""The headers of a hand-off: what is written, and what is read from the clients of brokers."""

from __future__ import annotations

import email.message
import json
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry import baggage, propagate, trace
from opentelemetry.baggage.propagation import W3CBaggagePropagator
from opentelemetry.context import Context
from opentelemetry.propagators.b3 import B3MultiFormat, B3SingleFormat
from opentelemetry.propagators.composite import CompositePropagator
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from seen import NOTHING, context_of, current, id_of, in_context, without_context

from otel_concurrency import HandOff, batch, capture, clean
from otel_concurrency._core import faults

TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-00000000000000bb-01"
BAGGAGE = "tenant=acme"
FOUND = (0xBB, "acme")


@pytest.fixture
def propagator(monkeypatch):
    """Return a function that sets the global propagators, for the length of the test."""
    before = propagate.get_global_textmap()
    yield lambda *parts: propagate.set_global_textmap(CompositePropagator(parts))
    propagate.set_global_textmap(before)


def read(headers):
    """Return the id of the current span, and the tenant, inside what headers say."""
    return without_context(HandOff.from_headers(headers).run, current)


# --- what is written ---


@pytest.mark.usefixtures("library")
def test_headers_are_those_of_the_propagators(request_span):
    """By default W3C trace context and baggage, as a plain dict of text, and nothing else."""
    headers = capture().headers()
    expected = {}
    propagate.inject(expected)
    assert headers == expected
    assert {*headers} == {"traceparent", "baggage"}
    assert json.loads(json.dumps(headers)) == headers


def test_headers_go_by_the_configured_propagators(propagator, request_span):
    """Also in a program that has chosen others, and no W3C beside them."""
    propagator(B3SingleFormat())
    headers = capture().headers()
    assert {*headers} == {"b3"}
    assert read(headers) == (id_of(request_span), None)


@pytest.mark.parametrize("handoff", [clean, capture])
def test_headers_of_nothing_are_empty(handoff, caplog):
    """Where nothing was captured there is nothing to write, and nothing to say of it."""
    assert handoff().headers() == {}
    assert read({}) == NOTHING
    assert not caplog.records


@pytest.mark.usefixtures("library")
def test_what_is_written_is_read(request_span, tracer):
    """The far side has a remote parent, and the baggage."""
    headers = capture().headers()
    assert read(headers) == (id_of(request_span), "acme")
    with HandOff.from_headers(headers):
        assert tracer.start_span("work").parent.is_remote


@pytest.mark.usefixtures("library")
def test_a_link_crosses(request_span, links_of):
    """Under `link` the far side starts a trace of its own, linked, however it gets the headers."""
    headers = capture("link").headers()
    for form in (headers, {name: text.encode() for name, text in headers.items()}):
        handoff = HandOff.from_headers(form)
        assert handoff.run(current) == (0, "acme")
        assert handoff.run(links_of) == [(id_of(request_span), "policy")]


@pytest.mark.usefixtures("library")
def test_a_batch_crosses(tracer, links_of):
    """So does a batch, with all of its links."""
    spans = [tracer.start_span(name) for name in "ab"]
    handoffs = [in_context(context_of(span), capture) for span in spans]
    far = HandOff.from_headers(batch(handoffs).headers())
    assert far.run(links_of) == [(id_of(span), "batch") for span in spans]


def test_a_link_is_given_in_a_process_that_only_reads(request_span):
    """A process with the library off, and no hand-off of its own, links what it is told to."""
    program = """
import json, sys
from opentelemetry.sdk.trace import TracerProvider
from otel_concurrency import HandOff
with HandOff.from_headers(json.loads(sys.argv[1])):
    span = TracerProvider().get_tracer("").start_span("work")
print(span.parent, [link.context.span_id for link in span.links])
"""
    headers = json.dumps(capture("link").headers())
    printed = subprocess.run(
        [sys.executable, "-c", program, headers],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    ).stdout
    assert printed.strip() == f"None [{id_of(request_span)}]"


# --- the age of what comes from elsewhere ---


def test_the_age_of_a_hand_off_from_headers_counts(instrument, tracer, clock):
    """A flow that lives on in it for more than a minute starts a trace of its own, linked."""
    instrument()
    with HandOff.from_headers({"traceparent": TRACEPARENT}):
        assert tracer.start_span("at once").parent.span_id == 0xBB
        clock(61_000_000_000)
        late = tracer.start_span("late")
    assert late.parent is None
    assert [link.context.span_id for link in late.links] == [0xBB]


def test_a_span_that_had_ended_is_old_from_then_on(instrument, tracer, clock):
    """Headers that are written after the end of their span say when that was."""
    instrument()
    with tracer.start_as_current_span("request") as span:
        handoff = capture()
    headers = handoff.headers()
    clock(61_000_000_000)
    with HandOff.from_headers(headers):
        late = tracer.start_span("late")
    assert [link.context.span_id for link in late.links] == [id_of(span)]


# --- what clients have ---


def _message():
    message = email.message.Message()
    message["Traceparent"] = TRACEPARENT
    message["Baggage"] = BAGGAGE
    return message


class MultiDict:
    """As those of werkzeug and multidict: several values of one name."""

    def __init__(self, *pairs):
        self._pairs = pairs

    def items(self):
        return iter(self._pairs)


CLIENTS = {
    "a dict of text": {"traceparent": TRACEPARENT, "baggage": BAGGAGE},
    "names in any case": {"TraceParent": TRACEPARENT, "BAGGAGE": BAGGAGE},
    "bytes values (NATS, Redis with decoded names)": {
        "traceparent": TRACEPARENT.encode(),
        "baggage": BAGGAGE.encode(),
    },
    "bytes names and values (Redis streams, Event Hubs)": {
        b"traceparent": TRACEPARENT.encode(),
        b"baggage": BAGGAGE.encode(),
        b"payload": b"\xff\x00",
    },
    "buffers (psycopg)": {
        "traceparent": memoryview(TRACEPARENT.encode()),
        "baggage": bytearray(BAGGAGE.encode()),
    },
    "pairs of text and bytes (Kafka)": [
        ("traceparent", TRACEPARENT.encode()),
        ("baggage", BAGGAGE.encode()),
        ("other", None),
    ],
    "pairs of bytes (ASGI)": [
        (b"host", b"example.org"),
        (b"traceparent", TRACEPARENT.encode()),
        (b"baggage", BAGGAGE.encode()),
    ],
    "an iterator of pairs": iter([("traceparent", TRACEPARENT), ("baggage", BAGGAGE)]),
    "lists of values": {"traceparent": [TRACEPARENT], "baggage": ["user=ada", BAGGAGE]},
    "several of one name": MultiDict(
        ("baggage", "user=ada"), ("Traceparent", TRACEPARENT), ("baggage", BAGGAGE)
    ),
    "attributes of a message (SQS by boto3)": {
        "traceparent": {"StringValue": TRACEPARENT, "DataType": "String"},
        "baggage": {"BinaryValue": BAGGAGE.encode(), "DataType": "Binary"},
    },
    "attributes of a message (SQS in Lambda)": {
        "traceparent": {"stringValue": TRACEPARENT, "stringListValues": [], "dataType": "String"},
        "baggage": {"stringValue": BAGGAGE, "dataType": "String"},
    },
    "properties of any kind (AMQP)": {
        "traceparent": TRACEPARENT,
        "baggage": BAGGAGE,
        "x-death": [{"count": 1}],
        "priority": 5,
    },
    "a message of the standard library": _message(),
}


@pytest.mark.parametrize("client", CLIENTS)
def test_headers_of_clients_are_read(client, caplog):
    """Mappings and pairs, of text and bytes, in any case, one or several values; no complaint."""
    assert read(CLIENTS[client]) == FOUND
    assert not caplog.records


@pytest.mark.parametrize("format_", [B3SingleFormat, B3MultiFormat])
def test_other_formats_are_read_whatever_the_case(format_, propagator, request_span):
    """A propagator finds its fields in the case in which it asks for them."""
    propagator(format_())
    headers = {name.upper(): [text] for name, text in capture().headers().items()}
    assert read(headers)[0] == id_of(request_span)


def test_unsampled_b3_is_no_fault(propagator, caplog):
    """`b3: 0` is a decision not to sample, and names no trace."""
    propagator(B3SingleFormat())
    assert read({"b3": "0"}) == NOTHING
    assert not caplog.records


# --- what is malformed ---

OTHER = TRACEPARENT.replace("bb-01", "cc-01")

MALFORMED = {
    "None": (None, "NoneType"),
    "bytes": (b"traceparent: 00-", "bytes"),
    "text": (f"traceparent: {TRACEPARENT}", "str"),
    "a number": (5, "int"),
    "an object": (object(), "object"),
    "a flat list": (["traceparent", TRACEPARENT], "list"),
    "triples": ([("traceparent", TRACEPARENT, 1)], "list"),
    "names that are no text": ({5: TRACEPARENT}, "dict"),
    "two characters": (["ab", "cd"], "list"),
    "rubbish": ({"traceparent": "rubbish"}, "traceparent has the value 'rubbish'"),
    "undecodable": ({"traceparent": b"\xff\xfe"}, "traceparent has the value"),
    "a number as the value": ({"traceparent": 5}, "traceparent has the value '5'"),
    "all zeros": ({"traceparent": f"00-{'0' * 32}-{'0' * 16}-01"}, "traceparent has the value"),
    "another version of nothing": (
        {"traceparent": "ff" + TRACEPARENT[2:]},
        "traceparent has the value",
    ),
    "two parents": ({"traceparent": [TRACEPARENT, OTHER]}, "2 different values for traceparent"),
    "a long text": ({"traceparent": "x" * 10_000}, "…"),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_malformed_headers_are_one_warning_and_no_context(case, caplog):
    """What makes no context is said once, in the words that came, and nothing is raised."""
    headers, words = MALFORMED[case]
    assert read(headers) == NOTHING
    assert read(headers) == NOTHING
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert words in record.getMessage()
    assert record.getMessage().startswith("HandOff.from_headers() found no context: ")
    assert len(record.getMessage()) < 300
    assert not record.exc_info


class Unshowable:
    """What can be neither read nor shown."""

    def __repr__(self):
        raise LookupError("theirs")


def test_what_cannot_even_be_shown_is_one_warning(caplog):
    """The fault of somebody else's object is said once, and nothing is raised."""
    for _ in range(2):
        assert read(Unshowable()) == NOTHING
    (record,) = caplog.records
    assert "LookupError" in record.getMessage()


def test_baggage_is_read_beside_a_malformed_parent(caplog):
    """What can be used is."""
    assert read({"traceparent": "rubbish", "baggage": BAGGAGE}) == (0, "acme")
    assert len(caplog.records) == 1


def test_a_propagator_that_carries_nothing_is_one_warning(propagator, caplog, request_span):
    """`OTEL_PROPAGATORS=none` makes headers empty; it is said once what to do."""
    propagator()
    for policy in ("parent", "link"):
        assert capture(policy).headers() == {}
    (record,) = caplog.records
    assert "OTEL_PROPAGATORS" in record.getMessage()


class Failing(TraceContextTextMapPropagator):
    """A propagator of somebody else's, with a fault."""

    def inject(self, *args, **kwargs):
        raise ValueError("theirs")

    def extract(self, *args, **kwargs):
        raise ValueError("theirs")


def test_a_failing_propagator_is_one_warning(propagator, caplog, request_span):
    """The program goes on, without headers and without a context."""
    propagator(Failing())
    assert capture().headers() == {}
    assert read({"traceparent": TRACEPARENT}) == NOTHING
    assert len(caplog.records) == 2
    assert all("theirs" in record.getMessage() for record in caplog.records)


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: (
        st.lists(inner)
        | st.tuples(inner, inner)
        | st.dictionaries(
            st.sampled_from(["traceparent", "baggage", "otel-concurrency-link", b"traceparent"])
            | st.text()
            | st.integers(),
            inner,
        )
    ),
    max_leaves=10,
)


@given(ANYTHING)
def test_whatever_comes_nothing_is_raised(headers):
    """From any input comes a hand-off that can be entered."""
    faults._reported.clear()
    with HandOff.from_headers(headers):
        pass


@given(st.dictionaries(st.sampled_from(["tenant", "user"]), st.text(min_size=1, max_size=20)))
def test_any_baggage_survives_headers(entries):
    """Whatever text its values are."""
    propagate.set_global_textmap(
        CompositePropagator([TraceContextTextMapPropagator(), W3CBaggagePropagator()])
    )
    context = Context()
    for name, value in entries.items():
        context = baggage.set_baggage(name, value, context)
    plain = propagate.extract(_injected(context), Context())
    far = HandOff.from_headers(HandOff(context).headers())
    assert dict(baggage.get_all(far.context)) == dict(baggage.get_all(plain))
    assert trace.get_current_span(far.context) is trace.INVALID_SPAN


def _injected(context):
    headers = {}
    propagate.inject(headers, context)
    return headers
