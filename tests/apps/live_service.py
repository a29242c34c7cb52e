"""A service under uvicorn that hands work on, and says what has changed in it since its start.

It is looked into while it serves. The library is off until it is asked to switch it on.
"""

import asyncio
import atexit
import contextlib
import contextvars
import json
import os
import queue
import socket
import sys
import threading
from concurrent import futures

import uvicorn
from opentelemetry import context, trace
from opentelemetry.sdk.trace import Span, Tracer, TracerProvider, export
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from otel_concurrency import ConcurrencyInstrumentor

instrumentor = ConcurrencyInstrumentor()
provider = TracerProvider()
provider.add_span_processor(export.BatchSpanProcessor(InMemorySpanExporter()))
trace.set_tracer_provider(provider)
tracer = trace.get_tracer("service")
pool = futures.ThreadPoolExecutor(4, "pool")
parcels = queue.Queue()

OWNERS = (
    threading.Thread,
    threading.Condition,
    threading.Event,
    futures.ThreadPoolExecutor,
    futures.Future,
    queue.Queue,
    queue,
    asyncio.BaseEventLoop,
    asyncio.Queue,
    asyncio.selector_events._SelectorTransport,
    context,
    Tracer,
    Span,
    export.BatchSpanProcessor,
    InMemorySpanExporter,
    os,
    sys.modules["_thread"],
)


def facts():
    """Return what a look may change, other than the modules that it imports, by identity."""
    attributes = {
        (str(owner), name): value for owner in OWNERS for name, value in vars(owner).items()
    }
    processors = provider._active_span_processor._span_processors
    return (
        attributes
        | {("sys.meta_path", str(type(finder))): finder for finder in sys.meta_path}
        | {("processors", str(type(each))): each for each in processors}
    )


def counts():
    """Return how many threads and exit handlers there are, and which files are open."""
    files = set()
    for number in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            files.add(os.readlink(f"/proc/self/fd/{number}"))
    return {
        "threads": sorted(each.name for each in threading.enumerate()),
        "tasks": len(os.listdir("/proc/self/task")),
        "files": sorted(name for name in files if name.startswith("/") and "/fd" not in name),
        "exit handlers": atexit._ncallbacks(),
        "variables": sorted(var.name for var in contextvars.copy_context()),
    }


def deliver():
    """Get parcels, and deliver them."""
    while True:
        parcel = parcels.get()
        with tracer.start_as_current_span("deliver"):
            parcel.set_result(None)


def pack():
    """Pack what was ordered, on a thread of the pool."""
    with tracer.start_as_current_span("pack"):
        return 1


async def order():
    """Hand work to the pool, and to the thread that delivers."""
    with tracer.start_as_current_span("GET /order", kind=trace.SpanKind.SERVER):
        packed = await asyncio.get_running_loop().run_in_executor(pool, pack)
        parcel = futures.Future()
        parcels.put(parcel)
        await asyncio.wrap_future(parcel)
    return {"packed": packed}


async def state():
    """Say what has changed, and what there is."""
    now = facts()
    names = now.keys() | at_start.keys()
    changed = [name for name in names if now.get(name) is not at_start.get(name)]
    return {"changed": sorted(map(str, changed)), **counts()}


async def switch_on():
    """Switch the library on; that is no change."""
    instrumentor.instrument()
    reset()
    return {}


async def switch_off():
    """Switch the library off; that is no change."""
    instrumentor.uninstrument()
    reset()
    return {}


async def is_on():
    """Say whether the library is on."""
    return {"on": instrumentor.is_instrumented_by_opentelemetry}


async def fork():
    """Fork, and say what has changed in the child."""
    pid = os.fork()
    if pid == 0:
        now = facts()
        os._exit(sum(now.get(name) is not value for name, value in at_start.items()) and 1)
    return {"status": os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])}


PATHS = {
    "/order": order,
    "/state": state,
    "/on": switch_on,
    "/off": switch_off,
    "/is_on": is_on,
    "/fork": fork,
}


async def app(scope, receive, send):
    """Answer as the function of the path does (ASGI)."""
    body = json.dumps(await PATHS[scope["path"]]()).encode()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})


def reset():
    """Take things as they are for unchanged."""
    global at_start
    at_start = facts()


if __name__ == "__main__":
    threading.Thread(target=deliver, name="deliver", daemon=True).start()
    barrier = threading.Barrier(4)
    list(pool.map(lambda _: barrier.wait(), range(4)))  # all threads of the pool
    reset()
    sock = socket.create_server(("127.0.0.1", 0))
    print(sock.getsockname()[1], flush=True)
    config = uvicorn.Config(app, log_level="warning", lifespan="off", loop="asyncio", http="h11")
    uvicorn.Server(config).run([sock])
