"""Which libraries are there to be tested, and what their tests share."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from servers import RABBITMQ, SERVERS, found

from otel_concurrency import ConcurrencyInstrumentor, _adapters

NEEDED = {
    "test_agents.py": "agents fastmcp langgraph pydantic_ai",
    "test_aiokafka.py": "aiokafka confluent_kafka",
    "test_aiosqlite.py": "aiosqlite",
    "test_ansible.py": "ansible",
    "test_anyio.py": "anyio trio",
    "test_anyio_pytest.py": "anyio trio",
    "test_apscheduler.py": "apscheduler",
    "test_arq.py": "arq fakeredis",
    "test_autogen.py": "autogen_core",
    "test_billiard.py": "billiard",
    "test_boto3_sqs.py": "boto3 flask moto opentelemetry.instrumentation.boto3sqs",
    "test_broker_readers.py": "aio_pika nats opentelemetry.instrumentation.pika",
    "test_cassandra_driver.py": "cassandra",
    "test_celery.py": "celery opentelemetry.instrumentation.celery",
    "test_channels.py": "channels django_q",
    "test_channels_model.py": "anyio hypothesis",
    "test_cloudpickle.py": "cloudpickle",
    "test_confluent_kafka.py": "confluent_kafka",
    "test_culsans.py": "culsans",
    "test_distributed.py": "distributed",
    "test_distributed_hosts.py": "distributed",
    "test_django_q2.py": "django_q",
    "test_django_tasks_db.py": "django_q django_tasks_db",
    "test_dramatiq.py": "dramatiq",
    "test_eventlet.py": "eventlet",
    "test_events.py": "django_q litestar sanic",
    "test_executorlib.py": "executorlib h5py mpi4py",
    "test_futurist.py": "futurist",
    "test_generators.py": "anyio fastapi pytest_asyncio tornado trio twisted uvicorn",
    "test_gevent.py": "gevent",
    "test_gradio.py": "gradio",
    "test_google_adk.py": "google.adk",
    "test_grpcio.py": "grpc",
    "test_huey.py": "huey",
    "test_ipyparallel.py": "ipyparallel",
    "test_janus.py": "janus",
    "test_kafka_python.py": "kafka opentelemetry.instrumentation.kafka",
    "test_kivy.py": "kivy",
    "test_library_threads.py": "kubernetes prompt_toolkit py4j redis rich websocket websockets",
    "test_llama_index_workflows.py": "workflows",
    "test_logging.py": "opentelemetry.instrumentation.logging",
    "test_loguru.py": "loguru",
    "test_loky.py": "joblib loky",
    "test_mcp.py": "mcp opentelemetry.instrumentation.asgi uvicorn",
    "test_model_streams.py": "openai opentelemetry.instrumentation.genai pydantic_ai uvicorn",
    "test_more_executors.py": "more_executors",
    "test_mpi4py.py": "mpi4py",
    "test_multiprocess.py": "multiprocess pathos",
    "test_nothing_needed.py": "aiomultiprocess dask mpire",
    "test_parsl.py": "parsl",
    "test_pebble.py": "pebble",
    "test_pgqueuer.py": "pgqueuer",
    "test_pika.py": "pika opentelemetry.instrumentation.pika",
    "test_pools.py": "aio_pika aiosqlite fakeredis sqlalchemy",
    "test_pygobject.py": "gi",
    "test_pyspark.py": "pandas pyarrow pyspark",
    "test_qt.py": "PyQt5 PyQt6 PySide6 qasync",
    "test_ray.py": "ray",
    "test_ray_cluster.py": "ray",
    "test_ray_hosts.py": "ray pyarrow",
    "test_reactivex.py": "reactivex",
    "test_rq.py": "rq fakeredis",
    "test_saq.py": "saq",
    "test_schedule.py": "schedule",
    "test_streams.py": "fastapi opentelemetry.instrumentation.asgi uvicorn",
    "test_streaq.py": "streaq",
    "test_task_queues.py": "procrastinate taskiq",
    "test_taskiq.py": "taskiq",
    "test_textual.py": "textual",
    "test_tornado.py": "tornado",
    "test_trio.py": "trio",
    "test_trio_parallel.py": "trio_parallel",
    "test_twisted.py": "twisted",
    "test_twisted_reactors.py": "twisted",
    "test_uvloop.py": "uvloop",
    "test_watchdog.py": "watchdog",
}
"""By file: the libraries that it is about."""

MPI = os.path.join(os.path.dirname(sys.executable), "mpiexec")

PROGRAMS = {
    "test_executorlib.py": MPI,
    "test_mpi4py.py": MPI,
    "test_pika.py": RABBITMQ,
    "test_pyspark.py": shutil.which("java") or "no such file",
    "test_saq.py": found("redis-server") or "no such file",
}
"""By file: what has to be installed beside them."""

APART = {"test_autogen.py", "test_google_adk.py", "test_pygobject.py", "test_pyspark.py"}
"""Files whose libraries cannot be installed beside the others, or have to be compiled against what
is not there, or need Java: the gate does not run them."""


def is_there(library):
    """Whether a library is installed."""
    try:
        return importlib.util.find_spec(library) is not None
    except ModuleNotFoundError:  # nor is the package that it is in
        return False


def not_for_this_python():
    """Return the packages that ``dev-adapters`` asks for on other versions of Python alone."""
    wanted = map(Requirement, metadata.requires("otel-concurrency") or ())
    return {
        canonicalize_name(one.name)
        for one in wanted
        if one.marker is not None
        and "dev-adapters" in str(one.marker)
        and not one.marker.evaluate({"extra": "dev-adapters"})
    }


LEFT_OUT = not_for_this_python()


def is_left_out(library):
    """Whether a library that is imported by this name is of a package that is left out."""
    name = canonicalize_name(library)
    return any(one == name or one.startswith(f"{name}-") for one in LEFT_OUT)


def is_ignored(file, libraries):
    """Whether a file is not collected. The gate says that all libraries are there."""
    if "ALL_ADAPTERS" in os.environ and file not in APART:
        return any(map(is_left_out, libraries))
    return not all(map(is_there, libraries)) or not os.path.exists(PROGRAMS.get(file, "/"))


collect_ignore = [file for file, needed in NEEDED.items() if is_ignored(file, needed.split())]
"""Where a library is not installed there is nothing to test."""


# eventlet imports dnspython if that is there, which imports httpx2 and trio if they are: then it
# cannot be imported (findings/eventlet_beside_trio.sh).
os.environ.setdefault("EVENTLET_NO_GREENDNS", "yes")

# kivy would take the arguments of the program, its log and its stderr, and make files for its user.
for name in ("KIVY_NO_ARGS", "KIVY_NO_CONFIG", "KIVY_NO_FILELOG", "KIVY_NO_CONSOLELOG"):
    os.environ.setdefault(name, "1")
os.environ.setdefault("KIVY_LOG_MODE", "PYTHON")


def namespaces_can_be_made():
    """Whether this user may make networks of his own, and has the commands for it."""
    if any(shutil.which(command) is None for command in ("unshare", "nsenter", "ip", "hostname")):
        return False
    script = "ip link add here type veth peer name there && ip address add 10.83.7.1/24 dev here"
    made = subprocess.run(
        ["unshare", "--net", "--uts", "sh", "-c", f"{script} && hostname tests"],
        capture_output=True,
        check=False,
        timeout=30,
    )
    return made.returncode == 0


if not namespaces_can_be_made():
    collect_ignore += ["test_distributed_hosts.py", "test_ray_hosts.py"]


OF_EVERY_ADAPTER = "test_every_adapter.py"


def pytest_addoption(parser):
    """Have but a sample of the adapters' tests run."""
    parser.addoption(
        "--sample", action="store_true", help="run one decisive test of each kind for each adapter"
    )


