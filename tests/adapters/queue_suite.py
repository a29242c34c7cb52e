"""What holds for task queues, whose messages a worker gets from a broker."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from opentelemetry import baggage, context, trace
from suite import outside

from otel_concurrency._linking import origins


class Messages:
    """A way to have a worker do a named piece of work."""

    def send(self) -> Any:
        """Send a message."""
        raise NotImplementedError

    def work_off(self) -> None:
        """Have a worker do all that has been sent, in no context; return when it is done."""
        raise NotImplementedError

    def switch_on(self, instrument: Callable[..., None], **settings: Any) -> None:
        """Switch the library on, without queues: what these carry is not the broker's doing."""
        instrument(**{"queue": "off", **settings})

    @pytest.fixture(autouse=True)
    def work(self, tracer):
        """Have each task tell what it has seen."""
        self.tracer, self.seen = tracer, []

    def task(self) -> None:
        """Look at the context, and leave something there."""
        with self.tracer.start_as_current_span("work") as span:
            parent = span.parent and span.parent.span_id
            self.seen.append((parent, baggage.get_baggage("tenant"), span))
        context.attach(context.set_value("forgotten", 1))

    def send_in_span(self, tenant: str) -> tuple[int, str]:
        token = context.attach(baggage.set_baggage("tenant", tenant))
        with self.tracer.start_as_current_span("origin") as origin:
            self.send()
        context.detach(token)
        return origin.get_span_context().span_id, tenant

    @pytest.mark.decisive
    def test_a_task_is_done_in_the_context_that_it_was_sent_in(self, instrument):
        """Parent and baggage, of each its own, and nothing in one that has none."""
        self.switch_on(instrument)
        outside(self.send)
        sent = [self.send_in_span(tenant) for tenant in ("acme", "umbrella")]
        outside(self.send)
        self.work_off()
        expected = [(None, None), *sent, (None, None)]
        assert sorted(map(str, (one[:2] for one in self.seen))) == sorted(map(str, expected))

    def test_under_link_a_task_is_a_trace_of_its_own(self, instrument):
        """It has a link to its origin, and the baggage."""
        self.switch_on(instrument, multiprocessing="link")
        origin, tenant = self.send_in_span("acme")
        self.work_off()
        ((parent, seen, span),) = self.seen
        assert (parent, seen) == (None, tenant)
        assert [link.context.span_id for link in span.links] == [origin]
        assert span.links[0].attributes[origins.PRIMITIVE] == "multiprocessing"

    @pytest.mark.parametrize("how", ["policy", "adapter", "after uninstrument()"])
    def test_switched_off_it_carries_nothing(self, how, instrument):
        """By its policy, by its name among the adapters, or with all of the library."""
        if how == "policy":
            self.switch_on(instrument, multiprocessing="off")
        elif how == "adapter":
            self.switch_on(instrument, adapters="-*")
        else:
            self.switch_on(instrument)
            instrument.__self__.uninstrument()
        self.send_in_span("acme")
        self.work_off()
        assert self.seen[0][:2] == (None, None)

    def test_a_message_of_before_is_done_when_the_library_is_off(self, instrument):
        """Its headers are nobody's business then."""
        self.switch_on(instrument)
        self.send_in_span("acme")
        instrument.__self__.uninstrument()
        self.work_off()
        assert self.seen[0][:2] == (None, None)
        assert trace.get_current_span() is trace.INVALID_SPAN
