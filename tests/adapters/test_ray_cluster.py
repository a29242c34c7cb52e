"""ray: a cluster on this host, used with the library on, under `link`, and off.

A cluster takes half a minute of work, and does not start where more than that is asked of the
machine: `pytest -m scale` runs these.
"""

from __future__ import annotations

import json

import pytest
import ray_cluster
from suite import run_program

PROGRAM = """
import asyncio, json, logging, os, sys, time
import ray
from opentelemetry import baggage, context
from opentelemetry.sdk.trace import TracerProvider
from otel_concurrency import ConcurrencyInstrumentor as I

tracer = TracerProvider().get_tracer("tests")

def see(*args, **kwargs):
    from opentelemetry import baggage, context
    from opentelemetry.sdk.trace import TracerProvider
    span = TracerProvider().get_tracer("tests").start_span("work")
    links = [link.context.span_id for link in span.links]
    seen = [span.parent and span.parent.span_id, links, baggage.get_baggage("tenant")]
    return [*seen, context.get_value("forgotten"), [*args, *map(list, kwargs.items())]]

def look(*args, **kwargs):
    seen = see(*args, **kwargs)
    context.attach(context.set_value("forgotten", 1))
    return seen

def begin(attempts=3):
    try:
        ray.init(
            num_cpus=2, include_dashboard=False, object_store_memory=80 * 2**20,
            log_to_driver=False, logging_level=logging.ERROR, _temp_dir=sys.argv[1],
        )
    except Exception as error:
        if attempts == 1 or "timed out" not in str(error):
            raise
        ray.shutdown()  # on a busy machine its 30 seconds may not be enough
        begin(attempts - 1)

task = ray.remote(num_cpus=0)(look)

@ray.remote(num_cpus=0)
def nested(*args):
    return ray.get(task.remote(*args))

@ray.remote(num_cpus=0)
def stream(number):
    for _ in range(2):
        yield look(number)

@ray.remote(num_cpus=0, retry_exceptions=True, max_retries=1)
def again(file):
    if not os.path.exists(file):
        open(file, "w").close()
        raise OSError("once")
    os.remove(file)
    return look()

@ray.remote(num_cpus=0)
class Plain:
    def look(self, *args, **kwargs):
        return look(*args, **kwargs)

    def fail(self):
        raise ValueError("the work's")

@ray.remote(num_cpus=0)
class Asynchronous:
    async def look(self, *args, delay=0):
        await asyncio.sleep(delay)
        return look(*args)

    def plainly(self, *args):
        return look(*args)

    async def stream(self):
        for _ in range(2):
            yield look()
            await asyncio.sleep(0)

begin()
plain, coroutines = Plain.options(max_concurrency=2).remote(), Asynchronous.remote()
ray.get([plain.look.remote(), coroutines.look.remote()])

def called_back():
    found = []
    future = task.remote().future()
    future.add_done_callback(lambda _: found.append(see()))
    future.result()
    while not found:
        time.sleep(0.01)
    return found[0]

ways = {
    "a task without arguments": lambda: ray.get(task.remote()),
    "a task": lambda: ray.get(task.remote(1, two=2)),
    "with options": lambda: ray.get(task.options(name="named").remote(1)),
    "with a reference": lambda: ray.get(task.remote(ray.put(1))),
    "a task of a task": lambda: ray.get(nested.remote(1)),
    "a generator": lambda: [ray.get(one) for one in stream.remote(1)][1],
    "a retry": lambda: ray.get(again.remote(sys.argv[1] + "/failed")),
    "an actor's method": lambda: ray.get(plain.look.remote(1, two=2)),
    "without arguments": lambda: ray.get(plain.look.remote()),
    "a coroutine": lambda: ray.get(coroutines.look.remote(1)),
    "beside coroutines": lambda: ray.get(coroutines.plainly.remote()),
    "an asynchronous generator": lambda: [ray.get(one) for one in coroutines.stream.remote()][1],
    "a callback": called_back,
}

def use(*some):
    found = {}
    for way in some or ways:
        call = ways[way]
        token = context.attach(baggage.set_baggage("tenant", way))
        with tracer.start_as_current_span("origin") as span:
            seen = call()
        context.detach(token)
        found[way] = [span.get_span_context().span_id, seen, call()]
    return found

def turns():
    references = []
    for number in range(60):
        token = context.attach(baggage.set_baggage("tenant", str(number)))
        references.append(coroutines.look.remote(number, delay=0.02))
        context.detach(token)
        references.append(coroutines.look.remote(None, delay=0.02))
    return [[tenant, args] for _, _, tenant, _, args in ray.get(references)]

def in_span(call, *args):
    with tracer.start_as_current_span("origin"):
        try:
            return ray.get(call(*args))
        except Exception as error:
            return [type(error).__mro__[1].__name__, str(error).splitlines()[-1]]

def set_up():
    from opentelemetry import trace
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

    class ToFile(SpanExporter):
        def export(self, spans):
            with open(os.environ["SPANS"], "a") as file:
                for span in spans:
                    print(span.name, span.parent and span.parent.span_id, file=file)
            return SpanExportResult.SUCCESS

    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(ToFile(), schedule_delay_millis=10**6))
    trace.set_tracer_provider(provider)

def make_span(name):
    from opentelemetry import trace
    set_up()
    trace.get_tracer("tests").start_span(name).end()

@ray.remote(num_cpus=0)
class Leaving:
    def __init__(self):
        self.made = see()

    def make_span(self, name):
        make_span(name)
        return self.made

    def leave(self):
        ray.actor.exit_actor()

def leave():
    with tracer.start_as_current_span("origin") as span:
        leaves, collected = Leaving.remote(), Leaving.remote()
        made, *_ = ray.get([
            leaves.make_span.remote("leaves"), collected.make_span.remote("collected"),
            ray.remote(num_cpus=0, max_calls=1)(make_span).remote("task"),
        ])
        leaves.leave.remote()
    del collected
    for _ in range(600):
        with open(os.environ["SPANS"]) as file:
            arrived = file.read().splitlines()
        if len(arrived) == 3:
            break
        time.sleep(0.1)
    return arrived, span.get_span_context().span_id, made

@ray.remote(num_cpus=0, runtime_env={"env_vars": {"PYTHONPATH": sys.argv[2]}})
def in_an_old_worker(*args, **kwargs):
    try:
        import otel_concurrency
    except ImportError:
        return [*args, *kwargs.items()]

def without():
    with tracer.start_as_current_span("origin"):
        return ray.get(in_an_old_worker.remote()), ray.get(in_an_old_worker.remote(1, two=2))

FEW = "a task", "an actor's method", "a coroutine"
found = {"off before": use(*FEW)}
for name, settings in {
    "on": {}, "link": {"multiprocessing": "link"}, "policy": {"multiprocessing": "off"},
    "adapter": {"adapters": "-ray"},
}.items():
    I().instrument(**settings)
    found[name] = use() if name == "on" else use(*FEW)
    if name == "on":
        found["turns"] = turns()
        found["errors"] = in_span(plain.fail.remote), in_span(plain.fail.remote, 1)
        found["arrived"], found["without"] = leave(), without()
        found["after a fault"] = ray.get(plain.look.remote())
    I().uninstrument()
with open(sys.argv[2] + "/found.json", "w") as file:  # ray prints what it likes
    json.dump(found, file)
"""


