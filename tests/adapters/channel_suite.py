"""What holds for a channel of tasks; a library says how one is made, in :class:`Channels`."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import pytest
from opentelemetry import context, trace
from opentelemetry.context import Context
from suite import Items

from otel_concurrency import ConcurrencyInstrumentor


class Channels(Items):
    """A kind of channel: a pair of ends."""

    setting = "asyncio"

    def put(self, queue: Any, item: Any) -> None:
        queue[0].send_nowait(item)

    def get(self, queue: Any) -> Any:
        return queue[1].receive_nowait()

    def run_async(self, function: Any, *arguments: Any) -> Any:
        """Run an ``async`` function in an event loop."""
        raise NotImplementedError

    def tasks(self) -> Any:
        """Return a context manager with ``start_soon``, and a coroutine function that sleeps."""
        raise NotImplementedError

    def run(self, *flows):
        async def run():
            return [flow() for flow in flows]

        return self.run_async(run)

    @pytest.mark.parametrize("size", [0, 1, 10])
    @pytest.mark.parametrize("consumers", [1, 3])
    @pytest.mark.parametrize("consumer_first", [True, False])
    def test_a_consumer_and_producers_that_wait(
        self, size, consumers, consumer_first, instrument, tracer
    ):
        """Each item is handled in its sender's context, whoever waits for whom."""
        instrument()
        seen, expected = [], []

        async def consume(receiver, sleep):
            with receiver:
                async for item in receiver:
                    before = trace.get_current_span()
                    await sleep(0)
                    assert trace.get_current_span() is before
                    seen.append((item, before))

        async def produce(sender, item):
            with sender, tracer.start_as_current_span("put", context=Context()) as span:
                expected.append((item, span))
                await sender.send(item)

        async def main():
            sender, receiver = self.make(size)
            tasks, sleep = self.tasks()
            async with tasks as group:
                if consumer_first:
                    for _ in range(consumers):
                        group.start_soon(consume, receiver.clone(), sleep)
                    await sleep(0.01)
                for item in (1, 2, 2, "3", None, 1):
                    group.start_soon(produce, sender.clone(), item)
                sender.close()
                await sleep(0.01)
                if not consumer_first:
                    for _ in range(consumers):
                        group.start_soon(consume, receiver.clone(), sleep)
            receiver.close()

        self.run_async(main)

        def ids(pairs):
            return sorted((repr(item), span.get_span_context().span_id) for item, span in pairs)

        assert ids(seen) == ids(expected)

    def test_items_without_context_between_others(self, instrument, tracer):
        """A waiting consumer has let go, and handles each in what it was sent in."""
        instrument()
        seen = []

        async def consume(receiver):
            async for _ in receiver:
                seen.append(trace.get_current_span().get_span_context().span_id)

        async def main():
            sender, receiver = self.make(10)
            tasks, sleep = self.tasks()
            async with tasks as group:
                group.start_soon(consume, receiver)
                await sleep(0.01)
                (first,) = self.put_in_spans((sender, receiver), tracer, [1])
                await sleep(0.01)
                self.put_untraced((sender, receiver), 1)
                (one,) = self.put_in_spans((sender, receiver), tracer, [1])
                self.put_untraced((sender, receiver), 1)
                (two,) = self.put_in_spans((sender, receiver), tracer, [1])
                await sleep(0.01)
                (three,) = self.put_in_spans((sender, receiver), tracer, [1])
                await sleep(0.01)
                self.put_untraced((sender, receiver), 1)
                await sleep(0.01)
                sender.close()
            receiver.close()
            return [first, 0, one, 0, two, three, 0]

        assert self.run_async(main) == seen

    def test_what_cannot_be_sent_leaves_nothing(self, instrument, tracer):
        """Nor does a span outlive its item, where the channel lives on."""
        instrument()

        async def main():
            queue = self.make(1)
            self.put_in_spans(queue, tracer, ["fills it"])
            with tracer.start_as_current_span("refused") as span:
                with pytest.raises(Exception, match=r"^$"):
                    self.put(queue, "refused")
                reference = weakref.ref(span)
            del span
            gc.collect()
            assert reference() is None
            self.get(queue)
            queue[0].close()
            queue[1].close()

        self.run_async(main)

    def test_a_receiver_that_waits_while_the_library_is_switched_on_and_off(self, tracer):
        """It gets its item; nothing of that is taken for another's."""
        instrumentor = ConcurrencyInstrumentor()
        seen = []

        async def consume(receiver):
            async for item in receiver:
                seen.append((item, bool(context.get_current())))

        async def main():
            sender, receiver = self.make(10)
            tasks, sleep = self.tasks()
            async with tasks as group:
                group.start_soon(consume, receiver)
                await sleep(0.01)
                instrumentor.instrument()
                self.put_in_spans((sender, receiver), tracer, [1])
                await sleep(0.01)
                self.put_untraced((sender, receiver), 1)
                await sleep(0.01)
                self.put_in_spans((sender, receiver), tracer, [2])
                await sleep(0.01)
                instrumentor.uninstrument()
                self.put_in_spans((sender, receiver), tracer, [3])
                await sleep(0.01)
                self.put_in_spans((sender, receiver), tracer, [4])
                await sleep(0.01)
                sender.close()
            receiver.close()

        self.run_async(main)
        assert [item for item, _ in seen] == [1, 1, 2, 3, 4]
        assert [carried for _, carried in seen][1:3] == [False, True]
        assert seen[-1] == (4, False)
