"""Random programs that keep things in some queues and work in others, against a model of the rule.

Flows take things and return them, take jobs and try them again, inside spans and outside, in any
order. After every step it is asked of every flow whose child a span would be that is started there:
its own span's, that of the producer of the job that it handles, or nothing's. Nothing that was ever
done with a thing may show.
"""

from __future__ import annotations

import asyncio
import contextvars
import queue
import sys

import hypothesis.strategies as st
import pytest
from forms import without_context
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from item_forms import Spans
from opentelemetry import trace
from opentelemetry.context import attach, detach
from opentelemetry.sdk.trace import TracerProvider

from otel_concurrency import ConcurrencyInstrumentor
from otel_concurrency._items.loans import Loans

KINDS = [
    (queue, "Queue"),
    (queue, "LifoQueue"),
    (queue, "SimpleQueue"),
    (asyncio, "Queue"),
    (asyncio, "LifoQueue"),
]
EMPTY = (queue.Empty, asyncio.QueueEmpty)
FLOWS = range(3)


class Thing:
    """A connection: what it came from tells whose it may seem to be."""


class Opaque:
    """A thing that cannot be referred to weakly."""

    __slots__ = ()


class Job:
    """A piece of work, and the names of those whose it may be; None: nobody's."""

    def __init__(self, *producers):
        self.producers = {*producers}


class Place:
    """Where a flow is: the names that a parent may have, and where it goes when it asks again."""

    def __init__(self, *names, own=False, idle=None):
        self.names = {*names}
        self.own = own
        self.idle = self if idle is None else idle


class Flow:
    """A flow of control: what it has in its hands, and its spans."""

    def __init__(self):
        self.context = contextvars.Context()
        self.place = Place(None)
        self.scopes = []
        self.things, self.jobs = [], []

    @property
    def is_busy(self):
        return self.place.own


flows = st.sampled_from(FLOWS)
which = st.integers(0, 1)


