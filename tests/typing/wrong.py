"""What type checkers must not accept: each line that is marked, and no other."""

from __future__ import annotations

from otel_concurrency import ConcurrencyInstrumentor, testing

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
