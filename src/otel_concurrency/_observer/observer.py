"""Watches one process, and reports event by event what happens there.

It is on under ``otel-concurrency trace``, and in tests. It only watches from outside: it does not
change how the library works, and it watches a program without the library in the same way.

Events are plain dictionaries, each with ``event`` and ``pid``: ``process`` and ``process_end``,
``hand_off`` and ``attach``, ``span`` and ``span_end``, ``queued`` and ``exported``, ``leak`` and
``leak_over``. ``analysis`` reads them.
"""

from __future__ import annotations

import atexit
import os
import sys
import time
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

from otel_concurrency._core import imports, patching
from otel_concurrency._core.patching import Patch
from otel_concurrency._observer import (
    call_hooks,
    connection_hooks,
    context_hooks,
    export_hooks,
    flows,
    item_hooks,
    process_hooks,
    span_hooks,
    state,
    suspicions,
    wake_hooks,
    worker_hooks,
)

_PARTS: Any = (
    call_hooks,
    wake_hooks,
    item_hooks,
    process_hooks,
    connection_hooks,
    worker_hooks,
    context_hooks,
    span_hooks,
    export_hooks,
)
_OWNER = "observer"

_MODULES: frozenset[str] = frozenset(name for part in _PARTS for name in part.MODULES)

_layers: dict[str, list[Patch]] = {}

_looked_at: set[str] = set()
"""The modules that :func:`look_again` has found so far."""

_library = True


def start(
    emit: Callable[[dict[str, Any]], None],
    *,
    library: bool = True,
    reaches: Callable[[Mapping[str, str]], bool] | None = None,
) -> None:
    """Watch this process, and the ones that it forks: ``emit`` is called with every event.

    ``emit`` is called on the thread on which the event happens, must not block, and is not watched
    itself. ``library`` says whether otel-concurrency is meant to be on. ``reaches`` takes an
    environment and returns whether a command started in it is watched too; such a command gets the
    record of the hand-off that started it. Never raises.
    """
    process_hooks.reaches = reaches
    _start(emit, library=library)
    try:
        record = process_hooks.started_by()
        if record is not None:
            flows.begin(record)
    except Exception as error:
        state.fault("start", error)
    for name in _MODULES:
        imports.when_imported(name, _apply, owner=_OWNER)


def start_alone(emit: Callable[[dict[str, Any]], None], *, library: bool) -> None:
    """Watch this process and no other, from now on, until :func:`stop`.

    Unlike :func:`start` it leaves no import hook behind: call :func:`look_again` from time to time
    for what the program has imported since. Forked processes are not watched, and no record of a
    hand-off leaves this process. What a process still has to export is not watched either, since
    that is looked at when a process has ended. Never raises.
    """
    process_hooks.reaches = None
    _start(emit, library=library, alone=True)
    look_again()


def look_again() -> None:
    """Watch what this process has imported since the last call. Never raises."""
    for name in _MODULES - _looked_at - export_hooks.MODULES.keys():
        module = sys.modules.get(name)
        is_ready = not getattr(getattr(module, "__spec__", None), "_initializing", False)
        if type(module) is ModuleType and is_ready:
            _looked_at.add(name)
            _apply(module)


def _start(emit: Callable[[dict[str, Any]], None], *, library: bool, alone: bool = False) -> None:
    global _library  # noqa: PLW0603
    _forget()
    item_hooks.forget()
    state.emit, state.alone = emit, alone
    _library = library
    flows.at_begin = worker_hooks.at_begin
    flows.at_end = context_hooks.at_end
    _announce(os.getppid())
    atexit.register(_tell_end)


def stop() -> None:
    """Stop watching, and undo all patches of the observer."""
    state.emit = None
    _looked_at.clear()
    atexit.unregister(_tell_end)
    for layers in _layers.values():
        patching.undo_all(layers)
    export_hooks.undo()
    flows.FLOW.set(None)
    _forget()
    item_hooks.forget()


def _forget() -> None:
    for part in (flows, context_hooks, wake_hooks, suspicions):
        part.forget()


def _apply(module: ModuleType) -> None:
    if state.emit is None:  # imported after `stop`
        return
    name = module.__name__
    try:
        if name not in _layers:
            _layers[name] = [
                layer
                for part in _PARTS
                if name in part.MODULES
                for layer in part.MODULES[name](module)
                if not _is_immutable(layer.owner)
            ]
        patching.apply_all(_layers[name])
    except Exception as error:
        state.fault(f"watch {name}", error)


_IMMUTABLE = 1 << 8
"""``Py_TPFLAGS_IMMUTABLETYPE``, since CPython 3.10."""


def _is_immutable(owner: object) -> bool:
    """Whether ``owner`` is a type in C, as gevent puts into the place of classes in Python."""
    return isinstance(owner, type) and bool(owner.__flags__ & _IMMUTABLE)


def _announce(parent: int) -> None:
    state.tell(
        "process",
        parent=parent,
        command=" ".join(sys.orig_argv),
        at_ns=time.time_ns(),
        library=_library,
    )


def _tell_end() -> None:
    state.tell("process_end", at_ns=time.time_ns())


def _forked() -> None:
    """Watch a forked child. Drop the recorded state that it has copied from its parent."""
    if state.emit is None:
        return
    record = process_hooks.after_fork_in_child()
    if state.alone:
        stop()
        return
    if process_hooks.is_command():
        return
    flows.FLOW.set(None)
    _forget()
    _announce(os.getppid())
    if record is not None:
        flows.begin(record)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=process_hooks.before_fork,
        after_in_parent=process_hooks.after_fork_in_parent,
        after_in_child=_forked,
    )
