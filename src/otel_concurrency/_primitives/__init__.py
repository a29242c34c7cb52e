"""The hand-offs of the standard library, one file each.

To add one: write ``_<name>.py`` with a constant ``MODULES`` that maps each standard-library module
to a function ``(module, seam) -> list of patches``, add ``<name>`` to :data:`NAMES`, and give it
its constant in ``environment_variables.py``, its row in the README and its case in
``tests/conformance``; a test names what is missing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Final

from otel_concurrency._core.handoff import Seam
from otel_concurrency._core.patching import Patch

NAMES: Final = (
    "threading",
    "futures",
    "asyncio",
    "sched",
    "queue",
    "multiprocessing",
    "subprocess",
)

Advice = Callable[[ModuleType, Seam], "list[Patch]"]


def modules_of(name: str) -> Mapping[str, Advice]:
    """Return the standard-library modules that the primitive ``name`` patches, and how."""
    from importlib import import_module

    modules: Mapping[str, Advice] = import_module(f"{__name__}._{name}").MODULES
    return modules
