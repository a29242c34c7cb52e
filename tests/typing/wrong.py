"""What type checkers must not accept: each line that is marked, and no other."""

from __future__ import annotations

from otel_concurrency import ConcurrencyInstrumentor, HandOff, batch, capture, testing, wrap

instrumentor = ConcurrencyInstrumentor()
instrumentor.instrument(thredding="off")  # error
instrumentor.instrument(threading="of")  # error
instrumentor.instrument(link_after="soon")  # error
instrumentor.instrument(metrics="yes")  # error
instrumentor.instrument(excluded=1)  # error

with testing.watch(queue="lnik") as spans:  # error
    spans.assert_connected(1)  # error
    spans.assert_parent("a", 1)  # error
    spans.assert_parent("a")  # error
    spans.assert_linked(None, "a")  # error


def function(number: int) -> str:
    """Be handed off."""
    return str(number)


capture("off")  # error
wrap(function, "lnik")  # error
wrap(function)("text")  # error
wrap(5)  # error
capture().run(function, "text")  # error
capture().wrap(function)(number="text")  # error
batch(capture())  # error
HandOff.from_headers(None)  # error
HandOff.from_headers(5)  # error
