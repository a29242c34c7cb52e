"""Calls functions back when the program imports modules, even if an import bypasses the hooks.

The library never imports a module that the program does not use. The import hooks are wrapt's.
"""

from __future__ import annotations

import importlib.util
import logging
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import wrapt

from otel_concurrency._core import faults

_logger = logging.getLogger(__name__)

_on_import: dict[str, dict[str, Callable[[ModuleType], None]]] = {}
_called_back: dict[str, Any] = {}
"""By name: the module that all callbacks were last called with."""


def when_imported(
    module_name: str, callback: Callable[[ModuleType], None], *, owner: str = ""
) -> None:
    """Call ``callback(module)`` now if the module is imported, and at each later import of it.

    The import hook is registered once per module name, since it cannot be removed. A later call
    with the same ``owner`` replaces that owner's callback. :func:`look_again` finds modules whose
    import bypassed the hook. An exception of a callback is reported and not raised, because it
    would fail the program's import.
    """
    callbacks = _on_import.get(module_name)
    if callbacks is None:
        _on_import[module_name] = {owner: callback}
        wrapt.register_post_import_hook(_imported, module_name)
        if _lookout not in sys.meta_path:
            sys.meta_path.insert(0, _lookout)
        return
    callbacks[owner] = callback
    module = sys.modules.get(module_name)
    if module is not None:
        _call(callback, module)


def awaited() -> str:
    """Return the names of all modules with callbacks, separated by spaces."""
    return " ".join(list(_on_import))


def look_again() -> bool:
    """Call back for modules whose import bypassed the hooks; return whether none is left to do.

    A module that is still being imported is left for the next call. Never raises.
    """
    complete = True
    try:
        for name in sys.modules.keys() & _on_import.keys():
            module: Any = sys.modules.get(name)
            if module is None or module is _called_back.get(name) or type(module) is _LAZY:
                continue
            # The import system marks the spec (PEP 451) so; the interpreter reads this mark too.
            if getattr(getattr(module, "__spec__", None), "_initializing", False):
                complete = False
            else:
                _call_all(name, module)
    except Exception as error:
        faults.once(_logger, "look again", "Imported modules cannot be looked at: %s", error)
    return complete


def see_every_import() -> None:
    """Move the hooks in front of all other finders, and look again. Never raises.

    This is safe only if other code finds its finders by identity, as pytest does when it removes
    its finder, and not by position.
    """
    finders = sys.meta_path
    if _lookout in finders:
        hooks = [finder for finder in finders if finder is _lookout or type(finder) is _HOOKS]
        finders[:] = [*hooks, *(finder for finder in finders if finder not in hooks)]
        look_again()


_LAZY: Any = getattr(importlib.util, "_LazyModule", None)
"""The type of a lazy module: the first access to an attribute loads it."""

_HOOKS: Any = getattr(getattr(wrapt, "importer", None), "ImportHookFinder", None)
"""The type of wrapt's finder, which calls the hooks."""


class _Lookout:
    """A finder that finds nothing. At each import it checks that the hooks see that import.

    Other code may put a finder in front of the hooks and load modules past them. pytest's finder,
    which rewrites assertions, does so for all modules of every distribution that has a plugin.
    While such a finder is in front, the next import that reaches this one looks for modules that
    were missed. The order of the finders belongs to the program and is not changed.
    """

    def __init__(self) -> None:
        self._is_looking = False
        self._is_complete = True

    def find_spec(self, _name: str, _path: object = None, _target: object = None) -> None:
        """Return nothing. Never raises."""
        try:
            finders = sys.meta_path
            in_order = len(finders) > 1 and finders[0] is self and type(finders[1]) is _HOOKS
            if not (in_order and self._is_complete) and not self._is_looking:
                self._is_looking = True  # a callback imports its adapter
                try:
                    self._is_complete = look_again()
                finally:
                    self._is_looking = False
        except Exception as error:
            faults.once(_logger, "look again", "Imported modules cannot be looked at: %s", error)


_lookout: Any = _Lookout()


def _imported(module: ModuleType) -> None:
    _call_all(module.__name__, module)


def _call_all(name: str, module: ModuleType) -> None:
    _called_back[name] = module
    for callback in list(_on_import[name].values()):
        _call(callback, module)


def _call(callback: Callable[[ModuleType], None], module: ModuleType) -> None:
    try:
        callback(module)
    except Exception as error:
        faults.once(
            _logger,
            ("import hook", module.__name__),
            "OpenTelemetry context will not be propagated through %r: %s: %s",
            module.__name__,
            type(error).__name__,
            error,
        )
