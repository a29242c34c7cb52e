"""The order service of ``otel-concurrency demo``: an HTTP endpoint that hands work on and streams.

Written as a service that has never heard of this library: it starts spans and reads baggage where
it needs them, with OpenTelemetry's API alone, and carries no context anywhere by hand. The pauses
stand for the I/O that each step would do.
"""

from __future__ import annotations

import asyncio
import json
import os
import queue
import sched
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, TextIO

from opentelemetry import baggage, context, propagate, trace
from opentelemetry.trace import Span, SpanKind

tracer = trace.get_tracer("order_service")
warehouse = ThreadPoolExecutor(max_workers=4, thread_name_prefix="warehouse")
bookkeeping = sched.scheduler()
receipts: queue.Queue[str | None] = queue.Queue()


def step(name: str, kind: SpanKind = SpanKind.INTERNAL) -> AbstractContextManager[Span]:
    """Start a span that tells its thread, and the tenant that it works for if it knows."""
    attributes = {"thread.name": threading.current_thread().name}
    tenant = baggage.get_baggage("tenant")
    if tenant is not None:
        attributes["tenant"] = str(tenant)
    return tracer.start_as_current_span(name, kind=kind, attributes=attributes)


class OrderHandler(BaseHTTPRequestHandler):
    """Takes an order, validates its payment, has the rest done by others, and streams updates."""

    def do_POST(self) -> None:
        """Answer ``POST /orders``."""
        token = context.attach(propagate.extract({k.lower(): v for k, v in self.headers.items()}))
        try:
            with step("POST /orders", SpanKind.SERVER):
                order = json.loads(self.rfile.read(int(self.headers["content-length"])))
                accept(order)
                self.send_response(202)
                self.end_headers()
                for update in updates(order):
                    with step("send_update"):
                        self.wfile.write(update)
        finally:
            context.detach(token)


def accept(order: dict[str, Any]) -> None:
    """Validate the payment of an order, and hand on everything that follows from it."""
    with step("validate_payment"):
        list(warehouse.map(reserve_stock, order["items"]))
        asyncio.run(book_courier())
        warehouse.submit(fulfil)
        Notification().start()
        threading.Timer(0.06, follow_up).start()
        receipts.put("receipt")
        bookkeeping.enter(0.12, 1, reconcile)
        time.sleep(0.01)


def updates(order: dict[str, Any]) -> Iterator[bytes]:
    """Stream how far an order has come."""
    with step("stream_updates"):
        for state in ("accepted", "reserved"):
            with step("look_up"):
                time.sleep(0.005)
            yield f"{len(order['items'])} items {state}\n".encode()


def reserve_stock(_item: str) -> None:
    with step("reserve_stock"):
        time.sleep(0.01)


async def book_courier() -> None:
    """Call a client library that only knows how to block."""
    await asyncio.get_running_loop().run_in_executor(None, quote_shipping)


def quote_shipping() -> None:
    with step("quote_shipping"):
        time.sleep(0.02)


def fulfil() -> None:
    with step("fulfil"):
        time.sleep(0.02)
        with step("print_label"):
            time.sleep(0.01)


class Notification(threading.Thread):
    """Tells the customer."""

    def run(self) -> None:
        """Send the message."""
        with step("notify"):
            time.sleep(0.015)


def send_receipts() -> None:
    """Send receipts: the loop of a thread that has run since start-up."""
    for _receipt in iter(receipts.get, None):
        with step("send_receipt"):
            time.sleep(0.04)


def follow_up(name: str = "follow_up") -> None:
    """Ask the customer how it was; where there is no answer, ask again."""
    with step(name):
        time.sleep(0.005)
        if name == "follow_up":
            threading.Timer(0.02, follow_up, args=("reminder",)).start()


def reconcile() -> None:
    with step("reconcile"):
        time.sleep(0.01)


class _Server(ThreadingHTTPServer):
    daemon_threads = False  # so that closing the server waits for the request
    timeout = 20.0

    def handle_timeout(self) -> None:
        raise TimeoutError(f"no order came within {self.timeout:.0f} s")


def main(spans: TextIO) -> None:
    """Serve one order, do all the work that it makes, and export its spans to ``spans``."""
    _export_to(spans)
    threading.Thread(target=send_receipts, name="receipts").start()
    with _Server(("127.0.0.1", 0), OrderHandler) as server:
        print(server.server_port, flush=True)
        server.handle_request()
    bookkeeping.run()
    receipts.put(None)


def _export_to(spans: TextIO) -> None:
    """Set up the SDK, with one line of JSON for each span that is exported."""
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter

    resource = Resource.create({"service.name": "order-service", "process.pid": os.getpid()})
    provider = TracerProvider(resource=resource)
    exporter = ConsoleSpanExporter(
        out=spans, formatter=lambda span: span.to_json(indent=None) + "\n"
    )
    provider.add_span_processor(BatchSpanProcessor(exporter))
    trace.set_tracer_provider(provider)


if __name__ == "__main__":
    # Left open: the provider exports what it still has when the interpreter ends, after every
    # thread that the service started.
    main(open(sys.argv[1], "w", encoding="utf-8"))  # noqa: SIM115
