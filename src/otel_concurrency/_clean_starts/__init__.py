"""Which threads, tasks and callables start with an empty context.

What patches the functions of the table is imported when the program imports a module that defines
one: most programs use few such libraries, or none.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Final

from otel_concurrency._clean_starts.functions import FLOWS, IMPORTED_BY, ROUNDS, SOURCES
from otel_concurrency._clean_starts.tasks import TASKS
from otel_concurrency._core.handoff import Seam
from otel_concurrency._core.patching import Patch


def _layers(module: ModuleType, seam: Seam) -> list[Patch]:
    from otel_concurrency._clean_starts import patches

    return patches.layers(module, seam)


_DEFINING = (*SOURCES, *FLOWS, *TASKS, *ROUNDS)

MODULES: Final[Mapping[str, Callable[[ModuleType, Seam], list[Patch]]]] = dict.fromkeys(
    (*_DEFINING, *IMPORTED_BY), _layers
)
"""By module: its advice. Modules that define a function come before modules that import it."""
