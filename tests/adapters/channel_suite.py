"""What holds for a channel of tasks; a library says how one is made, in :class:`Channels`."""

from __future__ import annotations

import contextlib
import gc
import weakref
from typing import Any

import pytest
from opentelemetry import context, trace
from opentelemetry.context import Context
from suite import Items, outside

from otel_concurrency import ConcurrencyInstrumentor


class Channels(Items):
    """A kind of channel: a pair of ends."""

    setting = "asyncio"

    def put(self, queue: Any, item: Any) -> None:
        queue[0].send_nowait(item)

    def get(self, queue: Any) -> Any:
        return queue[1].receive_nowait()

    get_nowait = get

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

    # Nothing needs a quiet moment.

    def span_id(self):
        return trace.get_current_span().get_span_context().span_id

    @pytest.mark.parametrize("size", [0, 1, 10])
    @pytest.mark.parametrize("consumers", [1, 3])
    def test_under_load_every_item_is_handled_in_its_own_context(
        self, size, consumers, instrument, tracer
    ):
        """Also where something is in the channel, or on its way, whenever an item is sent."""
        instrument()
        seen, expected = {}, {}

        async def consume(receiver, sleep):
            with receiver:
                async for item in receiver:
                    seen[item] = self.span_id()
                    await sleep(0)

        async def produce(sender, items):
            with sender:
                for item in items:
                    if item % 5 == 0:
                        expected[item] = 0
                        await sender.send(item)
                        continue
                    with tracer.start_as_current_span("put", context=Context()) as span:
                        expected[item] = span.get_span_context().span_id
                        await sender.send(item)

        async def main():
            sender, receiver = self.make(size)
            tasks, sleep = self.tasks()
            async with tasks as group:
                for number in range(4):  # the first items of all are without a context
                    group.start_soon(produce, sender.clone(), range(number * 50, number * 50 + 50))
                for _ in range(consumers):
                    group.start_soon(consume, receiver.clone(), sleep)
                sender.close()
                receiver.close()

        self.run_async(main)
        assert len(expected) == 200
        assert seen == expected

    def test_identical_items_behind_such_that_have_no_context(self, instrument, tracer):
        """What was there before has none; what came after has its own, in the order of sending."""
        instrument()

        async def main():
            queue = self.make(10)
            self.put(queue, 1)
            self.put(queue, 1)
            ids = self.put_in_spans(queue, tracer, [1, 1])
            self.put_untraced(queue, 1)
            ids += self.put_in_spans(queue, tracer, [1])
            seen = []
            for _ in range(6):
                self.get(queue)
                seen.append(self.span_id())
            queue[0].close()
            queue[1].close()
            return seen == [0, 0, *ids[:2], 0, *ids[2:]] or (seen, ids)

        assert self.run_async(main) is True

    def test_identical_items_of_senders_that_wait(self, instrument, tracer):
        """One from before, one in a span that is given up, and one in a span that is not."""
        instrument()
        seen, expected = [], [0]

        async def send(sender):
            await sender.send(1)

        async def send_in_span(sender):
            with tracer.start_as_current_span("put", context=Context()) as span:
                expected.append(span.get_span_context().span_id)
                await sender.send(1)

        async def main():
            sender, receiver = self.make(0)
            tasks, sleep = self.tasks()
            async with tasks as group:
                group.start_soon(send, sender)
                await sleep(0.01)
                given_up, _ = self.tasks()
                async with given_up as other:
                    other.start_soon(send_in_span, sender)
                    await sleep(0.01)
                    group.start_soon(send_in_span, sender)
                    await sleep(0.01)
                    other.cancel_scope.cancel()
                del expected[1]
                for _ in range(2):
                    await receiver.receive()
                    seen.append(self.span_id())
            sender.close()
            receiver.close()

        self.run_async(main)
        assert seen == expected

    def test_a_sender_of_before_that_is_given_up(self, instrument, tracer):
        """It takes its own item along; those behind it keep their contexts."""
        instrument()
        seen = []

        async def main():
            sender, receiver = queue = self.make(1)
            self.put(queue, 1)
            tasks, sleep = self.tasks()
            expected = [0]
            async with tasks as group:
                old, _ = self.tasks()
                async with old as other:
                    other.start_soon(sender.send, 1)
                    await sleep(0.01)

                    async def send():
                        with tracer.start_as_current_span("put", context=Context()) as span:
                            expected.append(span.get_span_context().span_id)
                            await sender.send(1)

                    group.start_soon(send)
                    await sleep(0.01)
                    other.cancel_scope.cancel()
                for _ in range(2):
                    await receiver.receive()
                    seen.append(self.span_id())
            sender.close()
            receiver.close()
            assert seen == expected

        self.run_async(main)

    def test_identical_items_that_receivers_are_given(self, instrument, tracer):
        """Each receiver has the context of the item that it was given, whichever goes on first."""
        instrument()
        seen = {}

        async def receive(receiver, number):
            await receiver.receive()
            seen[number] = self.span_id()

        async def main():
            sender, receiver = queue = self.make(10)
            tasks, sleep = self.tasks()
            async with tasks as group:
                for number in range(4):
                    group.start_soon(receive, receiver, number)
                    await sleep(0.01)
                self.put(queue, 1)
                ids = self.put_in_spans(queue, tracer, [1, 1])
                self.put_untraced(queue, 1)
            sender.close()
            receiver.close()
            assert seen == {0: 0, 1: ids[0], 2: ids[1], 3: 0}

        for _ in range(20):  # under trio it is by chance who goes on first
            self.run_async(main)

    def test_the_first_item_for_a_receiver_that_has_asked_and_does_not_wait_yet(
        self, instrument, tracer
    ):
        """It is handled in its own context, whatever the library does before it waits."""
        instrument()
        seen = []

        async def main():
            sender, receiver = queue = self.make(10)
            waiting = receiver.receive()
            sent = False

            class Sending:
                """Sends as soon as the receiver gives control back for the first time."""

                def __await__(_):
                    nonlocal sent
                    steps = waiting.__await__()
                    value = None
                    while True:
                        try:
                            step = steps.send(value)
                        except StopIteration:
                            return
                        if not sent:
                            sent = True
                            ids.extend(outside(self.put_in_spans, queue, tracer, [1]))
                        value = yield step

            ids = []
            await Sending()
            seen.append(self.span_id())
            sender.close()
            receiver.close()
            assert seen == ids

        self.run_async(main)

    def test_what_a_sender_withdraws_by_closing_its_end(self, instrument, tracer):
        """Those of the other senders keep their contexts."""
        instrument()

        async def send(sender, item):
            with (
                contextlib.suppress(Exception),
                tracer.start_as_current_span("put", context=Context()) as span,
            ):
                expected[item] = span.get_span_context().span_id
                await sender.send(item)

        expected = {}

        async def main():
            sender, receiver = self.make(0)
            tasks, sleep = self.tasks()
            async with tasks as group:
                leaving = sender.clone()
                for item in ("first", "withdrawn", "last"):
                    group.start_soon(send, leaving if item == "withdrawn" else sender, item)
                    await sleep(0.01)
                leaving.close()
                seen = {}
                while receiver.statistics().tasks_waiting_send:
                    item = await receiver.receive()
                    seen[item] = self.span_id()
            sender.close()
            receiver.close()
            return seen

        seen = self.run_async(main)
        assert {"first", "last"} <= seen.keys()
        assert seen == {item: expected[item] for item in seen}
