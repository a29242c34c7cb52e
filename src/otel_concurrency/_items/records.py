"""Records of a broker, whose headers have the context: one is an item, several are a batch.

They may come from another service, so the configured propagators read the headers.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from opentelemetry import propagate
from opentelemetry.context import Context

from otel_concurrency._core.handoff import NO_CONTEXT, Seam
from otel_concurrency._items import adoption
from otel_concurrency._linking import batches

Headers = Iterable[tuple[str, Any]]
"""Names and values in bytes; a value may be missing."""


def arrive(headers: Headers | None, seam: Seam) -> None:
    """Make the present flow adopt the context in the ``headers`` of a record. May raise."""
    adoption.hand_over(seam, _context_in(headers))


def arrive_together(all_headers: Iterable[Headers | None], seam: Seam) -> None:
    """Make the present flow adopt what the contexts in the headers of a batch have in common.

    May raise.
    """
    known: dict[Any, Context] = {}  # records of one request mostly have the same headers
    contexts: list[Context] = []
    for headers in all_headers:
        key = tuple(tuple(pair) for pair in headers or ())
        if key not in known:
            known[key] = _context_in(headers)
        contexts.append(known[key])
    if any(contexts):
        adoption.hand_over(seam, batches.merged(contexts))
        adoption.found_none()  # the batch is complete: its span is the only one


def _context_in(headers: Headers | None) -> Context:
    texts = {key: value.decode("utf-8", "replace") for key, value in headers or () if value}
    return propagate.extract(texts, NO_CONTEXT) if texts else NO_CONTEXT
