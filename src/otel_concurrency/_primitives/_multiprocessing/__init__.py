"""Process boundaries: ``multiprocessing``, ``ProcessPoolExecutor``, ``InterpreterPoolExecutor``.

A context crosses as headers (see ``otel_concurrency._crossing.carrier``). There is one file for
each way across: ``_process`` (every process that is started), ``_executors``, ``_pools`` and
``_queues`` (these two append headers to what they send, see ``_crossing.trailers``), and
``_interpreters``.
"""

from __future__ import annotations

from types import ModuleType

from otel_concurrency._core.handoff import Seam
from otel_concurrency._core.patching import Patch
from otel_concurrency._primitives._multiprocessing import (
    _executors,
    _interpreter_calls,
    _interpreters,
    _managers,
    _pools,
    _process,
    _queues,
)

_PARTS = (_process, _executors, _pools, _queues, _managers, _interpreters, _interpreter_calls)


def _of_all(module_name: str) -> object:
    advices = [part.MODULES[module_name] for part in _PARTS if module_name in part.MODULES]

    def layers(module: ModuleType, seam: Seam) -> list[Patch]:
        return [patch for advice in advices for patch in advice(module, seam)]

    return layers


MODULES = {name: _of_all(name) for part in _PARTS for name in part.MODULES}
