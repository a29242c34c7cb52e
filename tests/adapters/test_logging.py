"""OpenTelemetry's handler behind a queue of `logging`'s: records stay in their trace."""

from __future__ import annotations

import json

from suite import IN_BOTH_ORDERS, run_program

PROGRAM = """
import json
import logging.handlers
import queue
from opentelemetry import trace
from opentelemetry.instrumentation.logging.handler import LoggingHandler
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter, SimpleLogRecordProcessor
from opentelemetry.sdk.trace import TracerProvider

exporter, provider = InMemoryLogRecordExporter(), LoggerProvider()
provider.add_log_record_processor(SimpleLogRecordProcessor(exporter))
tracer = TracerProvider().get_tracer("program")
records = queue.Queue()
logger = logging.Logger("program")
logger.addHandler(logging.handlers.QueueHandler(records))
listener = logging.handlers.QueueListener(records, LoggingHandler(logger_provider=provider))
with tracer.start_as_current_span("starter"):
    listener.start()
expected = {}
for name in ("one", "another"):
    with tracer.start_as_current_span(name) as span:
        found = span.get_span_context()
        expected[name] = [found.trace_id, found.span_id, []]
        logger.warning(name)
    expected[name + ", outside"] = [0, 0, []]
    logger.warning(name + ", outside")
listener.stop()
sent = {
    one.log_record.body: [one.log_record.trace_id, one.log_record.span_id]
    + [list(one.log_record.attributes)]
    for one in exporter.get_finished_logs()
}
print(json.dumps([expected, sent]))
"""


@IN_BOTH_ORDERS
def test_a_record_is_in_the_trace_that_logged_it(first):
    """It has the ids of its span and no attribute of ours; one that was logged outside has none."""
    expected, sent = json.loads(run_program(first.format(module="logging.handlers") + PROGRAM))
    assert sent == expected
