"""The hand-offs of the standard library: one file for each module, grouped by setting.

To add one: write ``_<module>.py`` with a constant ``MODULES`` that maps each standard-library
module to a function ``(module, seam) -> list of patches``, and name it in :data:`FILES` under its
setting, with those modules.
A new setting needs its constant in ``environment_variables.py``, its row in docs/carried.md and its
case in ``tests/conformance``; a test names what is missing.
"""

from __future__ import annotations

import sys
from _thread import get_ident as _native
from collections.abc import Callable, Mapping
from functools import partial
from types import ModuleType
from typing import Final

from otel_concurrency._core.handoff import Seam
from otel_concurrency._core.patching import Patch

_SINCE_3_14: Final = (
    ("concurrent.interpreters", "concurrent.interpreters._queues")
    if sys.version_info >= (3, 14)
    else ()
)

FILES: Final[Mapping[str, Mapping[str, tuple[str, ...]]]] = {
    "threading": {
        "_threading": ("threading", "_thread"),
        "_signal": ("signal",),
        "_weakref": ("weakref",),
        "_gc": ("weakref",),
    },
    "futures": {
        "_futures": ("concurrent.futures._base", "concurrent.futures.thread"),
        "_futures_map": ("concurrent.futures._base",),
    },
    "asyncio": {
        "_asyncio": ("asyncio.base_events", "asyncio.queues"),
        "_asyncio_callbacks": (
            "asyncio.base_events",
            "asyncio.runners",
            "asyncio.selector_events",
            "asyncio.unix_events",
        ),
        "_asyncio_transports": (
            "asyncio.selector_events",
            "asyncio.sslproto",
            "asyncio.transports",
            "asyncio.unix_events",
        ),
        "_asyncio_waits": ("asyncio",),
    },
    "sched": {"_sched": ("sched",), "_tkinter": ("tkinter",)},
    "queue": {"_queue": ("queue", "multiprocessing.managers"), "_logging": ("logging.handlers",)},
    "multiprocessing": {
        "_multiprocessing._process": ("multiprocessing.process",),
        "_multiprocessing._executors": ("concurrent.futures.process",),
        "_multiprocessing._pools": ("multiprocessing.pool",),
        "_multiprocessing._queues": ("multiprocessing.queues",),
        "_multiprocessing._managers": ("multiprocessing.managers",),
        "_multiprocessing._interpreters": ("concurrent.futures.interpreter",),
        "_multiprocessing._interpreter_calls": _SINCE_3_14,
    },
    "subprocess": {"_subprocess": ("subprocess",)},
    "generators": {"_generators": ("opentelemetry.context.contextvars_context",)},
}
"""For each setting, the files of this package that it switches on, and what they patch.

They share the setting's seam. A file is imported when the program imports a module that it patches.
"""

NAMES: Final = tuple(FILES)

Advice = Callable[[ModuleType, Seam], "list[Patch]"]


def modules_of(name: str) -> Mapping[str, Advice]:
    """Return the standard-library modules that the primitive ``name`` patches, and how."""
    files: dict[str, list[str]] = {}
    for file, modules in FILES[name].items():
        for module in modules:
            files.setdefault(module, []).append(file)
    return {module: partial(_advise, module, several) for module, several in files.items()}


def _advise(name: str, files: list[str], module: ModuleType, seam: Seam) -> list[Patch]:
    from importlib import import_module

    advices: list[Advice] = [import_module(f"{__name__}.{file}").MODULES[name] for file in files]
    return [patch for advice in advices for patch in advice(module, seam)]


_LATE: Final = ("_linking.posted", "_linking.root_places", "_metrics", "_orphans")


def modules_that_ask_for_the_thread() -> list[ModuleType]:
    """Return the library's modules that ask the interpreter which thread they are in.

    An adapter of green threads has them ask for the green thread. All that may be needed are
    imported first, since one that is imported later would ask for the native thread.
    """
    from importlib import import_module

    package = __name__.rpartition(".")[0]
    for name in _LATE:
        import_module(f"{package}.{name}")
    for file in (file for files in FILES.values() for file in files):
        import_module(f"{__name__}.{file}")
    return [
        module
        for name, module in list(sys.modules.items())
        if name.startswith(f"{package}.") and vars(module).get("get_ident") is _native
    ]
