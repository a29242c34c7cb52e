"""Random programs of producers and consumers, against a model of the rule and a plain twin.

Every step of a program is taken twice: by the instrumented queue and by a twin of a class that
nobody has patched, whose items know their producers. What the program sees (results, exceptions,
who waits, what the container holds) must be equal. What a span's parent would be, in every flow and
after every step, must be what the rule says: the producer of the item that is being handled, the
flow's own span, or nobody, but never anybody else.
"""

from __future__ import annotations

import asyncio
import asyncio.queues
import contextvars
import functools
import gc
import importlib.util
import inspect
import itertools
import queue
import sys

import hypothesis.strategies as st
import item_forms
import pytest
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
from opentelemetry.context import Context, attach, detach, get_current
from opentelemetry.sdk.trace import TracerProvider

from interpreters import counts_references, weak_reference
from otel_concurrency import ConcurrencyInstrumentor

PLAIN_SIMPLE_QUEUE = queue.SimpleQueue  # in C, except on PyPy

CONSUMERS = range(2)
QUEUES = range(2)


def plain_copy(module):
    """Return a second copy of a module of the standard library, which nobody patches."""
    name = module.__name__ + "_of_the_twin"
    spec = importlib.util.spec_from_file_location(name, module.__file__)
    copy = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(copy)
    return copy


PLAIN = {False: plain_copy(queue), True: plain_copy(asyncio.queues)}
INSTRUMENTED = {False: queue, True: asyncio.queues}
HAS_SHUTDOWN = hasattr(queue, "ShutDown")


def derived(mixin, base):
    """Return what makes a queue class of a mixin."""
    return lambda module: type(mixin.__name__, (mixin, getattr(module, base)), {})


def stock(name):
    """Return what finds a queue class of the standard library."""
    return lambda module: getattr(module, name)


class Form:
    """A queue class, made of a module of queues, and what is true of it."""

    def __init__(self, name, kind, *, sure=True, sorts=False, hashes=False):
        self.name = name
        self.kind = kind
        self.sure = sure
        """Whether every item's producer is known."""
        self.sorts = sorts
        self.hashes = hashes

    def __repr__(self):
        return self.name


FORMS = [
    Form("Queue", stock("Queue")),
    Form("LifoQueue", stock("LifoQueue")),
    Form("PriorityQueue", stock("PriorityQueue"), sorts=True),
    Form("Stable", derived(item_forms.Stable, "PriorityQueue")),
    Form("OwnDeque", derived(item_forms.OwnDeque, "Queue")),
    Form("Unique", derived(item_forms.Unique, "Queue"), sure=False, hashes=True),
    Form("Deduplicating", derived(item_forms.Deduplicating, "Queue"), sure=False, hashes=True),
    Form("Merging", derived(item_forms.Merging, "Queue"), sure=False, hashes=True),
    Form("Ring", derived(item_forms.Ring, "Queue"), sure=False),
    Form("Weighing", derived(item_forms.Weighing, "Queue"), sure=False),
    Form("Evicting", derived(item_forms.Evicting, "Queue"), sure=False),
]
SIMPLE = Form("SimpleQueue", lambda module: getattr(module, "SimpleQueue", PLAIN_SIMPLE_QUEUE))

SHORTEST = 0 if sys.version_info >= (3, 11) else 0.01
"""How long (s) to wait for an item of a ``SimpleQueue``: on 3.10 a shorter wait may never end, with
and without the library.
"""


class Fresh(int):
    """An item that is equal to others and identical to none."""


class Hostile:
    """An item that must not be looked at."""

    def __eq__(self, other):
        raise AssertionError("the item was compared")

    __hash__ = None


ANYTHING = [None, ("the same",), Hostile()]


@functools.total_ordering
class Tagged:
    """An item in the twin: it sorts, compares and hashes like the item, and knows its producer."""

    def __init__(self, item, producer, others=()):
        self.item = item
        self.producer = producer
        self.others = others
        """Whose it may be instead, since it may be something that has come back."""
        self.turn = None
        """When it was stored, in a container that sorts."""

    def __eq__(self, other):
        return self.item == other.item

    def __lt__(self, other):
        return self.item < other.item

    def __hash__(self):
        return hash(self.item)


class Place:
    """Where a flow is: its idle context, an item's, or a span of its own."""

    def __init__(self, name, *, idle=None, own=False):
        self.name = name
        self.idle = idle
        self.own = own

    @property
    def let_go(self):
        """Where the flow is when it is done with its item."""
        return self if self.idle is None else self.idle


