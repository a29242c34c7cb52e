"""What type checkers accept of a program that uses the library."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from typing import Any

from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan

from otel_concurrency import (
    ConcurrencyInstrumentor,
    HandOff,
    Policy,
    batch,
    capture,
    clean,
    testing,
    wrap,
)


def switch_on(name: str | None) -> None:
    """Give every kind of setting."""
    instrumentor = ConcurrencyInstrumentor()
    instrumentor.instrument()
    instrumentor.instrument(policy="link", threading=Policy.OFF, queue="parent", futures=None)
    instrumentor.instrument(excluded="a.b,c*", link_after=0, flush_timeout=100, metrics=True)
    instrumentor.instrument(excluded=["a.b", "c*"], adapters=("*", "-gevent"))
    instrumentor.instrument(meter_provider=object(), skip_dep_check=True)


def look(started: trace.Span, ended: ReadableSpan) -> None:
    """Name spans in every way."""
    with testing.watch(library=True, queue="link") as spans:
        spans.assert_connected()
        spans.assert_connected("a", started, ended, spans[0])
        spans.assert_parent("a", None)
        spans.assert_parent(started, ended)
        spans.assert_linked(spans[0], "a")


def by_hand(row: dict[str, str], message: list[tuple[str, bytes]], name: bytes) -> None:
    """Hand off by hand in every way: what is wrapped keeps its type."""

    def function(number: int, *, text: str = "") -> str:
        return text * number

    async def coroutine(number: int) -> str:
        return str(number)

    def generator(number: int) -> Iterator[int]:
        yield number

    async def async_generator() -> AsyncIterator[int]:
        yield 1

    handoff: HandOff = capture()
    one: Callable[[int], str] = wrap(function)
    answer: str = wrap(function, "link")(3, text="a") + handoff.run(function, 3, text="a")
    other: Callable[[int], Coroutine[Any, Any, str]] = handoff.wrap(coroutine)
    numbers: list[int] = [*handoff.run(generator, 1), *wrap(generator)(2)]
    stream: AsyncIterator[int] = wrap(async_generator)()
    headers: dict[str, str] = capture(Policy.LINK).headers()
    with HandOff.from_headers(row) as far, HandOff.from_headers(message), clean():
        found: HandOff = far
    with batch([found, handoff]), HandOff.from_headers({name: name}), HandOff(handoff.context):
        print(one, answer, other, numbers, stream, headers)