def pytest_ignore_collect(collection_path, config):
    """Collect the tests of adapters alone, where a sample is wanted."""
    if config.getoption("--sample") and collection_path.parent == Path(__file__).parent:
        files = {OF_EVERY_ADAPTER, *(f"test_{library}.py" for library in _adapters.ADAPTERS)}
        return True if collection_path.name not in files else None
    return None


def pytest_collection_modifyitems(config, items):
    """Keep the first of each decisive test in a file, where a sample is wanted."""
    if not config.getoption("--sample"):
        return
    kept, seen = [], set()
    for item in items:
        test = item.path, item.originalname
        if item.path.name == OF_EVERY_ADAPTER or (is_decisive(item) and test not in seen):
            kept.append(item)
            seen.add(test)
    without = {item.path.name for item in items} - {item.path.name for item in kept}
    if without:
        raise pytest.UsageError(f"No test is marked as decisive in: {', '.join(sorted(without))}")
    config.hook.pytest_deselected(items=[item for item in items if item not in kept])
    items[:] = kept


def is_decisive(item):
    """Whether a test shows what an adapter does: others show that none is needed."""
    return item.get_closest_marker("decisive") and getattr(item.cls, "needs_adapter", True)


@pytest.fixture
def instrument():
    """Return what switches the library on, for the length of the test."""
    yield ConcurrencyInstrumentor().instrument
    if ConcurrencyInstrumentor().is_instrumented_by_opentelemetry:
        ConcurrencyInstrumentor().uninstrument()


@pytest.fixture(scope="session")
def ports(tmp_path_factory):
    """Return what runs a server, once, and gives its port."""
    running = {}
    with contextlib.ExitStack() as until_done:

        def port(server):
            if server not in running:
                directory = tmp_path_factory.mktemp(server)
                running[server] = until_done.enter_context(SERVERS[server](directory))
            return running[server]

        yield port