pytestmark = [pytest.mark.scale, pytest.mark.timeout(320)]
WAIT_FOR_CLUSTER = 300
"""Seconds; it takes twenty where nothing else runs."""


@pytest.fixture(scope="module", autouse=True)
def _environment():
    with pytest.MonkeyPatch.context() as monkeypatch:
        for name, value in ray_cluster.ENVIRONMENT.items():
            monkeypatch.setenv(name, value)
        yield


@pytest.fixture(scope="module")
def found(_environment, tmp_path_factory):
    """Return what the program has found: for each setting and way."""
    path = tmp_path_factory.mktemp("ray")
    (path / "spans").touch()
    hides = "import sys; sys.modules['otel_concurrency'] = None"
    (path / "sitecustomize.py").write_text(hides, encoding="utf-8")
    with pytest.MonkeyPatch.context() as monkeypatch, ray_cluster.directory() as directory:
        monkeypatch.setenv("SPANS", str(path / "spans"))
        run_program(PROGRAM, directory, str(path), timeout=WAIT_FOR_CLUSTER)
    return json.loads((path / "found.json").read_text(encoding="utf-8"))


ARGUMENTS = {
    "a task": [1, ["two", 2]],
    "with options": [1],
    "with a reference": [1],
    "a task of a task": [1],
    "a generator": [1],
    "an actor's method": [1, ["two", 2]],
    "a coroutine": [1],
}


def none(way):
    """Return what is seen where nothing is carried."""
    return [None, [], None, 1 if way in TWICE else None, ARGUMENTS.get(way, [])]


TWICE = ("a generator", "an asynchronous generator")
"""They attach what they forget, and go on."""


def test_a_call_is_a_child_with_the_baggage(found):
    """In every way; the next call has nothing of it."""
    assert len(found["on"]) == 13
    for way, (origin, seen, after) in found["on"].items():
        assert (way, seen) == (way, [origin, [], way, *none(way)[3:]])
        assert (way, after) == (way, none(way))


def test_under_link_a_call_is_a_trace_of_its_own(found):
    """It has a link to its origin, and the baggage."""
    for way, (origin, seen, after) in found["link"].items():
        assert (seen, after) == ([None, [origin], way, *none(way)[3:]], none(way))


@pytest.mark.parametrize("how", ["off before", "policy", "adapter"])
def test_switched_off_it_carries_nothing(how, found):
    """Before and after, by the policy, and by the adapter's name."""
    for way, (_, seen, after) in found[how].items():
        if how == "off before":  # what a worker forgets stays there until the library is on
            seen[3] = after[3] = None
        assert (seen, after) == (none(way), none(way))


def test_coroutines_that_take_turns_keep_their_own(found):
    """Many calls of one actor at once: each has the baggage of its caller, or none."""
    expected = [[[str(number), [number]], [None, [None]]] for number in range(60)]
    assert found["turns"] == [call for pair in expected for call in pair]


def test_what_a_call_raises_is_raised(found):
    """And nothing is left of it; wrong arguments are refused as without this library."""
    assert found["errors"] == [
        ["RayTaskError", "ValueError: the work's"],
        ["Exception", "too many positional arguments"],
    ]
    assert found["after a fault"] == none("")


def test_a_worker_that_leaves_exports(found):
    """Where its actor leaves, or is not referred to any more, and after the last of its calls."""
    arrived, origin, _ = found["arrived"]
    assert sorted(arrived) == [f"{name} {origin}" for name in ("collected", "leaves", "task")]


def test_an_actor_is_made_in_the_context(found):
    """What its constructor does is a child of the span in which it was made."""
    _, origin, made = found["arrived"]
    assert made == [origin, [], None, None, []]


def test_a_worker_without_this_library_runs_the_task(found):
    """It drops the headers: arguments are what they are without them."""
    assert found["without"] == [[], [1, ["two", 2]]]
