"""Messages over a plain socket, without an instrumentor: the headers are part of the message."""

from __future__ import annotations

import json
import socket
import threading

from opentelemetry import trace

from otel_concurrency import HandOff, capture

tracer = trace.get_tracer("example")


def send(connection: socket.socket, body: str) -> None:
    """Send one message, a line of JSON."""
    message = {"headers": capture().headers(), "body": body}
    connection.sendall(json.dumps(message).encode() + b"\n")


def serve(connection: socket.socket) -> None:
    """Handle every message, each in the context of its sender."""
    with connection, connection.makefile("rb") as lines:
        for line in lines:
            message = json.loads(line)
            with HandOff.from_headers(message["headers"]):
                span = tracer.start_span(f"handle {message['body']}", kind=trace.SpanKind.CONSUMER)
                span.end()


def main() -> None:
    """Send two messages, each from a request of its own."""
    client, server = socket.socketpair()
    thread = threading.Thread(target=serve, args=(server,))
    thread.start()
    with client:
        for body in ("first", "second"):
            with tracer.start_as_current_span(f"request {body}"):
                send(client, body)
    thread.join()


if __name__ == "__main__":
    main()
