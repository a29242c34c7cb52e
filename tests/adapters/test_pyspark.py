"""pyspark: one program with a session of Spark's, whose batches are linked to their query's start.

It also runs what docs/by-hand.md says of Spark's jobs.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest
from pyspark.sql.utils import ForeachBatchFunction
from suite import INSTRUMENT_FIRST, check_undo, run_program

PAGE = Path(__file__).parents[2] / "docs" / "by-hand.md"
BY_HAND = re.search(r"## Jobs of Spark\n.*?```python\n(.*?)```", PAGE.read_text("utf-8"), re.S)[1]

PROGRAM = (
    """
import time
from concurrent.futures import ThreadPoolExecutor
from opentelemetry import baggage, context, trace
from opentelemetry.sdk.trace import TracerProvider
from otel_concurrency import ConcurrencyInstrumentor as I
from pyspark.sql import SparkSession
from pyspark.sql.functions import udf

tracer = TracerProvider().get_tracer("tests")
spark = (SparkSession.builder.master("local[1]").config("spark.ui.enabled", "false")
    .config("spark.driver.host", "127.0.0.1").config("spark.log.level", "OFF").getOrCreate())
"""
    + BY_HAND
    + """
def seen():
    from opentelemetry import baggage, trace
    with context_of_job():
        span = trace.get_current_span().get_span_context()
        return f"{span.span_id:x} {baggage.get_baggage('tenant')}"

def frames(parts):
    for part in parts:
        yield part.assign(seen=seen())

made_once = udf(lambda _: seen(), "string")
numbers = spark.range(2)
jobs = {
    "rdd": lambda: spark.sparkContext.parallelize([1, 2]).map(lambda _: seen()).collect(),
    "udf": lambda: [row[0] for row in numbers.select(made_once("id")).collect()],
    "frames": lambda: [row.seen for row in
        numbers.mapInPandas(frames, "id long, seen string").collect()],
}

def request(tenant):
    token = context.attach(baggage.set_baggage("tenant", tenant))
    with tracer.start_as_current_span("request") as span, jobs_in_this_context(spark):
        done = {name: list(set(job())) for name, job in jobs.items()}
    context.detach(token)
    return f"{span.get_span_context().span_id:x} {tenant}", done

def batches(tenant=None):
    done = []
    def batch(frame, number):
        span = tracer.start_span("batch")
        done.append([span.parent and 1, [link.context.span_id for link in span.links],
                     baggage.get_baggage("tenant"), "forgotten" in context.get_current()])
        context.attach(context.set_value("forgotten", 1))
    rates = spark.readStream.format("rate").load()
    token = context.attach(baggage.set_baggage("tenant", "acme"))
    with tracer.start_as_current_span("start") as span:
        query = rates.writeStream.foreachBatch(batch).start()
    context.detach(token)
    while len(done) < 2:
        assert query.exception() is None, query.exception()
        time.sleep(0.05)
    query.stop()
    return span.get_span_context().span_id, done[:2]

I().instrument()
found = {"jobs": [request("acme"), request("umbrella")]}
with ThreadPoolExecutor(3) as pool:
    found["at once"] = list(pool.map(request, ["one", "two", "three"]))
found["after"] = {name: list(set(job())) for name, job in jobs.items()}
found["batches"] = batches()
I().uninstrument()
for how, settings in {"policy": {"sched": "off"}, "adapter": {"adapters": "-pyspark"}}.items():
    I().instrument(**settings)
    found[how] = batches()
    I().uninstrument()
print(json.dumps(found))
spark.stop()
"""
)


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """Return what the program has found."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYSPARK_PYTHON", sys.executable)  # or its workers are what `python3` is
        printed = run_program(PROGRAM, directory=tmp_path_factory.mktemp("spark"), timeout=400)
    return json.loads(printed)


pytestmark = pytest.mark.timeout(500)


@pytest.mark.decisive
def test_each_batch_is_a_trace_that_is_linked(found):
    """To the start of its query, with the baggage; what one leaves attached, the next has not."""
    origin, done = found["batches"]
    assert done == [[None, [origin], "acme", False]] * 2


@pytest.mark.parametrize("how", ["policy", "adapter"])
def test_switched_off_it_carries_nothing(how, found):
    """By the policy, and by the adapter's name."""
    assert [one[:3] for one in found[how][1]] == [[None, [], None]] * 2


def test_jobs_by_hand_have_the_context_of_their_action(found):
    """Functions that are made once are in each request's, also at once; without one in none."""
    for expected, done in found["jobs"] + found["at once"]:
        assert done == {"rdd": [expected], "udf": [expected], "frames": [expected]}
    assert found["after"] == {"rdd": ["0 None"], "udf": ["0 None"], "frames": ["0 None"]}


def test_switched_on_before_it_is_imported():
    """The order of imports does not matter; what a batch raises is raised."""
    program = """
from types import SimpleNamespace
from opentelemetry import baggage, context
from pyspark.sql.utils import ForeachBatchFunction
context.attach(baggage.set_baggage("tenant", "acme"))
batch = ForeachBatchFunction(None, print)
context.attach(context.Context())

def session():
    raise LookupError(baggage.get_baggage("tenant"))

try:
    batch.call(SimpleNamespace(sparkSession=session), 1)
except LookupError as error:
    print(error, error is batch.error)
"""
    assert run_program(INSTRUMENT_FIRST.format(module="pyspark") + program) == "acme True\n"


def test_undo_is_exact():
    """Every attribute that was replaced is what it was, by identity."""
    check_undo(ForeachBatchFunction)
