"""Tells the threads and callables that start with a clean context.

Threads that exist to run other people's work, or to live for ever, must not run in the context of
whoever happened to cause their start. The table says which; this file matches against it.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterable
from typing import Any

from otel_concurrency._infrastructure_table import TABLE

_PLAIN_THREADS = (threading.Thread, threading.Timer)
_NOBODYS = (*_PLAIN_THREADS, object)

Matcher = Callable[[object], bool]


def thread_matcher(excluded: Iterable[str]) -> Matcher:
    """Return a predicate for a ``threading.Thread``, or a callable that is started as a thread.

    It is true where the table or one of ``excluded`` names the thread's type, one of its bases, or
    the function that it runs.
    """
    matches = _name_matcher((*TABLE, *excluded))

    def starts_clean(work: object) -> bool:
        if not isinstance(work, threading.Thread):
            return matches(callable_name(work))
        if type(work) not in _PLAIN_THREADS:
            for base in type(work).__mro__:
                if base not in _NOBODYS and matches(_dotted(base)):
                    return True
        target = (
            work.function if isinstance(work, threading.Timer) else getattr(work, "_target", None)
        )
        return target is not None and matches(callable_name(target))

    return starts_clean


def callable_matcher(excluded: Iterable[str]) -> Matcher | None:
    """Return a predicate for callables that one of ``excluded`` names; None where there is none."""
    entries = tuple(excluded)
    if not entries:
        return None
    matches = _name_matcher(entries)
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


def _name_matcher(entries: Iterable[str]) -> Callable[[str], bool]:
    """Return a predicate for dotted names; its answers are remembered by name."""
    prefixes = tuple(
        entry.removesuffix("*") if entry.endswith("*") else f"{entry}." for entry in entries
    )

    @functools.lru_cache(maxsize=4096)
    def matches(name: str) -> bool:
        return f"{name}.".startswith(prefixes)

    return matches
