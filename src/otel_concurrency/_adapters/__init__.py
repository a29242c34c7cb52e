"""Third-party libraries that have their own workers or queues, one file each.

To add one: name it in :data:`ADAPTERS`, with the primitives whose settings switch it on and whose
seams its advice gets, and the modules that are patched. Write ``_<name>.py`` with a constant
``MODULES`` that maps each of these to a function ``(module, seam) -> list of patches``, and
``TESTED``, the first and the last version that it was tested with. Add a row to
docs/libraries.md and a file ``tests/adapters/test_<name>.py``; a test names what is missing.

A file is imported when the program imports a module that it patches. So a library that is not
installed costs only the registration of its name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any, Final

from otel_concurrency._core.handoff import Seam
from otel_concurrency._core.patching import Patch

ADAPTERS: Final[Mapping[str, Mapping[str, tuple[str, ...]]]] = {
    "aiokafka": {"queue": ("aiokafka.consumer.consumer",)},
    "aiosqlite": {"queue": ("aiosqlite.core",)},
    "anyio": {
        "asyncio": ("anyio.streams.memory",),
        "multiprocessing": ("anyio.to_process",),
    },
    "apscheduler": {
        "sched": ("apscheduler.job", "apscheduler.executors.base", "apscheduler.schedulers.base"),
    },
    "arq": {"multiprocessing": ("arq.connections", "arq.worker")},
    "billiard": {"multiprocessing": ("billiard.process", "billiard.pool")},
    "cassandra_driver": {"futures": ("cassandra.cluster",)},
    "confluent_kafka": {
        "queue": ("confluent_kafka", "confluent_kafka.aio._AIOConsumer"),
        "futures": ("confluent_kafka",),
    },
    "channels": {"asyncio": ("channels.utils", "channels.consumer", "channels.layers")},
    "culsans": {"queue": ("culsans",)},
    "distributed": {"multiprocessing": ("distributed.client", "distributed.worker")},
    "django_q2": {
        "multiprocessing": ("django_q.signing", "django_q.worker", "django_q.cluster"),
    },
    "django_tasks_db": {
        "multiprocessing": (
            "django_tasks_db.backend",
            "django_tasks_db.management.commands.db_worker",
        ),
    },
    "dramatiq": {"multiprocessing": ("dramatiq.broker", "dramatiq.worker")},
    "eventlet": {
        "threading": ("eventlet.greenthread",),
        "futures": ("eventlet.tpool",),
        "queue": ("eventlet.queue",),
    },
    "executorlib": {
        "multiprocessing": (
            "executorlib.task_scheduler.base",
            "executorlib.task_scheduler.interactive.blockallocation",
            "executorlib.task_scheduler.interactive.onetoone",
            "executorlib.standalone.interactive.communication",
        ),
    },
    "futurist": {"sched": ("futurist._futures",)},
    "gevent": {
        "threading": ("gevent", "gevent.thread"),
        "futures": ("gevent.threadpool",),
        "queue": ("gevent",),
    },
    "gradio": {"asyncio": ("gradio.queueing",)},
    "grpcio": {"futures": ("grpc._channel", "grpc._server", "grpc._utilities")},
    "huey": {"multiprocessing": ("huey.registry", "huey.serializer", "huey.api")},
    "ipyparallel": {
        "multiprocessing": ("ipyparallel.client.client", "ipyparallel.engine.kernel"),
    },
    "janus": {"queue": ("janus",)},
    "kafka_python": {"queue": ("kafka.consumer.group",)},
    "kivy": {"sched": ("kivy._clock", "kivy.clock", "kivy.base")},
    "llama_index_workflows": {
        "asyncio": ("workflows.context.context", "workflows.runtime.types.step_function"),
    },
    "loky": {
        "multiprocessing": (
            "joblib._utils",
            "joblib.externals.loky.process_executor",
            "loky.process_executor",
        ),
    },
    "more_executors": {
        "futures": (
            "more_executors._impl.common",
            "more_executors._impl.retry",
            "more_executors._impl.throttle",
        ),
    },
    "mpi4py": {"multiprocessing": ("mpi4py.futures.pool",)},
    "multiprocess": {
        "multiprocessing": ("multiprocess.process", "multiprocess.pool", "multiprocess.queues"),
        "queue": ("multiprocess.managers",),
    },
    "parsl": {"multiprocessing": ("parsl.executors.high_throughput.executor",)},
    "pebble": {"multiprocessing": ("pebble.pool.process",)},
    "pgqueuer": {
        "multiprocessing": ("pgqueuer.adapters.persistence.query_helpers", "pgqueuer.core.qm"),
    },
    "pika": {
        "threading": ("pika.adapters.blocking_connection", "pika.adapters.select_connection"),
    },
    "pygobject": {"sched": ("gi.repository.GLib", "gi.repository.Gio")},
    "pyspark": {"sched": ("pyspark.sql.utils",)},
    "qt": {
        "threading": ("PySide6.QtCore", "PyQt6.QtCore", "PyQt5.QtCore"),
        "futures": ("PySide6.QtCore", "PyQt6.QtCore", "PyQt5.QtCore"),
        "sched": (
            *("PySide6.QtCore", "PySide6.QtGui", "PySide6.QtWidgets"),
            *("PyQt6.QtCore", "PyQt6.QtGui", "PyQt6.QtWidgets"),
            *("PyQt5.QtCore", "PyQt5.QtGui", "PyQt5.QtWidgets"),
        ),
    },
    "ray": {
        "multiprocessing": (
            "ray._common.signature",
            "ray._private.worker",
            "ray.actor",
            "ray.remote_function",
        ),
    },
    "reactivex": {
        "sched": ("reactivex.observer.scheduledobserver", "reactivex.scheduler.scheduleditem")
    },
    "rq": {"multiprocessing": ("rq.job", "rq.worker")},
    "saq": {"multiprocessing": ("saq.queue.base", "saq.worker")},
    "schedule": {"sched": ("schedule",)},
    "streaq": {"multiprocessing": ("streaq.task", "streaq.worker")},
    "taskiq": {"multiprocessing": ("taskiq.kicker", "taskiq.message", "taskiq.receiver.receiver")},
    "textual": {"asyncio": ("textual.message_pump", "textual.timer")},
    "tornado": {"asyncio": ("tornado.queues",)},
    "trio": {"asyncio": ("trio._channel", "trio._core._entry_queue")},
    "trio_parallel": {"multiprocessing": ("trio_parallel._proc",)},
    "twisted": {
        "threading": (
            "twisted.internet.base",
            "twisted.internet.kqreactor",
            "twisted.internet.posixbase",
            "twisted.internet.selectreactor",
            "twisted.internet.asyncioreactor",
            "twisted.internet.task",
        ),
        "futures": ("twisted.internet.defer",),
    },
    "uvloop": {"asyncio": ("uvloop",)},
}
"""For each library and each primitive whose setting covers it: the modules that are patched."""

Advice = Callable[[ModuleType, Seam], "list[Patch]"]


def advice(library: str, primitive: str, module_name: str) -> Advice:
    """Return the function that patches a module of ``library`` for the setting ``primitive``."""
    found: Advice = _file(library).MODULES[primitive][module_name]
    return found


def tested(library: str) -> tuple[str, str]:
    """Return the first and the last version of ``library`` that its adapter was tested with."""
    versions: tuple[str, str] = _file(library).TESTED
    return versions


def version(library: str) -> str | None:
    """Return the installed version of ``library``, or None if it is unknown."""
    from importlib import metadata

    try:
        return metadata.version(library)
    except metadata.PackageNotFoundError:
        return None


def _file(library: str) -> Any:
    from importlib import import_module

    return import_module(f"{__name__}._{library}")
