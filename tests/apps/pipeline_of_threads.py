"""A pipeline of three workers that run since start-up, with queues in between, fed over HTTP."""

from __future__ import annotations

import queue
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from queue import SimpleQueue

from opentelemetry import baggage, context, trace

tracer = trace.get_tracer(__name__)
incoming: queue.Queue = queue.Queue(maxsize=8)
parsed: SimpleQueue = SimpleQueue()
enriched: queue.PriorityQueue = queue.PriorityQueue()
stored = threading.Semaphore(0)


def span_of(stage, item):
    """Open the span of a stage of an item, which tells the baggage that is there."""
    seen = str(baggage.get_baggage("item") or "none")
    return tracer.start_as_current_span(stage, attributes={"item": item, "baggage": seen})


def parse():
    """Take what came in, until the program ends."""
    while True:
        raw = incoming.get()
        with span_of("parse", raw.strip()):
            parsed.put(raw.strip())
        incoming.task_done()


def enrich():
    """Take what was parsed, until the program ends."""
    for item in iter(parsed.get, None):
        with span_of("enrich", item):
            enriched.put((-int(item), item))


def store():
    """Take what was enriched, until the program ends."""
    while True:
        _, item = enriched.get()
        with span_of("store", item):
            enriched.task_done()
        stored.release()


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        name = self.path[1:]
        if name == "quit":
            self.answer("bye")
            threading.Thread(target=self.server.shutdown).start()
            return
        token = context.attach(baggage.set_baggage("item", name))
        with span_of("request", name):
            incoming.put(f" {name} ")
            self.answer(f"accepted {name}")
        context.detach(token)
        self.server.accepted += 1

    def answer(self, text):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *args):
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = False
    request_queue_size = 64
    accepted = 0


for stage in (parse, enrich, store):
    threading.Thread(target=stage, daemon=True).start()
with Server(("127.0.0.1", 0), Handler) as server:
    print(f"http://127.0.0.1:{server.server_port}", file=sys.stderr, flush=True)
    server.serve_forever()
for _ in range(server.accepted):
    stored.acquire()
incoming.join()
enriched.join()
