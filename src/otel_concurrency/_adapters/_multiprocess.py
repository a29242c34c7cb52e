"""multiprocess: a copy of ``multiprocessing`` that pickles with dill; pathos is built on it.

The setting MULTIPROCESSING covers it, with the advice for ``multiprocessing``.
"""

from __future__ import annotations

from types import ModuleType

from otel_concurrency._core.handoff import Seam
from otel_concurrency._core.patching import Layer, Patch
from otel_concurrency._items import adoption
from otel_concurrency._primitives._multiprocessing import _pools, _process, _queues

TESTED = ("0.70.16", "0.70.19")


def _manager_layers(managers: ModuleType, seam: Seam) -> list[Patch]:
    # It gets and puts on behalf of other processes, so it must adopt nothing.
    return [Layer(vars(managers)["Server"], "serve_client", adoption.abstaining)]


MODULES = {
    "multiprocessing": {
        f"multiprocess.{name}": part.MODULES[f"multiprocessing.{name}"]
        for name, part in (("process", _process), ("pool", _pools), ("queues", _queues))
    },
    "queue": {"multiprocess.managers": _manager_layers},
}
