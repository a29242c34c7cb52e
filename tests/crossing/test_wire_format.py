"""Headers as bytes: one format with a version, and what earlier and later versions send."""

from __future__ import annotations

import logging
import marshal
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_concurrency._crossing import carrier, tasks, trailers, wire_format

HEADERS = {
    "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    "baggage": "tenant=acme",
}
MARSHALLED_0_1 = (
    b"{u\x0b\x00\x00\x00traceparentu7\x00\x00\x0000-0af7651916cd43dd8448eb211c80319c-b7ad6b71692033"
    b"31-01u\x07\x00\x00\x00baggageu\x0b\x00\x00\x00tenant=acme0"
)
"""What otel-concurrency 0.1 sent as an attribute of a call of ProcessPoolExecutor."""

ITEM_0_1 = (
    b"\x80\x04\x95\x08\x00\x00\x00\x00\x00\x00\x00\x8c\x04item\x94."
    + MARSHALLED_0_1
    + b"\x00\x00\x00j\x00otel-concurrency\x00"
)
"""An item of a multiprocessing.Queue, from 0.1."""

JOB_0_1 = (
    b"\x80\x04\x95\x07\x00\x00\x00\x00\x00\x00\x00\x8c\x03job\x94."
    b'{"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", '
    b'"baggage": "tenant=acme"}\x00\x00\x00d\notel_concurrency'
)
"""A job of a library, from 0.1."""

texts = st.text(st.characters(exclude_characters="\0"))


@given(st.dictionaries(texts, texts))
def test_what_is_encoded_is_decoded(headers):
    """Whatever names and values there are, in their order, also behind a message."""
    encoded = wire_format.encode(headers)
    assert list(wire_format.decode(encoded).items()) == list(headers.items())
    for message in (b"message." + wire_format.trailer(encoded), wire_format.trailer(encoded)):
        assert wire_format.behind(message) == encoded
        assert wire_format.behind(memoryview(message)) == encoded


def test_the_format_is_this():
    """A version, then names and values; behind a message also their length and the mark."""
    encoded = b"\x01a\x001\x00b\x002"
    assert wire_format.encode({"a": "1", "b": "2"}) == encoded
    assert wire_format.trailer(encoded) == encoded + b"\0\0\0\x08\0otel-concurrency:\0"


@pytest.mark.parametrize("message", [b"", b".", b"message.", b"\0", pickle.dumps("item")])
def test_a_message_without_headers_has_none(message):
    """It is only looked at where it ends."""
    assert wire_format.behind(message) is None


@pytest.mark.parametrize(
    "bad", [{"a\0b": "1"}, {"a": "\0"}, {"a": 1}, {1: "a"}, {"a": None}], ids=repr
)
def test_what_is_no_header_is_not_encoded(bad):
    """It is an error, which is reported where headers are made."""
    with pytest.raises((ValueError, TypeError)):
        wire_format.encode(bad)


@pytest.mark.parametrize("bad", [b"\x01a", b"\x01a\0b\0c", b"\x01\xff\0a", b"{nonsense", [1], None])
def test_what_nobody_has_encoded_is_an_error(bad):
    """It is reported where headers are received."""
    with pytest.raises((ValueError, TypeError, EOFError)):
        wire_format.decode(bad)


def test_a_length_that_is_none_is_an_error():
    """Nothing in front of the message is read."""
    with pytest.raises(ValueError, match="longer than the message"):
        wire_format.behind(b"\x01a\0b\0\0\1\0\0otel-concurrency:\0")


def test_a_later_version_is_no_context_with_one_line(caplog):
    """The line names both versions; it is logged once for all messages in unknown versions."""
    later = b"\x02" + wire_format.encode(HEADERS)[1:]
    message = b"message." + wire_format.trailer(later)
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            assert trailers.unpack(wire_format.behind(message)) is None
            assert tasks.appended(message) is None
            assert carrier.decoded(later) is None
        assert trailers.unpack(b"\x03" + later[1:]) is None
    (record,) = caplog.records
    assert "in wire format version 2;" in record.getMessage()
    assert "reads only version 1." in record.getMessage()
    assert not record.exc_info


def test_what_0_1_sent_is_read():
    """Each of its three spellings: of a queue's items, of calls, and of libraries' jobs."""
    assert marshal.loads(MARSHALLED_0_1) == HEADERS  # it is what it says
    assert pickle.loads(ITEM_0_1) == "item"
    assert pickle.loads(JOB_0_1) == "job"

    expected = carrier.unpack(HEADERS)
    assert expected
    assert carrier.pack(carrier.decoded(MARSHALLED_0_1)) == carrier.pack(expected)
    assert carrier.pack(trailers.unpack(wire_format.behind(ITEM_0_1))) == carrier.pack(expected)
    assert tasks.appended(JOB_0_1) == HEADERS


def test_0_1_sees_no_headers_in_what_is_sent_now():
    """It looks for its own marks at the end, and takes the message for a plain one."""
    message = b"message." + wire_format.trailer(wire_format.encode(HEADERS))
    assert not message.endswith((b"\0otel-concurrency\0", b"\notel_concurrency"))
    assert not message.endswith(b".")