def attempt(operation):
    """Return what ``operation()`` came to."""
    try:
        return "returned", operation()
    except Exception as error:
        return "raised", type(error).__name__


class Flow:
    """A flow of control in a context of its own."""

    def __init__(self, loop):
        self.context = contextvars.Context()

    def start(self, operation):
        self.outcome = self.context.run(attempt, operation)

    def end(self):
        del self.context


async def settle():
    """Let every other task run until it waits."""
    for _ in range(8):
        await asyncio.sleep(0)


class TaskFlow:
    """A task that does what it is told, and may have to wait in it."""

    def __init__(self, loop):
        self.loop = loop
        self.order = loop.create_future()
        self.outcome = None
        self.ended = False
        self.task = contextvars.Context().run(loop.create_task, self.serve())
        loop.run_until_complete(settle())

    def start(self, operation):
        self.outcome = None
        self.order.set_result(operation)
        self.loop.run_until_complete(settle())

    async def serve(self):
        while not self.ended:
            operation = await self.order
            self.order = self.loop.create_future()
            try:
                result = operation()
                if inspect.isawaitable(result):
                    result = await result
                self.outcome = "returned", result
            except asyncio.CancelledError:
                self.outcome = "cancelled", None
            except Exception as error:
                self.outcome = "raised", type(error).__name__
            del operation
            result = None

    def cancel(self):
        self.task.cancel()
        self.loop.run_until_complete(settle())

    def end(self):
        self.ended = True
        self.cancel()
        assert self.task.done()


class Consumer:
    """A flow, its twin, and where the flow is by the rule."""

    def __init__(self, flow, loop):
        self.real, self.twin = flow(loop), flow(loop)
        self.place = Place(None)
        self.scopes = []
        self.waits_for = None
        self.asked, self.took = set(), set()

    def may_return(self, pair, item):
        """Return whose an item may be that is put back: who asks for something may bring it."""
        came_with = {
            name for where, what, name in self.took if (where, what) == (id(pair), id(item))
        }
        return came_with | ({None} if id(pair) in self.asked else set())

    def ask(self, question):
        self.real.start(question)
        kind, answer = self.real.outcome
        assert kind == "returned", answer
        return answer


class Pair:
    """A queue and its twin."""

    def __init__(self, form, maxsize, asynchronous):
        arguments = () if form is SIMPLE else (maxsize,)
        self.real = form.kind(INSTRUMENTED[asynchronous])(*arguments)
        self.twin = form.kind(PLAIN[asynchronous])(*arguments)
        self.sure = form.sure


def container(queue):
    """Return where a queue keeps its items, if it can be edited by place."""
    found = (
        queue.__dict__.get("queue", queue.__dict__.get("_queue"))
        if hasattr(queue, "__dict__")
        else None
    )
    return found if hasattr(found, "append") else None


consumers = st.sampled_from(CONSUMERS)
queues = st.sampled_from(QUEUES)
numbers = st.integers(0, 2)


