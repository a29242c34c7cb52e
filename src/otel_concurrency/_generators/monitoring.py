"""Hears of generators being suspended and resumed: ``sys.monitoring`` (PEP 669, CPython 3.12).

Events are local to the code objects of generators that were found to hold a context. Before 3.15
two of them exist for all code or for none: PY_THROW, on from the first such generator on, and
PY_UNWIND, on from the first one on that might leave by an exception what it has attached by hand.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Callable, Mapping
from types import CodeType
from typing import Any, Final
from weakref import ref

from otel_concurrency._core import faults

_logger = logging.getLogger(__name__)

_monitoring: Any = getattr(sys, "monitoring", None)

IS_THERE: Final = _monitoring is not None

_NAME: Final = "otel-concurrency"

_IDS: Final = (4, 3, 5, 2, 1, 0)
"""The tool ids, beginning with those that CPython's documentation reserves for no kind of tool."""

_BY_CODE: Final = ("PY_YIELD", "PY_RESUME", "PY_RETURN")
_EXCEPTIONAL: Final = ("PY_THROW", "PY_UNWIND")
_ALL_BY_CODE: Final = sys.version_info >= (3, 15)


class Tool:
    """A tool of ``sys.monitoring``, which takes an id when it is first needed."""

    def __init__(self, callbacks: Mapping[str, Callable[..., object]]) -> None:
        """Have each of ``callbacks`` called for the event of its name."""
        self._callbacks = callbacks
        self._codes: dict[int, ref[CodeType]] = {}
        self._renew_lock()
        if hasattr(os, "register_at_fork"):  # another thread of the parent may hold it then
            os.register_at_fork(after_in_child=self._renew_lock)
        self.id: int | None = None
        self.refused = False
        """Whether all ids were taken by others when one was needed."""
        self._unwinds = False

    def _renew_lock(self) -> None:
        self._lock = threading.RLock()  # a finalizer may attach while the lock is held

    def watch(self, code: CodeType) -> bool:
        """Have the callbacks called for generators of ``code``; return whether they will be."""
        key = id(code)
        if key in self._codes:
            return True
        with self._lock:
            if self.id is None and not self._start():
                return False
            names = (*_BY_CODE, *_EXCEPTIONAL) if _ALL_BY_CODE else _BY_CODE
            _monitoring.set_local_events(self.id, code, _set_of(names))
            self._codes[key] = ref(code, lambda _: self._codes.pop(key, None))
        return True

    def watch_unwinding(self) -> None:
        """Have the callback for PY_UNWIND called, too, from now on."""
        if self._unwinds or _ALL_BY_CODE:
            return
        with self._lock:
            if self.id is not None:
                self._unwinds = True
                _monitoring.set_events(self.id, _set_of(_EXCEPTIONAL))

    def _start(self) -> bool:
        if self.refused:
            return False
        taken = self.id = next(filter(_is_taken_now, _IDS), None)
        if taken is None:
            self.refused = True
            faults.in_one_line(
                _logger,
                "no tool id",
                "Generators do not keep a context of their own: all tool ids of sys.monitoring are "
                "in use, by %s. Free one, or set OTEL_PYTHON_CONCURRENCY_GENERATORS to off.",
                ", ".join(repr(_monitoring.get_tool(one)) for one in sorted(_IDS)),
            )
            return False
        for name, callback in self._callbacks.items():
            _monitoring.register_callback(taken, _set_of((name,)), callback)
        if not _ALL_BY_CODE:
            _monitoring.set_events(taken, _set_of(("PY_THROW",)))
        return True

    def stop(self) -> None:
        """Give the id back, and leave no event on."""
        with self._lock:
            taken, self.id = self.id, None
            self.refused = self._unwinds = False
            if taken is None:
                return
            _monitoring.set_events(taken, 0)
            for known in list(self._codes.values()):
                code = known()
                if code is not None:
                    _monitoring.set_local_events(taken, code, 0)
            self._codes.clear()
            for name in self._callbacks:
                _monitoring.register_callback(taken, _set_of((name,)), None)
            _monitoring.free_tool_id(taken)


def _set_of(names: tuple[str, ...]) -> int:
    events = 0
    for name in names:
        events |= getattr(_monitoring.events, name)
    return events


def _is_taken_now(tool_id: int) -> bool:
    try:
        _monitoring.use_tool_id(tool_id, _NAME)
    except ValueError:  # it is somebody else's
        return False
    return True


DISABLE: Any = getattr(_monitoring, "DISABLE", None)
"""What a callback returns to be called no more for its place in its code."""
