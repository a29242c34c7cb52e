"""What an object without weak references holds, by which it is told from another in its place.

Such an object is known by its place in memory alone, and the next one of its size takes that place.
The objects of a pool change while they are used, and still hold what they are for, such as a
socket; two pieces of work differ in what is to be done.
"""

from __future__ import annotations

from types import BuiltinFunctionType, FunctionType, MemberDescriptorType, ModuleType
from typing import Any

_VALUES: Any = (bytes, float, int, str)
"""Types of which the value counts, and not the object."""

_SHARED: Any = (BuiltinFunctionType, FunctionType, ModuleType, bool, type, type(None))
"""Types of which many hold the same object, which says nothing."""

_SMALL = range(-5, 257)
"""Integers of which there is one object each, and that say nothing either."""


_EMPTY = ()


class Members:
    """What the slots of an object hold. Nothing of it is kept alive."""

    __slots__ = ("kind", "objects", "values")

    def __init__(self, kind: int) -> None:
        """Take the id of the class of the object."""
        self.kind = kind
        self.objects: dict[str, int] = {}
        """The ids of what is in them, by the name of the slot."""
        self.values: dict[str, int] = {}
        """The hashes of what is known by its value."""


def of(item: object) -> Members:
    """Return what ``item`` holds. None of its own code is run."""
    kind = type(item)
    found = Members(id(kind))
    for base in type.__dict__["__mro__"].__get__(kind):
        for name, slot in type.__dict__["__dict__"].__get__(base).items():
            if type(slot) is MemberDescriptorType:
                try:
                    value = slot.__get__(item)
                except AttributeError:
                    continue  # it is empty
                _add(found, name, value)
    return found


def _add(found: Members, name: str, value: object) -> None:
    kind = type(value)
    if kind in _VALUES:
        if value and not (kind is int and value in _SMALL):
            found.values[name] = hash(value)
    elif not issubclass(kind, _SHARED) and value is not _EMPTY:
        found.objects[name] = id(value)


def are_alike(one: object, other: object) -> bool:
    """Whether what was noted of two objects at one place may be of the same object."""
    if not isinstance(one, Members) or not isinstance(other, Members):
        return one == other
    if one.kind != other.kind:
        return False
    if one.objects and other.objects:
        return _have_any_in_common(one.objects, other.objects)
    if one.values and other.values:
        return _have_any_in_common(one.values, other.values)
    return True


def _have_any_in_common(one: dict[str, int], other: dict[str, int]) -> bool:
    return any(other.get(name) == value for name, value in one.items())
