"""The only wire format: how headers are encoded as bytes for another process.

The first byte is the version. Then names and values alternate, as UTF-8 with a zero byte between
any two of them. Headers may follow other data, such as a pickle, whose end the receiver knows. Then
their length and a mark come last. A receiver without this library never looks there.

The other process may have another version of this library. It treats headers in an unknown version
as no headers, and logs that once. The formats of otel-concurrency 0.1 are still read: there were
three, none with a version.
"""

from __future__ import annotations

import json
import logging
import marshal
from collections.abc import Mapping
from itertools import chain
from typing import Any, cast

from otel_concurrency._core import faults

_logger = logging.getLogger(__name__)

VERSION = 1
_VERSION = bytes((VERSION,))

_MARK = b"\0otel-concurrency:\0"
"""The mark at the end of a message with headers. A message that is only a pickle ends with a full
stop."""

_LENGTH = 4

_MARSHALLED, _JSON = b"\0otel-concurrency\0", b"\notel_concurrency"
"""The marks of 0.1: after messages of multiprocessing, and after the jobs of libraries."""

_FIRST_OF_MARSHALLED = b"{"
"""The first byte of headers that 0.1 sent without a mark, as an attribute of a call."""

_SURROGATES = "surrogatepass"  # a header may be made of undecodable bytes


def encode(headers: Mapping[str, str]) -> bytes:
    """Return ``headers`` as bytes, which are the same for the same headers in the same order.

    Raises ValueError if a header contains a zero byte, and TypeError if one is no string.
    """
    text = "\0".join(chain.from_iterable(headers.items()))
    if headers and text.count("\0") != 2 * len(headers) - 1:
        raise ValueError("a header contains a zero byte")
    return _VERSION + text.encode("utf-8", _SURROGATES)


def decode(encoded: bytes) -> dict[str, str] | None:
    """Return the headers; None if their version is not known.

    Raises ValueError, or another exception of the decoder, if ``encoded`` is malformed.
    """
    if type(encoded) is not bytes:
        raise TypeError(f"expected headers as bytes, got {type(encoded).__name__}")
    version = encoded[:1]
    if version == _VERSION:
        if encoded == _VERSION:
            return {}
        parts = encoded[1:].decode("utf-8", _SURROGATES).split("\0")
        return dict(zip(parts[::2], parts[1::2], strict=True))
    if version == _FIRST_OF_MARSHALLED:
        return _checked(marshal.loads(encoded))  # noqa: S302 - it came with a pickle
    faults.in_one_line(
        _logger,
        "version",  # whichever it is: damaged headers have any of 255
        "Received context headers in wire format version %s; this version of otel-concurrency "
        "reads only version %s. The work runs without a context. Use the same version of "
        "otel-concurrency in all processes.",
        int.from_bytes(version, "big"),
        VERSION,
    )
    return None


STOP = b"."
"""The last byte of every pickle (``pickle.STOP``), and of no trailer."""


def trailer(encoded: bytes) -> bytes:
    """Return encoded headers as a trailer, which can follow a message."""
    return b"".join((encoded, len(encoded).to_bytes(_LENGTH, "big"), _MARK))


def behind(message: bytes | memoryview) -> bytes | None:
    """Return the encoded headers that follow a message; None where there are none. May raise."""
    if message[-len(_MARK) :] == _MARK:
        return _before(message, _MARK)
    if message[-len(_MARSHALLED) :] == _MARSHALLED:
        return _before(message, _MARSHALLED)
    if message[-len(_JSON) :] == _JSON:
        return encode(_checked(json.loads(_before(message, _JSON))))
    return None


def _before(message: bytes | memoryview, mark: bytes) -> bytes:
    end = len(message) - len(mark) - _LENGTH
    length = int.from_bytes(message[end : end + _LENGTH], "big")
    if length > end:
        raise ValueError("the headers are longer than the message that they came with")
    return bytes(message[end - length : end])


def _checked(headers: Any) -> dict[str, str]:
    kind = cast("Any", type(headers))
    if kind is not dict:
        raise ValueError(f"expected headers as a dict, got {kind.__name__}")
    return {str(name): str(value) for name, value in headers.items()}
