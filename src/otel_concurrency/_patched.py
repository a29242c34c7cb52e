"""What is switched on: the patches of one primitive, or of one library, by module."""

from __future__ import annotations

import functools
import logging
import os
import threading
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

from opentelemetry.context import Context

from otel_concurrency import _adapters, _official_threading, _primitives
from otel_concurrency._core import faults, handoff, imports, patching, signatures

_logger = logging.getLogger(__name__)


_locks: dict[Primitive, Any] = {}
"""A forked child has others: a thread that is not there may have held one, in an import."""

_kept: list[object] = []
"""The parents' locks. What is freed in a child is written to, and so some 90 pages would be copied.
"""


def _begin() -> None:
    global _locks  # noqa: PLW0603
    if _locks:
        _kept.append(_locks)
        _locks = {}


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin)


class Primitive:
    """A primitive that was switched on at least once: its seam, and its layers by module."""

    def __init__(
        self,
        name: str,
        modules: Mapping[str, _primitives.Advice],
        seam: handoff.Seam | None = None,
    ) -> None:
        self.name = name
        self.modules = modules
        self.seam = seam or handoff.Seam(name)
        self.layers: dict[str, list[patching.Patch]] = {}
        """By module: the layers of its patches."""
        self.failures: dict[str, str] = {}
        """By module: the reason why it could not be patched."""

    def __repr__(self) -> str:
        return self.name

    @property
    def _lock(self) -> Any:
        """What is held while something is patched or undone."""
        return _locks.setdefault(self, threading.RLock())

    def switch_on(
        self,
        capture: handoff.Capture,
        change: Callable[[Context], Context] | None = None,
        starts_clean: Callable[[object], bool] | None = None,
        measure: Callable[[handoff.Seam], None] | None = None,
    ) -> None:
        """Patch the imported modules now, and each other module when it is imported.

        ``measure`` makes a seam measure its hand-offs.

        No lock is held while import hooks are registered, since hooks call this class while they
        hold locks of the import system.
        """
        with self._lock:
            self.failures.clear()
            self.seam.left_alone.clear()
            self.seam.change, self.seam.starts_clean = change, starts_clean
            self.seam.capture = capture
            if measure is not None:
                measure(self.seam)
        self._patch_when_imported()

    def _patch_when_imported(self) -> None:
        for module_name, advice in self.modules.items():
            patch = functools.partial(self._patch, module_name, advice)
            imports.when_imported(module_name, patch, owner=self.name)

    def switch_off(self) -> None:
        """Undo every patch; a patch with another patch on top stays, and becomes a pass-through."""
        with self._lock:
            self.seam.switch_off()
            for layers in self.layers.values():
                patching.undo_all(layers)

    def _patch(self, name: str, advice: _primitives.Advice, module: ModuleType) -> None:
        with self._lock:
            if not self._is_on():  # imported after uninstrument(): nothing to do
                return
            try:
                if name not in self.layers:
                    self.layers[name] = advice(module, self.seam)
                patching.apply_all(self.layers[name])
            except Exception as error:
                self.failures[name] = f"{type(error).__name__}: {error}"
                self._leave_alone(name)
                self._report(name, error)

    def _leave_alone(self, name: str) -> None:
        """Go on without a module. Since not all of it can be patched, none of it is."""
        self.seam.left_alone.add(name)
        _official_threading.give_back(name)

    def _is_on(self) -> bool:
        return self.seam.active

    def _report(self, module_name: str, error: Exception) -> None:
        is_changed = isinstance(error, AttributeError | signatures.UnknownSignatureError)
        report = faults.in_one_line if is_changed else faults.once
        report(
            _logger,
            (self.name, module_name),
            "OpenTelemetry context will not be propagated through %s: %s cannot be patched (%s)",
            self.name,
            module_name,
            self.failures[module_name],
        )


class Adapter(Primitive):
    """The modules of a library that follow the setting of one primitive, and share its seam."""

    def __init__(self, library: str, primitive: Primitive) -> None:
        modules = {
            module: functools.partial(_advise, library, primitive.name, module)
            for module in _adapters.ADAPTERS[library][primitive.name]
        }
        super().__init__(f"{library} ({primitive.name})", modules, primitive.seam)
        self.library = library
        self._on = False

    def follow(self) -> None:
        """Patch the imported modules now, and the others when they are imported.

        The seam is not switched on here: the primitive does that.
        """
        with self._lock:
            self.failures.clear()
            self._on = True
        self._patch_when_imported()

    def switch_off(self) -> None:
        """Undo every patch of the library. The primitive stays on, since it works without it."""
        with self._lock:
            self._on = False
            for layers in self.layers.values():
                patching.undo_all(layers)

    def _is_on(self) -> bool:
        return self._on and self.seam.active

    def _leave_alone(self, name: str) -> None:
        """Go on without the whole library: its code is not that of a version that is known."""
        self.switch_off()

    def _report(self, module_name: str, error: Exception) -> None:
        first, last = _adapters.tested(self.library)
        faults.in_one_line(
            _logger,
            (self.library, module_name, self.failures[module_name]),
            "%s %s is left alone: %s cannot be patched (%s). The versions that have been tested "
            "are %s to %s.",
            self.library,
            _adapters.version(self.library) or "of an unknown version",
            module_name,
            self.failures[module_name],
            first,
            last,
        )


def _advise(
    library: str, primitive: str, module_name: str, module: ModuleType, seam: handoff.Seam
) -> list[patching.Patch]:
    return _adapters.advice(library, primitive, module_name)(module, seam)
