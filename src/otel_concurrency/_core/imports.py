"""Calls back for modules when the program imports them, also past the import hooks.

Modules that a program does not use are not imported on our account. The hooks are wrapt's.
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
"""By name: the module that all callbacks know of."""


def when_imported(
    module_name: str, callback: Callable[[ModuleType], None], *, owner: str = ""
) -> None:
    """Call ``callback(module)`` now if the module is imported, and whenever it will be.

    The import hook is registered once per module name, since it cannot be taken back; a later call
    of the same ``owner`` replaces its callback. A module that is imported past the hook is found by
    :func:`look_again`. Whatever a callback raises is reported and not
    raised: it would fail the program's own import.
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


def look_again() -> bool:
    """Call back for modules that were imported past the hooks; return whether all are complete.

    One that is being imported is left for the next time. Never raises.
    """
    complete = True
    try:
        for name in sys.modules.keys() & _on_import.keys():
            module: Any = sys.modules.get(name)
            if module is None or module is _called_back.get(name) or type(module) is _LAZY:
                continue
            # The import system's own mark, which the interpreter goes by too (PEP 451's spec).
            if getattr(getattr(module, "__spec__", None), "_initializing", False):
                complete = False
            else:
                _call_all(name, module)
    except Exception as error:
        faults.once(_logger, "look again", "Imported modules cannot be looked at: %s", error)
    return complete


def see_every_import() -> None:
    """Put the hooks before finders that others have put in front, and look again. Never raises.

    Only for where those others go by identity, as pytest does when it takes its finder away.
    """
    finders = sys.meta_path
    if _lookout in finders:
        hooks = [finder for finder in finders if finder is _lookout or type(finder) is _HOOKS]
        finders[:] = [*hooks, *(finder for finder in finders if finder not in hooks)]
        look_again()


_LAZY: Any = getattr(importlib.util, "_LazyModule", None)
"""The type of a module that is not loaded before its first use, and that any use would load."""

_HOOKS: Any = getattr(getattr(wrapt, "importer", None), "ImportHookFinder", None)
"""The type of the finder by which hooks are called."""


class _Lookout:
    """A finder that finds nothing, and checks at each import that the hooks get to see it.

    Others may put a finder in front, and load a module past the hooks: pytest's, which rewrites
    assertions, loads all of every distribution that has a plugin. As long as one is there, what was
    imported is looked at with the next import that gets here. The order of the finders is the
    program's own, and stays.
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
