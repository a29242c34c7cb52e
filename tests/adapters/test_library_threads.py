"""Readers of libraries that a request happens to start: what they call later is in no context.

Each is the real library, with the real server where there is one: what stands in for a JVM, or for
Kubernetes, speaks the same protocol over a socket.
"""

from __future__ import annotations

import contextlib
import io
import json
import queue
import socket
import tempfile
import threading
from collections import deque
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import kubernetes
import prompt_toolkit.output
import prompt_toolkit.patch_stdout
import py4j.java_collections
import py4j.java_gateway
import pytest
import redis
import rich.console
import rich.live
import servers
import websocket
import websockets.sync.server
from kubernetes.informer import ADDED, SharedInformer
from opentelemetry import baggage, context
from suite import WAIT, outside


class Sight:
    """What a reader calls, on its own thread; it notes what it was called in."""

    def __init__(self, tracer):
        self._tracer = tracer
        self._seen = deque()
        self._looked = threading.Semaphore(0)  # a queue would carry the context here
        self._here = threading.get_ident()

    def look(self, *_):
        """Make a span; note its parent and the baggage, unless it is the test that calls."""
        if threading.get_ident() != self._here:
            with self._tracer.start_as_current_span("message") as span:
                self._seen.append((span.parent, baggage.get_baggage("tenant")))
                self._looked.release()

    def next(self):
        """Return what was seen next."""
        assert self._looked.acquire(timeout=WAIT)
        return self._seen.popleft()


@contextlib.contextmanager
def thread_of(function):
    """Run ``function`` on a thread that is started in no context, while the block runs."""
    thread = threading.Thread(target=function, daemon=True)
    outside(thread.start)
    yield
    thread.join(WAIT)


@contextlib.contextmanager
def websocket_client(sight):
    """Make a client that reads what a server sends."""

    def serve(connection):
        for message in connection:
            connection.send(message)

    server = outside(websockets.sync.server.serve, serve, "127.0.0.1", 0)
    with thread_of(server.serve_forever):
        port = server.socket.getsockname()[1]
        opened = threading.Event()
        client = websocket.WebSocketApp(
            f"ws://127.0.0.1:{port}",
            on_open=lambda _: opened.set(),
            on_message=sight.look,
            on_pong=sight.look,
        )

        def start():
            options = {"ping_interval": 0.2, "ping_timeout": 0.1}
            threading.Thread(target=client.run_forever, kwargs=options, daemon=True).start()
            assert opened.wait(WAIT)

        yield start, lambda: client.send("message")
        client.close()
        server.shutdown()


class Cluster(BaseHTTPRequestHandler):
    """The part of a Kubernetes API server that lists and watches pods."""

    protocol_version = "HTTP/1.1"
    events: queue.SimpleQueue[str | None]

    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        if "watch=" not in self.path:
            self._write({"kind": "PodList", "metadata": {"resourceVersion": "1"}, "items": []})
        else:
            while (name := self.events.get()) is not None:
                pod = {"kind": "Pod", "metadata": {"name": name, "resourceVersion": "2"}}
                self._write({"type": "ADDED", "object": pod})
        self.wfile.write(b"0\r\n\r\n")

    def _write(self, answer):
        line = json.dumps(answer).encode() + b"\n"
        self.wfile.write(f"{len(line):x}\r\n".encode() + line + b"\r\n")

    def log_message(self, *_):
        """Say nothing."""


@contextlib.contextmanager
def kubernetes_informer(sight):
    """Make an informer that watches pods."""
    Cluster.events = queue.SimpleQueue()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Cluster)
    with thread_of(server.serve_forever):
        where = kubernetes.client.Configuration(host=f"http://127.0.0.1:{server.server_port}")
        api = kubernetes.client.CoreV1Api(kubernetes.client.ApiClient(where))
        informer = SharedInformer(api.list_namespaced_pod, namespace="default")
        informer.add_event_handler(ADDED, sight.look)
        yield informer.start, lambda: Cluster.events.put("pod")
        informer._stop_event.set()
        Cluster.events.put(None)
        informer.stop()
        server.shutdown()
        server.server_close()


@contextlib.contextmanager
def py4j_callback_server(sight):
    """Make a server by which Java calls Python: pyspark's ``foreachBatch`` is built on it."""

    class Listener:
        def called(self):
            sight.look()

    pool = py4j.java_gateway.PythonProxyPool()
    where = py4j.java_gateway.CallbackServerParameters(port=0, daemonize=True)
    client = py4j.java_gateway.GatewayClient()
    server = py4j.java_gateway.CallbackServer(pool, client, callback_server_parameters=where)
    listener = pool.put(Listener())

    listening = threading.Event()
    py4j.java_gateway.server_started.connect(lambda *_, **__: listening.set())

    def call():
        assert listening.wait(WAIT)
        with socket.create_connection(("127.0.0.1", server.get_listening_port()), WAIT) as java:
            java.sendall(f"c\n{listener}\ncalled\ne\n".encode())
            assert java.recv(100).startswith(b"!y")

    yield server.start, call
    server.shutdown()


@contextlib.contextmanager
def rich_live(sight):
    """Make a display that refreshes itself."""
    console = rich.console.Console(file=io.StringIO(), force_terminal=True)

    def shown():
        sight.look()
        return "shown"

    live = rich.live.Live(get_renderable=shown, console=console, refresh_per_second=100)
    yield live.start, lambda: None
    live.stop()


@contextlib.contextmanager
def prompt_toolkit_stdout(sight):
    """Make what writes above a prompt."""
    output = prompt_toolkit.output.DummyOutput()
    output.write_raw = output.write = sight.look
    proxies = []

    def start():
        with prompt_toolkit.application.create_app_session(output=output):
            proxies.append(prompt_toolkit.patch_stdout.StdoutProxy(sleep_between_writes=0))

    yield start, lambda: proxies[0].write("line\n")
    proxies[0].close()


@contextlib.contextmanager
def redis_subscriber(sight):
    """Make a thread that reads what is published."""
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        port = stack.enter_context(servers.redis(directory))
        client = stack.enter_context(redis.Redis(port=int(port)))
        subscriber = stack.enter_context(client.pubsub())
        subscriber.subscribe(news=sight.look)
        threads = []

        def stop():
            for thread in threads:
                thread.stop()
                thread.join(WAIT)

        stack.callback(stop)
        yield (
            lambda: threads.append(subscriber.run_in_thread(sleep_time=0.01, daemon=True)),
            lambda: client.publish("news", "message"),
        )


READERS = [
    websocket_client,
    kubernetes_informer,
    py4j_callback_server,
    rich_live,
    prompt_toolkit_stdout,
    pytest.param(
        redis_subscriber,
        marks=pytest.mark.skipif(
            not servers.INSTALLED["redis"], reason="Debian's redis-server is not installed"
        ),
    ),
]


@pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.__name__)
def test_what_a_reader_calls_is_in_no_context(reader, instrument, tracer):
    """A request started it; the spans of what it calls are roots, without that one's baggage."""
    instrument()
    sight = Sight(tracer)
    with reader(sight) as (start, provoke):
        token = context.attach(baggage.set_baggage("tenant", "acme"))
        with tracer.start_as_current_span("request"):
            start()
        context.detach(token)
        for _ in range(2):
            outside(provoke)
            assert sight.next() == (None, None)
