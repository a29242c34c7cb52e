"""Calls with no caller: a thread of `_thread`'s, or a greenlet, may begin with any call."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextvars
import multiprocessing
import queue
import sched
import sys
import threading

import anyio
import greenlet
import pytest
from opentelemetry import context

from interpreters import PYPY
from otel_concurrency._core import faults

WAIT = 20


def by_nobody(function, *args):
    """Call a function with no frame below it, in the current context."""
    caller = greenlet.greenlet(function)
    caller.gr_context = contextvars.copy_context()
    return caller.switch(*args)


class Bag(queue.Queue):
    """A queue of the program's own."""

    def _put(self, item):
        super()._put((item,))

    def _get(self):
        return super()._get()[0]


class SimpleBag(queue.SimpleQueue):
    """A simple one."""


def items_of(kind):
    """Return what puts items into a queue, and gets them."""

    def use():
        items = by_nobody(getattr(queue, kind) if isinstance(kind, str) else kind)
        by_nobody(items.put, 1)
        by_nobody(items.put_nowait, 2)
        got = [by_nobody(items.get), by_nobody(items.get_nowait), by_nobody(items.qsize)]
        with pytest.raises(queue.Empty):
            by_nobody(items.get_nowait)
        if hasattr(items, "task_done"):
            by_nobody(items.task_done)
        return got, by_nobody(items.empty)

    return use


def items_of_processes(kind):
    """Return what puts an item into a queue of processes, and gets it."""

    def use():
        items = by_nobody(getattr(multiprocessing, kind))
        by_nobody(items.put, 1)
        got = by_nobody(items.get)
        by_nobody(items.close)
        return got

    return use


def items_of_a_loop():
    """Put an item for a task, and get it."""
    items = by_nobody(asyncio.Queue)
    by_nobody(items.put_nowait, 1)
    return by_nobody(items.get_nowait)


def items_of_a_stream():
    """Send an item, and receive it."""
    send, receive = by_nobody(anyio.create_memory_object_stream, 1)
    by_nobody(send.send_nowait, 1)
    with pytest.raises(anyio.WouldBlock):
        by_nobody(send.send_nowait, 2)
    received = by_nobody(receive.receive_nowait)
    by_nobody(send.close)
    by_nobody(receive.close)
    return received


def events():
    """Schedule an event, look at it, and run it."""
    ran = []
    scheduler = by_nobody(sched.scheduler)
    event = by_nobody(scheduler.enter, 0, 1, ran.append, (1,))
    fields = by_nobody(list, event)
    by_nobody(scheduler.run)
    return fields[1:3], ran


def calls():
    """Start a thread, a timer and work of a pool."""
    done: list[str] = []
    for thread in (
        threading.Thread(target=done.append, args=("thread",)),
        threading.Timer(0, done.append, ("timer",)),
    ):
        by_nobody(thread.start)
        thread.join(WAIT)
    pool = by_nobody(concurrent.futures.ThreadPoolExecutor, 1)
    by_nobody(pool.submit, done.append, "pool").result(WAIT)
    by_nobody(pool.shutdown)
    future = concurrent.futures.Future()
    by_nobody(future.add_done_callback, lambda _: done.append("callback"))
    by_nobody(future.cancel)
    return done


USES = {
    **{
        f"queue.{kind}": items_of(kind)
        for kind in ("Queue", "LifoQueue", "PriorityQueue", "SimpleQueue")
    },
    **{kind.__name__: items_of(kind) for kind in (Bag, SimpleBag)},
    **{
        f"multiprocessing.{kind}": items_of_processes(kind)
        for kind in ("Queue", "SimpleQueue", "JoinableQueue")
    },
    "asyncio.Queue": items_of_a_loop,
    "a stream": items_of_a_stream,
    "sched": events,
    "calls": calls,
}


@pytest.mark.skipif(PYPY, reason="PyPy's greenlets run in frames above those of their caller")
def test_there_is_no_caller():
    """Or what follows proves nothing."""
    with pytest.raises(ValueError, match="not deep enough"):
        by_nobody(sys._getframe, 1)


@pytest.mark.parametrize("metrics", [False, True], ids=["", "with metrics"])
@pytest.mark.parametrize("attached", [{}, {"key": "value"}], ids=["in no context", "in a context"])
@pytest.mark.parametrize("use", USES.values(), ids=USES)
def test_it_is_done_as_without_the_library(use, attached, metrics, instrument, caplog):
    """Nothing is missing below, nothing is lost, and nobody is warned."""
    token = context.attach(context.Context(attached))
    try:
        plain = use()
        instrument(metrics=metrics)
        assert use() == plain
    finally:
        context.detach(token)
    assert not faults._reported
    assert caplog.records == []
