"""Celery's worker with two threads, whose tasks hand work on; their messages stay in memory."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from celery import Celery
from celery.contrib.testing.worker import start_worker
from spans import span

app = Celery("tasks", broker="memory://", backend="cache+memory://", set_as_current=True)
POOL = ThreadPoolExecutor(2)


def half(number, parent):
    """Return half of ``number``."""
    with span(f"{parent}/half", parent):
        return number / 2


@app.task
def work(number):
    """Return half of ``number``, from the pool."""
    name = f"task{number}"
    with span(name):
        return POOL.submit(half, number, name).result()


if __name__ == "__main__":
    with start_worker(app, pool="threads", concurrency=2, perform_ping_check=False):
        results = [work.delay(number) for number in range(6)]
        print([result.get(timeout=60) for result in results])
    POOL.shutdown()
