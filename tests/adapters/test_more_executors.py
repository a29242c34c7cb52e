"""more-executors: retries, throttles, polls and the executors that are made of them."""

from __future__ import annotations

import gc
import threading
import weakref

import pytest
from more_executors import Executors
from more_executors._impl import common, retry, throttle
from opentelemetry import context, trace
from suite import IN_BOTH_ORDERS, WAIT, Calls, check_undo, outside, run_program


class TestPool(Calls):
    setting = "futures"
    needs_adapter = False

    def make(self):
        return Executors.thread_pool(max_workers=1)

    @pytest.fixture(autouse=True)
    def worker(self):
        with self.make() as self.executor:
            yield

    def hand_off(self, work):
        return self.executor.submit(work).result(timeout=WAIT)


class TestTimeout(TestPool):
    def make(self):
        return super().make().with_timeout(WAIT)


class TestMap(TestPool):
    def make(self):
        return super().make().with_map(lambda result: result)


class TestThrottle(TestPool):
    needs_adapter = True

    def make(self):
        return super().make().with_throttle(1)


class TestRetry(TestPool):
    needs_adapter = True

    def make(self):
        return super().make().with_retry(max_attempts=1)


class TestThrottledRetry(TestRetry):
    def make(self):
        return super().make().with_throttle(1)


class TestRetriedThrottle(TestThrottle):
    def make(self):
        return super().make().with_retry(max_attempts=1)


@pytest.mark.parametrize("throttled", [False, True])
def test_every_attempt_is_made_in_the_same_context(throttled, instrument, tracer):
    """Also the third, though another thread asks for it."""
    instrument()
    seen = []

    def work():
        seen.append(trace.get_current_span())
        if len(seen) < 3:
            raise ValueError(len(seen))
        return len(seen)

    executor = Executors.thread_pool(max_workers=1).with_retry(sleep=0.001)
    if throttled:
        executor = executor.with_throttle(1)
    with executor, tracer.start_as_current_span("origin") as origin:
        assert executor.submit(work).result(WAIT) == 3
    assert seen == [origin] * 3


def test_what_has_to_wait_keeps_its_own_context(instrument, tracer):
    """Whoever has made room for it."""
    instrument()
    go = threading.Event()
    with Executors.thread_pool(max_workers=2).with_throttle(1) as executor:
        executor.submit(go.wait, WAIT)
        futures = []
        for _ in range(3):
            with tracer.start_as_current_span("origin") as span:
                futures.append((executor.submit(trace.get_current_span), span))
        futures.append((outside(executor.submit, trace.get_current_span), trace.INVALID_SPAN))
        go.set()
        assert all(future.result(WAIT) is span for future, span in futures)


def test_a_callback_runs_in_the_context_of_its_registration(instrument, tracer):
    """Also one of a future that is polled for."""
    instrument()
    go = threading.Event()

    def poll(descriptors):
        for descriptor in descriptors:
            descriptor.yield_result(descriptor.result)

    seen, done = [], threading.Event()
    with tracer.start_as_current_span("maker"):
        executor = Executors.thread_pool(max_workers=1).with_poll(poll, default_interval=0.01)
    with executor:
        future = executor.submit(go.wait, WAIT)
        with tracer.start_as_current_span("origin") as origin:
            future.add_done_callback(lambda _: seen.append(trace.get_current_span()))
        outside(future.add_done_callback, lambda _: seen.append(context.get_current()))
        future.add_done_callback(lambda _: done.set())
        go.set()
        assert done.wait(WAIT)
    assert seen == [origin, {}]


def test_what_is_cancelled_while_it_waits_lets_go(instrument, tracer):
    """Nothing that is kept refers to its span."""
    instrument()
    go = threading.Event()
    with Executors.thread_pool(max_workers=1).with_throttle(1) as executor:
        executor.submit(go.wait, WAIT)

        def in_span():
            with tracer.start_as_current_span("origin") as span:
                future = executor.submit(int)
                assert future.cancel()
                return future, weakref.ref(span)

        kept, reference = in_span()
        gc.collect()
        assert reference() is None
        assert kept.cancelled()
        go.set()


@IN_BOTH_ORDERS
def test_imported_before_or_after(first):
    """The order of imports does not matter."""
    program = (
        first.format(module="more_executors")
        + """
from opentelemetry import context
with more_executors.Executors.thread_pool().with_retry() as executor:
    context.attach(context.set_value("key", "value"))
    print(executor.submit(context.get_value, "key").result())
"""
    )
    assert run_program(program) == "value\n"


def test_undo_is_exact():
    """Every attribute that was replaced is what it was, by identity."""
    check_undo(
        common._Future,
        retry.RetryFuture,
        retry.RetryExecutor,
        throttle.ThrottleFuture,
        throttle.ThrottleExecutor,
    )
