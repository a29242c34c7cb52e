"""What a consumer of messages does with one: it hands it on, in every way that there is."""

from __future__ import annotations

HAND_ON = """
import asyncio
import queue
import threading
from concurrent.futures import ThreadPoolExecutor
from suite_work import baggage, context, switch_on, tracer

switch_on()
pool, items = ThreadPoolExecutor(1), queue.Queue()

def step(way, message):
    with tracer.start_as_current_span(f"{way}:{message}"):
        return baggage.get_baggage("tenant")

def consume():
    while True:
        message, answer = items.get()
        answer.append(step("queue", message))
        answer[0].release()

threading.Thread(target=consume, daemon=True).start()

def hand_on(message):
    "Have a span made in each way; return the baggage that was seen there."
    async def in_a_task():
        async def task():
            return step("task", message)
        return await asyncio.create_task(task())

    seen = [pool.submit(step, "pool", message).result(20), asyncio.run(in_a_task())]
    answer = [threading.Semaphore(0)]
    items.put((message, answer))
    assert answer[0].acquire(timeout=20)
    thread = threading.Thread(target=lambda: seen.append(step("thread", message)))
    thread.start()
    thread.join(20)
    return [*seen, *answer[1:]]
"""
"""The beginning of a program."""

WAYS = ("pool", "queue", "task", "thread")


def parents_of(spans: list[list[str]], message: str) -> set[str]:
    """Return the parents of the spans that were made for a message, of which each way has one."""
    found = [(name, parent) for name, _, parent, *_ in spans if name.endswith(f":{message}")]
    assert sorted(name for name, _ in found) == [f"{way}:{message}" for way in WAYS]
    return {parent for _, parent in found}