class Program(RuleBasedStateMachine):
    """What a program with some producers, consumers and queues may do."""

    asynchronous = False

    def __init__(self):
        super().__init__()
        self.spans = Spans(TracerProvider(shutdown_on_exit=False).get_tracer("model"))
        self.loop = asyncio.new_event_loop() if self.asynchronous else None
        self.number = 0
        self.turns = itertools.count()
        self.contexts, self.live = [], []
        self.on = True
        ConcurrencyInstrumentor().instrument()

    @initialize(form=st.sampled_from(FORMS), maxsize=st.sampled_from([0, 0, 1, 3]))
    def open(self, form, maxsize):
        self.form, self.maxsize = form, maxsize
        flow = TaskFlow if self.asynchronous else Flow
        self.queues = [self.new_queue() for _ in QUEUES]
        self.consumers = [Consumer(flow, self.loop) for _ in CONSUMERS]

    def new_queue(self):
        return Pair(self.form, self.maxsize, self.asynchronous)

    def new_name(self, prefix):
        self.number += 1
        return f"{prefix} {self.number}"

    def item(self, number, kind):
        if kind == "fresh":
            return Fresh(number)
        if self.form.sorts or self.form.hashes:
            return number
        return ANYTHING[number]

    # Producers

    @rule(
        queue=queues, number=numbers, kind=st.sampled_from(["fresh", "same"]), lives=st.booleans()
    )
    def produce(self, queue, number, kind, lives):
        """Put an item inside a span, which ends then or lives on."""
        name = self.new_name("producer")
        span = self.spans.start(name)
        pair, item = self.queues[queue], self.item(number, kind)

        def put():
            with trace.use_span(span):
                self.contexts.append(weak_reference(get_current()))
                pair.real.put_nowait(item)

        self.put_both(pair, put, Tagged(item, name if self.on else None))
        if lives:
            self.live.append(span)
        else:
            span.end()

    @rule(queue=queues, number=numbers, kind=st.sampled_from(["fresh", "same"]))
    def produce_in_no_context(self, queue, number, kind):
        """Put an item where there is no context."""
        pair, item = self.queues[queue], self.item(number, kind)
        self.put_both(pair, lambda: pair.real.put_nowait(item), Tagged(item, None))

    def put_both(self, pair, put, tagged):
        if not self.form.sure:  # of two that are the same object it may give or drop either
            there = [each for each in container(pair.twin) or () if isinstance(each, Tagged)]
            same = [each.producer for each in there if each.item is tagged.item]
            tagged.others = (*tagged.others, *same)
        real, twin = Flow(None), Flow(None)
        real.start(self.in_loop(put))
        twin.start(self.in_loop(lambda: pair.twin.put_nowait(tagged)))
        assert real.outcome == twin.outcome
        if self.loop is not None:
            self.loop.run_until_complete(settle())
        self.collect()

    def in_loop(self, put):
        """Return ``put`` as something that runs in the event loop, where one is needed."""
        if self.loop is None:
            return put

        async def call():
            return put()

        # A task takes the context of the flow that creates it.
        return lambda: self.loop.run_until_complete(call())

    # Consumers

    def ready(self, consumer):
        return self.consumers[consumer].waits_for is None

    @rule(
        consumer=consumers,
        queue=queues,
        number=numbers,
        kind=st.sampled_from(["fresh", "same"]),
        wait=st.booleans(),
    )
    def put(self, consumer, queue, number, kind, wait):
        """Put an item wherever the consumer is: the next stage of a pipeline."""
        who, pair, item = self.consumers[consumer], self.queues[queue], self.item(number, kind)
        if who.waits_for is not None:
            return
        producer = who.place.name if self.on else None
        tagged = Tagged(item, producer, who.may_return(pair, item))
        if self.asynchronous:
            name = "put" if wait else "put_nowait"
            self.do(
                who,
                pair,
                lambda: getattr(pair.real, name)(item),
                lambda: getattr(pair.twin, name)(tagged),
                "put",
            )
        else:
            options = {} if self.form is SIMPLE else {"timeout": 0} if wait else {"block": False}
            self.do(
                who,
                pair,
                lambda: pair.real.put(item, **options),
                lambda: pair.twin.put(tagged, **options),
                "put",
            )

    @rule(consumer=consumers, queue=queues, wait=st.booleans())
    def get(self, consumer, queue, wait):
        """Ask for an item; an asynchronous consumer may have to wait for it."""
        who, pair = self.consumers[consumer], self.queues[queue]
        if who.waits_for is not None:
            return
        if self.asynchronous:
            name, options = ("get" if wait else "get_nowait"), {}
        else:
            shortest = SHORTEST if self.form is SIMPLE else 0
            name, options = "get", {"timeout": shortest} if wait else {"block": False}
        self.do(
            who,
            pair,
            lambda: getattr(pair.real, name)(**options),
            lambda: getattr(pair.twin, name)(**options),
            "get",
        )

    @rule(consumer=consumers, queue=queues, size=st.integers(2, 4))
    def drain(self, consumer, queue, size):
        """Take a batch."""
        for _ in range(size):
            self.get(consumer=consumer, queue=queue, wait=False)

    @rule(consumer=consumers, queue=queues, size=st.integers(0, 2), says_done=st.booleans())
    def work_in_a_span(self, consumer, queue, size, says_done):
        """Handle an item, or more, in a span of the work, and perhaps say that it is done."""
        self.get(consumer=consumer, queue=queue, wait=False)
        self.open_span(consumer=consumer)
        self.drain(consumer=consumer, queue=queue, size=size)
        if says_done and self.form is not SIMPLE:
            self.task_done(consumer=consumer, queue=queue)
        self.close_span(consumer=consumer)

    @precondition(lambda self: self.form is not SIMPLE)
    @rule(consumer=consumers, queue=queues)
    def task_done(self, consumer, queue):
        """Say that an item is done, be it true or not."""
        who, pair = self.consumers[consumer], self.queues[queue]
        if who.waits_for is None:
            self.do(who, pair, pair.real.task_done, pair.twin.task_done, "task_done")

    def do(self, who, pair, real, twin, what):
        # Whether it was on all the while; and what the flow was before.
        who.waits_for = (what, pair, self.on, who.place)
        if what == "get":
            who.asked.add(id(pair))
        if what != "put" and self.on:
            who.place = who.place.let_go
        who.real.start(real)
        who.twin.start(twin)
        self.collect()

    def collect(self):
        """Compare what has been answered, and follow the rule."""
        sure = [pair.sure for pair in self.queues]
        for who in self.consumers:
            if who.waits_for is None:
                continue
            real, twin = who.real.outcome, who.twin.outcome
            assert (real is None) == (twin is None), "one of the twins waits"
            if real is None:
                continue
            what, pair, was_on, before = who.waits_for
            who.waits_for = None
            assert real[0] == twin[0]
            if what == "get" and real[0] == "returned":
                assert real[1] is twin[1].item
                self.have_been_put_first(pair, twin[1])
                is_sure = pair in self.queues and sure[self.queues.index(pair)]
                who.took.add((id(pair), id(real[1]), twin[1].producer))
                self.handle(who, twin[1], was_on, is_sure, before)
                if not pair.twin.qsize():
                    pair.sure = self.form.sure
            else:
                assert real[1] == twin[1]
                self.settle_at(who, [who.place] if was_on else [who.place.let_go, who.place])
            who.real.outcome = who.twin.outcome = None
        if self.form.sorts:
            for pair in self.queues:
                for tagged in container(pair.twin):
                    if tagged.turn is None:
                        tagged.turn = next(self.turns)

    def have_been_put_first(self, pair, got):
        """Have an item be what was put first of all that are the same object.

        A heap gives them out in an order of its own, and nobody can tell them apart.
        """
        if not self.form.sorts or got.turn is None:
            return
        same = [got, *(each for each in container(pair.twin) if each.item is got.item)]
        first = min(same, key=lambda each: each.turn)
        for name in ("producer", "others", "turn"):
            mine, its = getattr(got, name), getattr(first, name)
            setattr(got, name, its)
            setattr(first, name, mine)

    def handle(self, who, tagged, was_on, sure, before):
        base, producer = who.place.let_go, tagged.producer
        if base.own:
            self.settle_at(who, [base])
        elif was_on and self.on:
            names = [producer, *tagged.others] if sure else [producer, *tagged.others, None]
            self.settle_at(who, [Place(name, idle=base) for name in names])
            who.place.idle = self.become_a_worker(who, base, who.place.name)
        else:
            places = [base, Place(None, idle=base), before]
            # Switched on while it waited: then it adopts, or not, as at any other time.
            self.settle_at(who, [*places, Place(producer, idle=base)] if self.on else places)

    def become_a_worker(self, who, base, producer):
        """Return where a flow is between its items from now on, and from outside them.

        Whatever it was in, it has nothing to do with an item of another trace.
        """
        if base.name in (None, producer):
            return base
        for place, *_ in who.scopes:
            if place.idle is not None:
                place.idle = Place(None)
        return Place(None)

    def settle_at(self, who, places):
        """See in which of ``places`` the flow is."""
        if who.waits_for is not None:
            return
        name = who.ask(self.spans.parent)
        fitting = [place for place in places if place.name == name]
        assert fitting, f"is under {name}, instead of {[place.name for place in places]}"
        who.place = fitting[0]

    # Spans of the consumers' own

    @rule(consumer=consumers)
    def open_span(self, consumer):
        """Open a span in the middle of whatever the consumer does."""
        who = self.consumers[consumer]
        if who.waits_for is not None:
            return
        name = self.new_name("own")
        span = self.spans.start(name)
        token = who.ask(lambda: attach(trace.set_span_in_context(span)))
        who.scopes.append((who.place, token, span))
        who.place = Place(name, own=True)

    @rule(consumer=consumers)
    def close_span(self, consumer):
        """Close it, with whatever has been got inside."""
        who = self.consumers[consumer]
        if who.waits_for is None and who.scopes:
            who.place, token, span = who.scopes.pop()
            if span.is_recording():
                span.end()
            who.ask(lambda: detach(token))

    @rule(consumer=consumers)
    def end_span(self, consumer):
        """End it and stay in it: then nothing is going on any more."""
        who = self.consumers[consumer]
        if who.waits_for is None and who.place.own and who.scopes[-1][0].idle is None:
            who.scopes[-1][2].end()
            who.place.own = False  # of nobody who is alive

    # Whatever else may happen

    @precondition(lambda self: self.asynchronous)
    @rule(consumer=consumers)
    def cancel(self, consumer):
        """Cancel a consumer that waits."""
        who = self.consumers[consumer]
        if who.waits_for is not None:
            who.real.cancel()
            who.twin.cancel()
            self.collect()
            assert who.waits_for is None

    @rule(queue=queues, place=st.integers(0, 3))
    def remove_by_hand(self, queue, place):
        """Reach into the container."""
        pair = self.queues[queue]
        real, twin = container(pair.real), container(pair.twin)
        if twin:
            del real[place % len(real)], twin[place % len(twin)]
            pair.sure = False

    @rule()
    def switch(self):
        """Uninstrument, or instrument again."""
        if self.on:
            ConcurrencyInstrumentor().uninstrument()
        else:
            ConcurrencyInstrumentor().instrument()
        self.on = not self.on
        for pair in self.queues:
            if pair.twin.qsize():
                pair.sure = False
        for who in self.consumers:
            if who.waits_for is not None:
                what, pair, _, before = who.waits_for
                who.waits_for = (what, pair, False, before)

    @precondition(lambda self: HAS_SHUTDOWN and self.form is not SIMPLE)
    @rule(consumer=consumers, queue=queues, immediate=st.booleans())
    def shut_down(self, consumer, queue, immediate):
        """Shut a queue down, drain it, and go on with a new one."""
        who, pair = self.consumers[consumer], self.queues[queue]
        if who.waits_for is not None:
            return
        for flow, one in ((who.real, pair.real), (who.twin, pair.twin)):
            flow.start(lambda one=one: one.shutdown(immediate))
            assert flow.outcome == ("returned", None)
        self.settle_at(who, [who.place])
        self.collect()
        for _ in range(pair.twin.qsize()):
            self.get(consumer=consumer, queue=queue, wait=False)
        self.get(consumer=consumer, queue=queue, wait=False)
        self.produce(queue=queue, number=1, kind="same", lives=False)
        self.queues[queue] = self.new_queue()

    @invariant()
    def every_flow_is_where_the_rule_says(self):
        """No span of any flow is under anybody else."""
        for who in getattr(self, "consumers", ()):
            self.settle_at(who, [who.place])

    @invariant()
    def the_containers_hold_the_same(self):
        """See that what waits are the program's objects, in the order of the twin."""
        for pair in getattr(self, "queues", ()):
            assert pair.real.qsize() == pair.twin.qsize()
            real, twin = container(pair.real), container(pair.twin)
            if twin is not None:
                assert type(real) is type(twin)
                assert [*map(stored, real)] == [stored(one) for one in twin]

    def teardown(self):
        try:
            if hasattr(self, "consumers") and sys.exc_info()[0] is None:
                self.wind_up()
        finally:
            if self.on:
                ConcurrencyInstrumentor().uninstrument()
            for who in getattr(self, "consumers", ()):
                who.real.end()
                who.twin.end()
            if self.loop is not None:
                self.loop.close()

    def wind_up(self):
        """Let everything end, and see that no context is left."""
        if not self.on:
            self.switch()
        for n, who in enumerate(self.consumers):
            if who.waits_for is not None:
                self.cancel(consumer=n)
            while who.scopes:
                self.close_span(consumer=n)
        for n, pair in enumerate(self.queues):
            for _ in range(pair.twin.qsize()):
                self.get(consumer=0, queue=n, wait=False)
            self.produce_in_no_context(queue=n, number=1, kind="same")
            self.get(consumer=0, queue=n, wait=False)
        for n in CONSUMERS:
            self.get(consumer=n, queue=0, wait=False)
            assert self.consumers[n].ask(get_current) == Context()
        if any(context() is not None for context in self.contexts):
            gc.collect()
        assert [context() for context in self.contexts if context() is not None] == []


def stored(one):
    """Return the identity of the user's item in what a container holds of it."""
    while type(one) is tuple and len(one) == 3:
        one = one[-1]
    return id(one.item if isinstance(one, Tagged) else one)


class AsynchronousProgram(Program):
    asynchronous = True


class SimpleProgram(Program):
    @initialize()
    def open(self):
        super().open(SIMPLE, 0)


EXAMPLES = settings(
    stateful_step_count=40,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.generate, Phase.shrink],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)


@counts_references  # the rule that it holds flows against says when an item is gone
@pytest.mark.parametrize("program", [Program, AsynchronousProgram, SimpleProgram])
def test_random_programs(program):
    """Each flow is in the right context, or in none, and the program notices nothing."""
    run_state_machine_as_test(program, settings=EXAMPLES)
