"""The service that is measured: its handlers use an executor, a queue, an asyncio queue, a thread.

Each request has a span, as under an instrumentor. It prints its port; ``/switch?to=`` takes a
variant.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import json
import queue
import socket
import threading
from collections.abc import AsyncIterator
from typing import Any

import uvicorn
from fastapi import FastAPI
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from operations import OFFICIAL, OURS

from otel_concurrency import ConcurrencyInstrumentor


class Nowhere(SpanExporter):
    """Exports to nowhere: the network is not what is measured."""

    def export(self, spans: Any) -> SpanExportResult:
        """Drop the spans."""
        return SpanExportResult.SUCCESS


PROVIDER = TracerProvider(shutdown_on_exit=False)
PROVIDER.add_span_processor(BatchSpanProcessor(Nowhere()))
TRACER = PROVIDER.get_tracer("service")

ORDER = {"items": [{"sku": f"sku-{number}", "count": number} for number in range(50)]}
POOL = concurrent.futures.ThreadPoolExecutor(4)
JOBS: queue.Queue[Any] = queue.Queue()


def work() -> int:
    """Do as much as a small task does, with a span of its own."""
    with TRACER.start_as_current_span("work"):
        return sum(item["count"] for item in json.loads(json.dumps(ORDER))["items"])


def consume() -> None:
    """Do the jobs of the queue, for ever."""
    while True:
        future = JOBS.get()
        future.set_result(work())


@contextlib.asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Start the consumers, in no context."""
    threading.Thread(target=consume, daemon=True).start()
    app.state.jobs = asyncio.Queue()

    async def consume_here() -> None:
        while True:
            future = await app.state.jobs.get()
            future.set_result(work())

    app.state.consumer = asyncio.create_task(consume_here())
    yield


app = FastAPI(lifespan=lifespan)


@app.middleware("http")
async def in_a_span(request: Any, call_next: Any) -> Any:
    """Give each request a span."""
    with TRACER.start_as_current_span("request"):
        return await call_next(request)


@app.get("/executor")
async def executor() -> int:
    """Work in an executor."""
    return await asyncio.get_running_loop().run_in_executor(POOL, work)


@app.get("/queue")
async def through_queue() -> int:
    """Work behind a queue."""
    future: concurrent.futures.Future[int] = concurrent.futures.Future()
    JOBS.put(future)
    return await asyncio.wrap_future(future)


@app.get("/asyncio_queue")
async def through_asyncio_queue() -> int:
    """Work behind a queue of asyncio."""
    future = asyncio.get_running_loop().create_future()
    await app.state.jobs.put(future)
    return int(await future)


@app.get("/thread")
def thread() -> int:
    """Work in a thread, which a handler that is no coroutine waits for in another one."""
    found: list[int] = []
    one = threading.Thread(target=lambda: found.append(work()))
    one.start()
    one.join()
    return found[0]


@app.get("/switch")
async def switch(to: str) -> str:
    """Switch one variant on, and what was on off."""
    from opentelemetry.instrumentation.threading import ThreadingInstrumentor

    for name, instrumentor in (
        (OURS, ConcurrencyInstrumentor()),
        (OFFICIAL, ThreadingInstrumentor()),
    ):
        if instrumentor.is_instrumented_by_opentelemetry and name != to:
            instrumentor.uninstrument()
        elif not instrumentor.is_instrumented_by_opentelemetry and name == to:
            instrumentor.instrument()
    return to


if __name__ == "__main__":
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        print(listener.getsockname()[1], flush=True)
        config = uvicorn.Config(app, log_level="error", access_log=False)
        uvicorn.Server(config).run([listener])
