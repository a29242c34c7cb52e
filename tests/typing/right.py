"""What type checkers accept of a program that uses the library."""

from __future__ import annotations

from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan

from otel_concurrency import ConcurrencyInstrumentor, Policy, testing


def switch_on(name: str | None) -> None:
    """Give every kind of setting."""
    instrumentor = ConcurrencyInstrumentor()
    instrumentor.instrument()
    instrumentor.instrument(policy="link", threading=Policy.OFF, queue="parent", futures=None)
    instrumentor.instrument(excluded="a.b,c*", link_after=0, flush_timeout=100, metrics=True)
    instrumentor.instrument(excluded=["a.b", "c*"], adapters=("*", "-gevent"))
    instrumentor.instrument(meter_provider=object(), skip_dep_check=True)
    instrumentor.uninstrument()


def look(started: trace.Span, ended: ReadableSpan) -> None:
    """Name spans in every way."""
    with testing.watch(library=True, queue="link") as spans:
        spans.assert_connected()
        spans.assert_connected("a", started, ended, spans[0])
        spans.assert_parent("a", None)
        spans.assert_parent(started, ended)
        spans.assert_linked(spans[0], "a")
