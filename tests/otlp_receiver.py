"""A receiver of OTLP over HTTP: tests look at what a real exporter has sent."""

from __future__ import annotations

import gzip
import threading
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


@dataclass(frozen=True)
class Span:
    """A span as it arrived; ids are in hexadecimal, and empty where there is none."""

    name: str
    trace_id: str
    span_id: str
    parent_id: str
    attributes: dict[str, str]


class Receiver:
    """Serves until it is left; keeps what it is sent, and what of it was no request at all."""

    def __init__(self, host: str = "127.0.0.1") -> None:
        self.spans: list[Span] = []
        self.metrics: list[tuple[str, int]] = []
        self.logs: list[str] = []
        self.faults: list[str] = []
        self.connections = 0
        self.open_connections = 0
        self._lock = threading.Lock()
        self._answers = threading.Event()
        self._answers.set()
        self._server = _Server((host, 0), _Handler)
        self._server.receiver = self
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))

    def __enter__(self) -> Receiver:
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._answers.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def endpoint(self) -> str:
        """What `OTEL_EXPORTER_OTLP_ENDPOINT` has to be."""
        host, port = self._server.server_address[:2]
        return f"http://{host}:{port}"

    def never_answer(self) -> None:
        """Take every request, and leave it without an answer until the end."""
        self._answers.clear()

    def take(self, path: str, body: bytes) -> None:
        """Keep what one request says, then wait until it may be answered."""
        request = _READERS[path](body)
        with self._lock:
            getattr(self, path.rpartition("/")[2].replace("traces", "spans")).extend(request)
        self._answers.wait()


def _spans(body: bytes) -> list[Span]:
    return [
        Span(
            span.name,
            span.trace_id.hex(),
            span.span_id.hex(),
            span.parent_span_id.hex(),
            {each.key: each.value.string_value for each in span.attributes},
        )
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    ]


def _metrics(body: bytes) -> list[tuple[str, int]]:
    return [
        (metric.name, point.as_int)
        for resource in ExportMetricsServiceRequest.FromString(body).resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
        for point in metric.sum.data_points
    ]


def _logs(body: bytes) -> list[str]:
    return [
        record.body.string_value
        for resource in ExportLogsServiceRequest.FromString(body).resource_logs
        for scope in resource.scope_logs
        for record in scope.log_records
    ]


_READERS = {"/v1/traces": _spans, "/v1/metrics": _metrics, "/v1/logs": _logs}


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256
    receiver: Receiver


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # connections are kept, as collectors keep them
    disable_nagle_algorithm = True
    wbufsize = -1
    server: _Server

    def setup(self) -> None:
        super().setup()
        self.server.receiver.connections += 1
        self.server.receiver.open_connections += 1

    def finish(self) -> None:
        self.server.receiver.open_connections -= 1
        super().finish()

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        try:
            self.server.receiver.take(self.path, body)
        except Exception as error:
            self.server.receiver.faults.append(repr(error))
        self.send_response(200)
        self.send_header("Content-Type", "application/x-protobuf")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def send_error(self, *arguments: Any, **keywords: Any) -> None:
        self.server.receiver.faults.append(repr(arguments))
        super().send_error(*arguments, **keywords)

    def log_message(self, *arguments: Any) -> None:
        pass
