"""Finds the ids of all objects that a queue with a custom container may hold.

The same object may be in a queue before it is put again in a context. The two must not be confused.
The garbage collector finds the objects that are there, since it calls no code of the program.
"""

from __future__ import annotations

import sys
from collections import deque
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import Any, cast

_CONTAINERS = (list, tuple, dict, set, frozenset, deque)
_NO_ITEMS = (type, ModuleType, FunctionType, BuiltinFunctionType)
_STANDARD = sys.stdlib_module_names
_DEPTH = 6
"""How many references may lead from a queue to an item. For a heap of wrappers, it takes five."""

_WRAPPERS = 2
"""How many of these references may start at objects that are no containers, such as wrappers."""

_MOST = 100_000


def ids_in(queue: object, size: int) -> set[int] | None:
    """Return the ids of all objects that ``queue`` may hold as one of its ``size`` items.

    None if they cannot be found, since the queue does not keep them in built-in containers.
    """
    from gc import get_referents  # here, so that switching on does not import it

    found: set[int] = set()
    elements = 0
    attributes: dict[str, object] = getattr(queue, "__dict__", {})
    layer: list[tuple[Any, int]] = [
        (one, 0)
        for one in attributes.values()
        if isinstance(one, _CONTAINERS) or _may_wrap(type(one))
    ]
    for _ in range(_DEPTH):
        below: list[tuple[Any, int]] = []
        for holder, wrappers in layer:
            for one in get_referents(holder):
                kind = cast("type[object]", type(one))
                if issubclass(kind, _NO_ITEMS) or id(one) in found:
                    continue
                found.add(id(one))
                if issubclass(kind, _CONTAINERS):
                    elements += len(one)
                    below.append((one, wrappers))
                elif wrappers < _WRAPPERS and _may_wrap(kind):
                    below.append((one, wrappers + 1))
        if len(found) > _MOST:
            return None
        layer = below
    return found if elements >= size else None


def _may_wrap(kind: type) -> bool:
    """Whether an object of ``kind``, which is no container, may hold items.

    Objects of the standard library's classes do not.
    """
    return str(kind.__module__).partition(".")[0] not in _STANDARD
