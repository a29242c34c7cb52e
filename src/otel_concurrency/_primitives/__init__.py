"""The hand-offs of the standard library: one file for each module, grouped by setting.

To add one: write ``_<module>.py`` with a constant ``MODULES`` that maps each standard-library
module to a function ``(module, seam) -> list of patches``, and name it in :data:`FILES` under its
setting.
A new setting needs its constant in ``environment_variables.py``, its row in docs/carried.md and its
case in ``tests/conformance``; a test names what is missing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from types import ModuleType
from typing import Final

from otel_concurrency._core.handoff import Seam
from otel_concurrency._core.patching import Patch

FILES: Final[Mapping[str, tuple[str, ...]]] = {
    "threading": ("_threading", "_signal", "_weakref"),
    "futures": ("_futures", "_futures_map"),
    "asyncio": ("_asyncio", "_asyncio_callbacks", "_asyncio_transports", "_asyncio_waits"),
    "sched": ("_sched", "_tkinter"),
    "queue": ("_queue", "_logging"),
    "multiprocessing": ("_multiprocessing",),
    "subprocess": ("_subprocess",),
    "generators": ("_generators",),
}
"""For each setting, the files of this package that it switches on; they share its seam."""

NAMES: Final = tuple(FILES)

Advice = Callable[[ModuleType, Seam], "list[Patch]"]


def modules_of(name: str) -> Mapping[str, Advice]:
    """Return the standard-library modules that the primitive ``name`` patches, and how."""
    from importlib import import_module

    advices: dict[str, list[Advice]] = {}
    for file in FILES[name]:
        for module, advice in import_module(f"{__name__}.{file}").MODULES.items():
            advices.setdefault(module, []).append(advice)
    return {module: partial(_all, several) for module, several in advices.items()}


def _all(advices: list[Advice], module: ModuleType, seam: Seam) -> list[Patch]:
    return [patch for advice in advices for patch in advice(module, seam)]