class Program(RuleBasedStateMachine):
    """What a program may do that has pools and queues of work of one class."""

    def __init__(self):
        super().__init__()
        self.spans = Spans(TracerProvider(shutdown_on_exit=False).get_tracer("model"))
        self.number = 0
        ConcurrencyInstrumentor().instrument()

    @initialize(kind=st.sampled_from(KINDS), make=st.sampled_from([Thing, Opaque]))
    def begin(self, kind, make):
        """Fill the pools, and have a request use each queue: from then on all is noted."""
        self.make, kind = make, getattr(*kind)
        self.pools, self.works = [kind(), kind()], [kind(), kind()]
        self.flows = [Flow() for _ in FLOWS]
        for pool in self.pools:
            for _ in range(2):
                pool.put_nowait(make())
            self.in_a_span(lambda pool=pool: pool.put_nowait(pool.get_nowait()))
        for work in self.works:
            self.in_a_span(lambda work=work: work.put_nowait(Job()))
            without_context(work.get_nowait)

    def new_name(self, prefix):
        self.number += 1
        return f"{prefix} {self.number}"

    def in_a_span(self, function, name="the first request"):
        def inside():
            with self.spans.current(name):
                function()

        without_context(inside)

    # Spans

    @rule(flow=flows)
    def open_span(self, flow):
        """Start a span, and be in it: a child of where the flow is."""
        flow, name = self.flows[flow], self.new_name("own")

        def start():
            span = self.spans.start(name, child=True)
            return span, attach(trace.set_span_in_context(span))

        flow.scopes.append((flow.place, *flow.context.run(start)))
        flow.place = Place(name, own=True)

    @rule(flow=flows)
    def close_span(self, flow):
        """End the span that was started last."""
        flow = self.flows[flow]
        if flow.scopes:
            flow.place, span, token = flow.scopes.pop()
            span.end()
            flow.context.run(detach, token)

    # Things

    @rule(flow=flows, pool=which)
    def take_thing(self, flow, pool):
        """Take a thing, or, inside a span, make one."""
        flow, pool = self.flows[flow], self.pools[pool]
        try:
            thing = flow.context.run(pool.get_nowait)
        except EMPTY:
            if flow.is_busy:
                flow.things.append((self.make(), pool, flow.scopes[0]))
            else:  # it goes on with its job, if the queue is known as a pool
                idle = flow.place.idle
                flow.place = Place(*idle.names, *flow.place.names, idle=idle)
        else:
            flow.things.append((thing, pool, None))
            if not flow.is_busy:  # it goes on with its job, if the queue is known as a pool
                flow.place = Place(None, *flow.place.names, idle=flow.place.idle)

    @rule(flow=flows, n=which)
    def return_thing(self, flow, n):
        """Put a thing back, wherever the flow is by now; drop a new one that is another trace's."""
        flow = self.flows[flow]
        if flow.things:
            thing, pool, outermost = flow.things.pop(n % len(flow.things))
            if outermost is None or outermost in flow.scopes:
                flow.context.run(pool.put_nowait, thing)

    # Work

    @rule(work=which, traced=st.booleans())
    def produce(self, work, traced):
        """Put a job in a request, or outside of everything."""
        name = self.new_name("producer") if traced else None
        job, work = Job(name), self.works[work]
        if traced:
            self.in_a_span(lambda: work.put_nowait(job), name)
        else:
            without_context(work.put_nowait, job)

    @rule(flow=flows, work=which)
    def take_job(self, flow, work):
        """Take a job, which is handled from now on unless the flow has a span of its own."""
        flow, work = self.flows[flow], self.works[work]
        try:
            job = flow.context.run(work.get_nowait)
        except EMPTY:
            flow.place = flow.place.idle
            return
        flow.jobs.append((job, work, flow.is_busy))
        if not flow.is_busy:
            flow.place = Place(*job.producers, idle=flow.place.idle)

    @rule(flow=flows, n=which)
    def try_again(self, flow, n):
        """Put a job back: it keeps its producer, or loses it."""
        flow = self.flows[flow]
        if not flow.jobs:
            return
        job, work, taken_in_a_span = flow.jobs.pop(n % len(flow.jobs))
        flow.context.run(work.put_nowait, job)
        if taken_in_a_span:
            job.producers = {None}
        elif job.producers != {None}:
            # Where nothing had come back for a while, it is what it is tried in that counts; and
            # what the flow has left for something else is not known any more.
            job.producers |= flow.place.names | {None}

    @precondition(lambda self: any(flow.is_busy for flow in self.flows))
    @rule(flow=flows, work=which)
    def hand_on(self, flow, work):
        """Put a new job inside a span: whoever has asked that queue there may hand on nothing."""
        flow, work = self.flows[flow], self.works[work]
        if flow.is_busy:
            flow.context.run(work.put_nowait, Job(*flow.place.names, None))

    # The rule

    @invariant()
    def every_flow_is_where_it_should_be(self):
        """No span is anybody's whom the rule does not name."""
        for flow in getattr(self, "flows", ()):
            parent = flow.context.run(self.spans.parent)
            assert parent in flow.place.names, (parent, flow.place.names)

    def teardown(self):
        try:
            if hasattr(self, "flows") and sys.exc_info()[0] is None:
                for n, flow in enumerate(self.flows):
                    while flow.scopes:
                        self.close_span(flow=n)
                    self.take_thing(flow=n, pool=0)
                self.every_flow_is_where_it_should_be()
        finally:
            ConcurrencyInstrumentor().uninstrument()


def test_random_programs():
    """Things are nobody's, whatever is done with them; jobs are their producers' or nobody's."""
    run_state_machine_as_test(
        Program,
        settings=settings(
            max_examples=settings().max_examples * 3 // 2,
            stateful_step_count=40,
            deadline=None,
            derandomize=True,
            database=None,
            phases=[Phase.generate, Phase.shrink],
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
        ),
    )


def test_the_model_finds_what_is_wrong(monkeypatch):
    """Where nothing is compared with what was taken out, things do show."""
    monkeypatch.setattr(Loans, "kept_with", lambda self, item, current: current)
    with pytest.raises(AssertionError):
        test_random_programs()
