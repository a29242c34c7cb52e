"""``gc``: what the collector ends runs in an empty context, in the middle of whatever other work.

The collector ends objects with ``__del__``, those that a weak reference's callback waits for, and
suspended generators and coroutines. A generator that holds a context has it back for its cleanup,
unless the interpreter sends no event there (``_generators``). An object that dies because its last
reference is dropped is not the collector's: it dies in the context of the code that drops it.

Only with the compiled part, and from CPython 3.12 on. A signal that arrives during a collection
would be handled in a Python function that is called at its end, and what its handler raises would
be lost there. And before 3.12 the collector may run inside ``ContextVar.set()``, where no variable
must be set.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import ModuleType

from otel_concurrency._core import compiled
from otel_concurrency._core.compiled import Functions
from otel_concurrency._core.handoff import Seam
from otel_concurrency._core.patching import Patch

_LETS_SET = sys.version_info >= (3, 12)


def _patches(_weakref: ModuleType, _seam: Seam) -> list[Patch]:
    import gc

    if compiled.functions is None or not _LETS_SET:
        return []
    return [Collections(gc.callbacks, compiled.functions)]


MODULES = {"weakref": _patches}
"""Every program has imported ``weakref``; the collector runs in one that never imports ``gc``."""


class Collections:
    """Hears of the begin and the end of each collection; applied and undone as a layer is.

    What others have in the list sees the context of the work: these are the last to hear of the
    begin, and the first to hear of the end. One collection runs at a time, in one thread.
    """

    layers = ()  # as in `QueueHooks`: it replaces no attributes

    def __init__(self, callbacks: list[Callable[..., object]], functions: Functions) -> None:
        self._callbacks = callbacks
        self._functions = functions

    def apply(self) -> None:
        """Have both called."""
        self._remove(self._functions.begin_collection)
        self._remove(self._functions.end_collection)
        self._callbacks.append(self._functions.begin_collection)
        self._callbacks.insert(0, self._functions.end_collection)

    def undo(self) -> None:
        """Have neither called, but for the end of a collection that is running."""
        self._remove(self._functions.begin_collection)
        if not self._functions.is_collecting():
            self._remove(self._functions.end_collection)

    def _remove(self, callback: Callable[..., object]) -> None:
        if callback in self._callbacks:
            self._callbacks.remove(callback)
