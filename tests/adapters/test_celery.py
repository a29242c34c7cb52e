"""celery beside OpenTelemetry's instrumentor: real workers of each pool, over files.

It needs no adapter of its own: the workers that it forks are billiard's.
"""

from __future__ import annotations

import json

import pytest
from suite import spans_of

WORKERS = ("solo", "threads", "prefork", "prefork-off")

TASKS = """
import os
import queue
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from suite_work import baggage, context, switch_on, tracer

ORDER = os.environ.get("ORDER", "imported first")
if ORDER == "instrumented first":
    switch_on()
from celery import Celery
from kombu.transport import filesystem
from opentelemetry.instrumentation.celery import CeleryInstrumentor
if ORDER == "imported first":
    import billiard.pool
    switch_on(adapters=os.environ.get("ADAPTERS", "*"))
CeleryInstrumentor().instrument()

folder = os.environ["FOLDER"]
own = f"{folder}/{os.getpid()}"
os.makedirs(f"{own}/written")

class Channel(filesystem.Channel):
    def _put(self, *args, **kwargs):
        # A message is where others look for it once it is whole.
        super()._put(*args, **kwargs)
        for name in os.listdir(self.data_folder_out):
            os.rename(f"{self.data_folder_out}/{name}", f"{self.data_folder_in}/{name}")

filesystem.Transport.Channel = Channel
app = Celery("tasks", broker="filesystem://", backend=f"file://{folder}/results")
app.conf.broker_transport_options = {
    "data_folder_in": f"{folder}/messages",
    "data_folder_out": f"{own}/written",
    # kombu empties a table of bindings before it has the lock: each process has its own tables.
    "control_folder": f"{own}/control",
    "polling_interval": 0.05,
}
app.conf.broker_connection_retry_on_startup = True
app.conf.worker_hijack_root_logger = False
pool, items = ThreadPoolExecutor(1), queue.Queue()

def step(name):
    with tracer.start_as_current_span(name):
        return baggage.get_baggage("tenant")

def consume():
    while True:
        answer = items.get()
        answer.append(step("queue"))
        answer[0].release()

@app.task
def work():
    if not consumers:
        consumers.append(threading.Thread(target=consume, daemon=True))
        consumers[0].start()
    seen = [pool.submit(step, "pool").result(20)]
    answer = [threading.Semaphore(0)]
    items.put(answer)
    assert answer[0].acquire(timeout=20)
    thread = threading.Thread(target=step, args=("thread",))
    thread.start()
    thread.join(20)
    context.attach(context.set_value("forgotten", 1))
    return [os.getpid(), *seen, *answer[1:]]

consumers = []

@app.task
def plain():
    return [key for key in map(str, context.get_current()) if "span" not in key]

if __name__ == "__main__":
    name, pool_class = sys.argv[1:]
    options = "-c 1 -l ERROR --without-gossip --without-mingle --without-heartbeat".split()
    command = ["worker", "-n", f"{name}@%h", "-Q", name, "-P", pool_class, *options]
    if pool_class == "prefork":
        context.attach(baggage.set_baggage("tenant", "starter"))
        with tracer.start_as_current_span("starter"):
            app.worker_main(command)
    else:
        app.worker_main(command)
"""

PROGRAM = """
import json
import signal
import subprocess
from tasks import *

def send(task, name):
    return task.apply_async(queue=name)

def result(sent):
    return sent.get(timeout=80, interval=0.05)

workers = {}
for name in WORKERS:
    settings = {"ORDER": "instrumented first"} if name == "threads" else {}
    if name == "prefork-off":
        settings["ADAPTERS"] = "-billiard"
    workers[name] = subprocess.Popen(
        [sys.executable, "tasks.py", name, name.partition("-")[0]],
        cwd=os.path.dirname(__file__),
        env={**os.environ, **settings},
        stdout=subprocess.DEVNULL,
    )
found = {name: [] for name in WORKERS}
try:
    for tenant in ("acme", "umbrella"):
        for name in WORKERS:
            token = context.attach(baggage.set_baggage("tenant", tenant))
            with tracer.start_as_current_span("origin"):
                sent = send(work, name)
            context.detach(token)
            found[name] += [(tenant, result(sent)), result(send(plain, name))]
    CeleryInstrumentor().uninstrument()
    for name in WORKERS:
        found[name].append(result(send(plain, name)))
finally:
    for worker in workers.values():
        worker.send_signal(signal.SIGTERM)
    for worker in workers.values():
        assert worker.wait(60) == 0
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """Run a worker of each kind at once; return what their tasks have seen, and all spans."""
    directory = tmp_path_factory.mktemp("celery")
    for name in ("results", "messages"):
        (directory / name).mkdir()
    (directory / "tasks.py").write_text(TASKS, encoding="utf-8")
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("FOLDER", str(directory))
        # Nothing arrives but what is flushed.
        monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "600000")
        printed, spans = spans_of(PROGRAM.replace("WORKERS", str(WORKERS)), directory, monkeypatch)
    return json.loads(printed), spans


@pytest.mark.parametrize("worker", WORKERS)
def test_baggage_goes_with_a_task_and_with_what_it_hands_on(worker, found):
    """Each task's own to a pool and a queue, and nothing of it, or forgotten, to the next task."""
    seen = found[0][worker]
    for tenant, (_, *tenants) in (seen[0], seen[2]):
        assert tenants == [tenant, tenant]
    assert seen[1] == seen[3] == []


@pytest.mark.parametrize("worker", WORKERS[:3])
def test_a_task_is_one_trace_from_its_sender_to_what_it_hands_on(worker, found):
    """One span for each step, whose parent is the one before; what a worker records is exported."""
    seen, spans = found
    pid = str(seen[worker][0][1][0])
    of_worker = [span for span in spans if span[-1] == pid and span[0] != "starter"]
    names = {me: name for name, me, *_ in spans}
    steps = [(name, names.get(parent)) for name, _, parent, *_ in of_worker]
    handed_on = [(name, "run/tasks.work") for name in ("pool", "queue", "thread")]
    carried = [
        *((*handed_on, ("run/tasks.work", "apply_async/tasks.work")) * 2),
        *[("run/tasks.plain", "apply_async/tasks.plain")] * 2,
        ("run/tasks.plain", None),
    ]
    assert sorted(map(str, steps)) == sorted(map(str, carried))
    parents = {me: parent for _, me, parent, *_ in spans}
    origins = [parents[parents[me]] for name, me, *_ in of_worker if name == "run/tasks.work"]
    assert len(set(origins)) == 2
    assert {names[origin] for origin in origins} == {"origin"}
    roots = {parents[me] for name, me, *_ in spans if name in ("origin", "apply_async/tasks.plain")}
    assert roots == {"None"}


def test_a_forked_worker_is_not_in_the_context_that_it_was_forked_in(found):
    """A task that came without headers has nobody's; without adapters it has the starter's."""
    seen, _ = found
    assert seen["prefork"][-1] == []
    assert seen["prefork-off"][-1] != []


def test_left_out_what_a_forked_worker_has_recorded_is_lost(found):
    """It leaves without exit handlers."""
    seen, spans = found
    pid = str(seen["prefork-off"][0][1][0])
    assert [span for span in spans if span[-1] == pid] == []
