"""futurist: its executors, which are covered with queues and processes, and what is delayed."""

from __future__ import annotations

import gc
import warnings
import weakref

import pytest
from opentelemetry import context, trace
from suite import IN_BOTH_ORDERS, WAIT, Calls, check_processes, check_undo, outside, run_program

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # it imports eventlet, where that is installed
    import futurist


class TestThreads(Calls):
    setting = "queue"
    needs_adapter = False

    def make(self):
        return futurist.ThreadPoolExecutor(1)

    @pytest.fixture(autouse=True)
    def worker(self):
        with self.make() as self.executor:
            yield

    def hand_off(self, work):
        return self.executor.submit(work).result(timeout=WAIT)


class TestDynamicThreads(TestThreads):
    def make(self):
        return futurist.DynamicThreadPoolExecutor(min_workers=1, max_workers=2)


class _Delayed(futurist.DelayedExecutorMixin, futurist.ThreadPoolExecutor):
    pass


class TestDelayed(TestThreads):
    setting = "sched"
    needs_adapter = True

    def make(self):
        return _Delayed(1)

    def hand_off(self, work):
        return self.executor.submit_after(0.001, work).result(timeout=WAIT)


def test_processes(tmp_path, monkeypatch):
    """Its process pool is the standard library's."""
    check_processes(
        """
import warnings
warnings.simplefilter("ignore")
import futurist
pool = futurist.ProcessPoolExecutor(1)
def hand_off(function):
    return pool.submit(function).result(timeout=60)
def close():
    pool.shutdown()
""",
        tmp_path,
        monkeypatch,
    )


def test_a_delayed_call_that_is_cancelled_lets_go(instrument, tracer):
    """Its context dies with its cancellation, though the executor keeps it until it is due."""
    instrument()
    executor = _Delayed(1)

    def in_span():
        with tracer.start_as_current_span("origin") as span:
            assert executor.submit_after(3600, int).cancel()
            return weakref.ref(span)

    reference = in_span()
    gc.collect()
    assert reference() is None
    executor.shutdown(cancel_futures=True)


def test_a_callback_runs_in_the_context_of_its_registration(instrument, tracer):
    """Whoever completes the future."""
    instrument()
    seen = []
    with futurist.ThreadPoolExecutor(1) as executor:
        with tracer.start_as_current_span("origin") as origin:
            future = executor.submit(int)
            future.add_done_callback(lambda _: seen.append(trace.get_current_span()))
        outside(future.add_done_callback, lambda _: seen.append(context.get_current()))
    assert seen == [origin, {}]


@IN_BOTH_ORDERS
def test_imported_before_or_after(first):
    """The order of imports does not matter."""
    program = "import warnings; warnings.simplefilter('ignore')\n" + first.format(module="futurist")
    program += """
from opentelemetry import context
class Delayed(futurist.DelayedExecutorMixin, futurist.ThreadPoolExecutor): pass
executor = Delayed(1)
context.attach(context.set_value("key", "value"))
print(executor.submit(context.get_value, "key").result())
print(executor.submit_after(0, context.get_value, "key").result())
executor.shutdown()
"""
    assert run_program(program) == "value\nvalue\n"


def test_undo_is_exact():
    """The attribute that was replaced is what it was, by identity."""
    check_undo(futurist.DelayedExecutorMixin.Task)
