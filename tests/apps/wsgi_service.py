"""A WSGI service whose endpoint hands work on and answers without waiting for it."""

import atexit

import workload
from opentelemetry import context, propagate, trace
from opentelemetry.trace import SpanKind

tracer = trace.get_tracer("wsgi")
atexit.register(workload.finish)  # before the SDK's, which was registered earlier


def app(environ, start_response):
    """Serve one request in a span of its own, with the baggage that came with it."""
    headers = {key[5:].lower(): value for key, value in environ.items() if key.startswith("HTTP_")}
    path = environ["PATH_INFO"]
    token = context.attach(propagate.extract(headers))
    try:
        with tracer.start_as_current_span(f"GET {path}", kind=SpanKind.SERVER) as span:
            span.set_attribute("url.path", path)
            workload.hand_on()
    finally:
        context.detach(token)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [path.encode()]
