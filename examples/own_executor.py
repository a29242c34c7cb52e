"""A home-made executor, with a thread of its own that is handed calls in a list."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import ParamSpec, TypeVar

from opentelemetry import trace

from otel_concurrency import capture

P = ParamSpec("P")
T = TypeVar("T")

tracer = trace.get_tracer("example")


class OneThread(Executor):
    """Runs one call after the other."""

    def __init__(self) -> None:
        self._calls: deque[Callable[[], None] | None] = deque()
        self._waiting = threading.Semaphore(0)
        self._thread = threading.Thread(target=self._work)
        self._thread.start()

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Have ``fn`` called in the context of whoever submits it."""
        future: Future[T] = Future()
        handoff = capture()

        def call() -> None:
            try:
                future.set_result(handoff.run(fn, *args, **kwargs))
            except Exception as error:
                future.set_exception(error)

        self._put(call)
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Let the thread end when it has nothing more to do."""
        self._put(None)
        if wait:
            self._thread.join()

    def _put(self, call: Callable[[], None] | None) -> None:
        self._calls.append(call)
        self._waiting.release()

    def _work(self) -> None:
        while self._waiting.acquire() and (call := self._calls.popleft()) is not None:
            call()


def add(left: int, right: int) -> int:
    """Add, in a span."""
    with tracer.start_as_current_span(f"add {left} and {right}"):
        return left + right


def main() -> None:
    """Submit calls from two requests."""
    with OneThread() as executor:
        for number in (1, 2):
            with tracer.start_as_current_span(f"request {number}"):
                future = executor.submit(add, number, number)
                future.result()


if __name__ == "__main__":
    main()
