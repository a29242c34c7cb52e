"""Patches the functions of the table, in the libraries that a program imports, to start clean.

Only functions of the table are patched: each switches to the empty context itself when it begins.
So creating tasks and callbacks costs nothing more.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterable, Mapping
from types import ModuleType
from typing import Any

from otel_concurrency._clean_starts import wrappers
from otel_concurrency._clean_starts.functions import (
    FLOWS,
    IMPORTED_BY,
    ROUNDS,
    SOURCES,
    Table,
)
from otel_concurrency._clean_starts.matching import callable_name, name_matcher
from otel_concurrency._clean_starts.tasks import TASKS
from otel_concurrency._core.handoff import Seam
from otel_concurrency._core.patching import Alias, Layer, Patch

_Advice = Callable[[ModuleType, Seam], "list[Patch]"]
Wrap = Callable[[Any, Seam], Any]


def _flow(original: Any, seam: Seam) -> Any:
    if inspect.iscoroutinefunction(inspect.unwrap(original)):
        return wrappers.asynchronous_flow(original, seam)
    return wrappers.flow(original, seam)


def _source(original: Any, seam: Seam) -> Any:
    if inspect.isasyncgenfunction(inspect.unwrap(original)):
        return wrappers.generator(original, seam)
    return wrappers.source(original, seam)


_KINDS: tuple[tuple[Table, Wrap], ...] = (
    (SOURCES, _source),  # first, since tasks of the same library get their messages from them
    (FLOWS, _flow),
    (TASKS, wrappers.task),
    (ROUNDS, wrappers.rounds),
)


def layers(
    module: ModuleType, seam: Seam, kinds: Iterable[tuple[Table, Wrap]] = _KINDS
) -> list[Patch]:
    """Return the layers for those functions of the table that ``module`` defines or imports."""
    aliases = IMPORTED_BY.get(module.__name__, {})
    return [
        *(
            Layer(owner, name, _wrapping(wrap, seam))
            for table, wrap in kinds
            for owner, name in functions_of(module, table)
        ),
        *(Alias(module, name, sys.modules[home]) for name, home in aliases.items()),
    ]


_DEFINING = tuple(name for table, _ in _KINDS for name in table)

MODULES: Mapping[str, _Advice] = dict.fromkeys((*_DEFINING, *IMPORTED_BY), layers)
"""By module: its advice. Modules that define a function come before modules that import it."""


def excluded(entries: Iterable[str]) -> Mapping[str, _Advice]:
    """Return the advice, by module, for coroutine functions that the user's ``entries`` name.

    An entry names a function, a class or a module, and stands for everything below it at a dot, as
    for threads. Which part of it is the module is found out when one of that name is imported.
    """
    matches = name_matcher(entries)
    modules = {
        ".".join(parts[:length])
        for parts in (entry.split(".") for entry in entries)
        for length in range(1, len(parts) + 1)
    }

    def layers(module: ModuleType, seam: Seam) -> list[Patch]:
        return [
            Layer(owner, name, _wrapping(wrappers.task, seam))
            for owner, name in _coroutine_functions(module)
            if matches(callable_name(getattr(owner, name)))
        ]

    return dict.fromkeys(sorted(modules), layers)


def _coroutine_functions(module: ModuleType) -> list[tuple[Any, str]]:
    """Return the owners and names of the coroutine functions that a module defines."""
    owners: list[Any] = [module]
    found: list[tuple[Any, str]] = []
    for owner in owners:
        attributes: dict[str, Any] = {**vars(owner)}
        for name, raw in attributes.items():
            if getattr(raw, "__module__", None) != module.__name__:
                continue
            if inspect.isclass(raw):
                if raw not in owners:
                    owners.append(raw)
            elif inspect.iscoroutinefunction(getattr(raw, "__func__", raw)):
                found.append((owner, name))
    return found


def _wrapping(wrap: Wrap, seam: Seam) -> Callable[[Any], Any]:
    return bound_alike(lambda raw: wrap(raw, seam))


def bound_alike(wrap: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Return ``wrap`` so that of a class method or a static method it makes one again."""

    def replacement(raw: Any) -> Any:
        if isinstance(raw, _BOUND_OTHERWISE):
            return type(raw)(wrap(raw.__func__))
        return wrap(raw)

    return replacement


_BOUND_OTHERWISE: Any = (classmethod, staticmethod)


def functions_of(module: ModuleType, table: Table) -> list[tuple[Any, str]]:
    """Return owner and name of each function of ``table`` that this version of ``module`` has."""
    found: list[tuple[Any, str]] = []
    for qualname in table.get(module.__name__, ()):
        *path, name = qualname.split(".")
        owner: Any = module
        for part in path:
            owner = getattr(owner, part, None)
        raw: Any = getattr(owner, "__dict__", _NOTHING).get(name)
        if callable(getattr(raw, "__func__", raw)):
            found.append((owner, name))
    return found


_NOTHING: Mapping[str, Any] = {}
