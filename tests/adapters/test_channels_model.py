"""Random programs of senders and receivers, beside a plain twin whose items know their senders.

Each step is taken twice: on a stream of anyio's, and on one of a copy of its module that nobody has
patched. Whatever is sent, identical objects among them, whoever waits, is cancelled or closes an
end: an item is handled in the context in which its twin was sent.
"""

from __future__ import annotations

import asyncio
import contextvars
import importlib.util
import sys

import anyio.streams.memory
import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, given, settings
from opentelemetry import context, trace
from opentelemetry.context import Context

ITEMS = [1, None, "x"]

senders = st.sampled_from(["send", "send_nowait"])
traced = st.booleans()
STEPS = st.lists(
    st.one_of(
        st.tuples(senders, traced, st.sampled_from(ITEMS)),
        st.tuples(st.sampled_from(["receive", "receive_nowait"])),
        st.tuples(st.sampled_from(["cancel a sender", "cancel a receiver"]), st.integers(0, 3)),
        st.tuples(st.just("go on"), st.integers(1, 4)),
        st.tuples(st.just("close an end")),
    ),
    max_size=40,
)


def plain_copy():
    """Return a second copy of the module of streams, which nobody patches."""
    file = anyio.streams.memory.__file__
    spec = importlib.util.spec_from_file_location("anyio.streams.memory_of_the_twin", file)
    copy = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = copy  # where its data classes look for it
    spec.loader.exec_module(copy)
    return copy


PLAIN = plain_copy()


class Tagged:
    """An item of the twin: it knows the span that it was sent in."""

    def __init__(self, item, span_id):
        self.item, self.span_id = item, span_id


class Program:
    """A stream and its twin, and the tasks at their ends."""

    def __init__(self, size, tracer):
        self._tracer = tracer
        real = anyio.create_memory_object_stream(size)
        twin = self._plain_stream(type(real[0]._state).__name__, size)
        self._ends = [(real[0].clone(), twin[0].clone())]
        self._senders, self._receivers = [], []
        (self._sender, self._receiver), (self._twin_sender, self._twin_receiver) = real, twin
        self.handled = 0

    @staticmethod
    def _plain_stream(name, size):
        state = getattr(PLAIN, name)(size)
        return PLAIN.MemoryObjectSendStream(state), PLAIN.MemoryObjectReceiveStream(state)

    def _start(self, coroutine):
        loop = asyncio.get_running_loop()
        return contextvars.Context().run(loop.create_task, coroutine)

    def _ends_for(self, number):
        """Return the ends that the next sender uses: every third one those that may be closed."""
        return (
            self._ends[0] if number % 3 == 2 and self._ends else (self._sender, self._twin_sender)
        )

    async def take(self, step):
        """Take a step."""
        what, *how = step
        await getattr(self, "_" + what.replace(" ", "_"))(*how)

    async def _send(self, in_span, item):
        real, twin = self._ends_for(len(self._senders))
        tasks = []
        with self._span(in_span) as span_id:
            # A task takes the context of whoever creates it.
            loop = asyncio.get_running_loop()
            tasks.append(loop.create_task(self._quietly(real.send(item))))
            tasks.append(loop.create_task(self._quietly(twin.send(Tagged(item, span_id)))))
        self._senders.append(tasks)

    async def _send_nowait(self, in_span, item):
        real, twin = self._ends_for(0)
        with self._span(in_span) as span_id:
            results = [
                self._outcome(real.send_nowait, item),
                self._outcome(twin.send_nowait, Tagged(item, span_id)),
            ]
        assert results[0] == results[1]

    def _span(self, in_span):
        return InSpan(self._tracer) if in_span else InSpan(None)

    async def _receive(self):
        seen = []
        tasks = [
            self._start(self._quietly(self._receive_one(self._receiver, seen))),
            self._start(self._quietly(self._receive_one(self._twin_receiver, seen))),
        ]
        self._receivers.append((tasks, seen))

    async def _receive_one(self, receiver, seen):
        item = await receiver.receive()
        seen.append((receiver, item, trace.get_current_span().get_span_context().span_id))

    async def _receive_nowait(self):
        def receive(receiver):
            item = receiver.receive_nowait()
            return item, trace.get_current_span().get_span_context().span_id

        real = contextvars.Context().run(self._outcome, receive, self._receiver)
        twin = contextvars.Context().run(self._outcome, receive, self._twin_receiver)
        if isinstance(real, str) or isinstance(twin, str):
            assert real == twin
        else:
            self._check(real, twin[0])

    def _check(self, real, twin):
        item, span_id = real
        assert item is twin.item
        assert span_id == twin.span_id
        self.handled += 1

    async def _cancel_a_sender(self, number):
        for task in self._senders[number] if number < len(self._senders) else ():
            task.cancel()

    async def _cancel_a_receiver(self, number):
        for task in self._receivers[number][0] if number < len(self._receivers) else ():
            task.cancel()

    async def _go_on(self, ticks):
        for _ in range(ticks):
            await asyncio.sleep(0)
        self._look()

    def _look(self):
        for _, seen in self._receivers:
            ours = [one for one in seen if one[0] is self._receiver]
            theirs = [one for one in seen if one[0] is not self._receiver]
            if ours and theirs:
                self._check(ours[0][1:], theirs[0][1])
                seen.clear()

    async def _close_an_end(self):
        if self._ends:
            for end in self._ends.pop():
                end.close()

    async def end(self):
        """End all tasks, with what they still receive."""
        for _ in range(60):
            await self._receive_nowait()
            await asyncio.sleep(0)
        self._look()
        for tasks in (*self._senders, *(one[0] for one in self._receivers)):
            for task in tasks:
                task.cancel()
        await asyncio.sleep(0.001)
        self._look()
        await self._close_an_end()
        for end in (self._sender, self._receiver, self._twin_sender, self._twin_receiver):
            end.close()

    @staticmethod
    async def _quietly(coroutine):
        try:
            await coroutine
        except Exception:
            return

    @staticmethod
    def _outcome(function, *arguments):
        try:
            return function(*arguments)
        except Exception as error:
            return type(error).__name__


class InSpan:
    """Makes a span current, or nothing; gives the span's id."""

    def __init__(self, tracer):
        self._tracer = tracer

    def __enter__(self):
        self._token = context.attach(Context())
        if self._tracer is None:
            return 0
        span = self._tracer.start_span("put")
        context.attach(trace.set_span_in_context(span))
        return span.get_span_context().span_id

    def __exit__(self, *_):
        context.detach(self._token)


@pytest.mark.parametrize("size", [0, 1, 3])
@pytest.mark.filterwarnings("ignore:.*was never awaited:RuntimeWarning")
def test_random_programs(size, instrument, tracer):
    """Every item is handled in the context that it was sent in."""
    instrument()
    handled = []

    @settings(
        max_examples=300, deadline=None, suppress_health_check=list(HealthCheck), database=None
    )
    @given(STEPS)
    def run(steps):
        async def main():
            program = Program(size, tracer)
            for step in steps:
                await program.take(step)
            await program.end()
            handled.append(program.handled)

        contextvars.Context().run(asyncio.run, main())

    run()
    assert sum(handled) > 30
