"""A pipeline of three tasks that run since start-up, with queues in between, fed over HTTP."""

from __future__ import annotations

import asyncio
import sys

from opentelemetry import baggage, context, trace

tracer = trace.get_tracer(__name__)


def span_of(stage, item):
    """Open the span of a stage of an item, which tells the baggage that is there."""
    seen = str(baggage.get_baggage("item") or "none")
    return tracer.start_as_current_span(stage, attributes={"item": item, "baggage": seen})


async def parse(incoming, parsed):
    """Take what came in, until the program ends."""
    while True:
        raw = await incoming.get()
        with span_of("parse", raw.strip()):
            await asyncio.sleep(0)
            await parsed.put(raw.strip())
        incoming.task_done()


async def enrich(parsed, enriched):
    """Take what was parsed, until the program ends."""
    while True:
        item = await parsed.get()
        with span_of("enrich", item):
            await asyncio.sleep(0.001)
            await enriched.put((-int(item), item))
        parsed.task_done()


async def store(enriched):
    """Take what was enriched, until the program ends."""
    while True:
        _, item = await enriched.get()
        with span_of("store", item):
            await asyncio.sleep(0)
            enriched.task_done()


async def main():
    """Serve until a request asks to quit, and see everything stored."""
    incoming, parsed, enriched = asyncio.Queue(8), asyncio.LifoQueue(), asyncio.PriorityQueue(4)
    quitting = asyncio.Event()

    async def serve(reader, writer):
        name = (await reader.readline()).split()[1].decode()[1:]
        while await reader.readline() not in (b"\r\n", b""):
            pass
        answer = "bye"
        if name == "quit":
            quitting.set()
        else:
            token = context.attach(baggage.set_baggage("item", name))
            with span_of("request", name):
                await incoming.put(f" {name} ")
                answer = f"accepted {name}"
            context.detach(token)
        writer.write(f"HTTP/1.0 200 OK\r\n\r\n{answer}".encode())
        await writer.drain()
        writer.close()

    stages = [
        asyncio.create_task(stage)
        for stage in (parse(incoming, parsed), enrich(parsed, enriched), store(enriched))
    ]
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    print(f"http://127.0.0.1:{port}", file=sys.stderr, flush=True)
    await quitting.wait()
    for stage in (incoming, parsed, enriched):
        await stage.join()
    for task in stages:
        task.cancel()
    await asyncio.gather(*stages, return_exceptions=True)
    server.close()


asyncio.run(main())
