"""Decides which threads and callables start with an empty context.

Threads that run work handed to them, or that live for ever, must not run in the context of the
request that happened to start them. The table lists them; this file matches against it.
"""

from __future__ import annotations

import functools
import sys
import threading
from collections.abc import Callable, Iterable
from types import FunctionType
from typing import Any

from otel_concurrency._clean_starts.table import TABLE

_UNNAMED_BASES = (threading.Thread, threading.Timer, object)

_PROCESSES = ("multiprocessing", "multiprocess", "billiard")
"""The packages with a process class. Programs use the class itself or derive from it."""

_MOST_NAMES = 4096
"""The maximum number of answers that are remembered at a time."""

Matcher = Callable[[object], bool]


def thread_matcher(excluded: Iterable[str]) -> Matcher:
    """Return a predicate for a ``threading.Thread``, or a callable that is started as a thread.

    It is true where the table or one of ``excluded`` names the thread's type, one of its bases, or
    the function that it runs.
    """
    entries = (*TABLE, *excluded)
    matches, concerns = name_matcher(entries), _Concerned(entries)
    stock: Any = threading.Thread

    def starts_clean(work: Any) -> bool:
        if type(work) is stock:
            target = work._target
            if type(target) is FunctionType and not concerns[target.__module__]:
                return False  # the answer for nearly every thread
        elif issubclass(kind := work.__class__, threading.Thread):
            if any(base not in _UNNAMED_BASES and matches(_dotted(base)) for base in kind.__mro__):
                return True
            target = work.function if issubclass(kind, threading.Timer) else work._target
        else:
            target = work
        return target is not None and matches(callable_name(target))

    return starts_clean


def process_matcher(excluded: Iterable[str]) -> Matcher:
    """Return a predicate for a ``multiprocessing`` process, or a callable that one is to run.

    It is true by the same rules as :func:`thread_matcher`'s, with the same table.
    """
    entries = (*TABLE, *excluded)
    matches, concerns = name_matcher(entries), _Concerned(entries)

    def starts_clean(work: Any) -> bool:
        if type(work) is FunctionType and not concerns[work.__module__]:
            return False
        if not isinstance(work, _process_classes()):
            return matches(callable_name(work))
        if any(base is not object and matches(_dotted(base)) for base in type(work).__mro__):
            return True
        target = getattr(work, "_target", None)
        return target is not None and matches(callable_name(target))

    return starts_clean


def _process_classes() -> tuple[type, ...]:
    modules: list[Any] = [sys.modules.get(f"{name}.process") for name in _PROCESSES]
    return tuple([module.BaseProcess for module in modules if hasattr(module, "BaseProcess")])


def callable_matcher(excluded: Iterable[str]) -> Matcher | None:
    """Return a predicate for callables that one of ``excluded`` names; None where there is none."""
    entries = tuple(excluded)
    if not entries:
        return None
    matches = name_matcher(entries)
    return lambda work: matches(callable_name(work))


def callable_name(work: object) -> str:
    """Return ``module.qualname`` of the function behind ``work``.

    Partials and bound methods are unwrapped; any other object is named by its type.
    """
    while isinstance(work, functools.partial):
        work = work.func
    work = getattr(work, "__func__", work)
    return _dotted(work if hasattr(work, "__qualname__") else type(work))


def _dotted(named: Any) -> str:
    return f"{getattr(named, '__module__', None)}.{named.__qualname__}"


@functools.lru_cache(maxsize=8)  # switching on asks several times, for the same long tables
def _prefixes(entries: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(
        entry.removesuffix("*") if entry.endswith("*") else f"{entry}." for entry in entries
    )


def name_matcher(entries: Iterable[str]) -> Callable[[str], bool]:
    """Return a predicate for dotted names; its answers are remembered by name."""
    prefixes = _prefixes(tuple(entries))

    @functools.lru_cache(maxsize=_MOST_NAMES)
    def matches(name: str) -> bool:
        return f"{name}.".startswith(prefixes)

    return matches


class _Concerned(dict[Any, bool]):
    """By module: whether an entry may name something in it. A dictionary is asked fastest."""

    def __init__(self, entries: Iterable[str]) -> None:
        super().__init__()
        self._prefixes = _prefixes(tuple(entries))

    def __missing__(self, module: Any) -> bool:
        inside = f"{module}."
        answer = inside.startswith(self._prefixes) or any(
            entry.startswith(inside) for entry in self._prefixes
        )
        if len(self) >= _MOST_NAMES:  # a program may make up names without end
            self.clear()
        self[module] = answer
        return answer
