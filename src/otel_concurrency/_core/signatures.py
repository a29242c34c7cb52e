"""Checks whether a replacement takes the same parameters as the function that it replaces.

A private method of CPython or of a library may get one more parameter in a new version. Its callers
pass the new argument, and a replacement written for the old version would raise ``TypeError``. So
each layer checks the signature before it is applied.

Signatures are read from code objects: :func:`inspect.signature` takes twenty times as long, and
more than a hundred functions are patched when a program starts.
"""

from __future__ import annotations

import functools
import inspect
import operator
from collections.abc import Mapping
from types import CodeType, FunctionType, MethodDescriptorType
from typing import Any, cast

_MISSING: Any = object()

NOT_GIVEN: Any = object()
"""The default of a parameter that only some versions have. It is passed on only if it was given."""

_MOST_WRAPPERS = 64


class UnknownSignatureError(TypeError):
    """A function takes other parameters than those that the replacement was written for."""


class _Signature:
    """What can be passed to a function."""

    def __init__(
        self,
        positional: tuple[str, ...],
        positional_only: int,
        keyword_only: tuple[str, ...],
        defaults: Mapping[str, Any],
        any_positional: bool,
        any_keyword: bool,
    ) -> None:
        self.positional = positional
        """Names of the parameters that can be passed by position, in their order."""
        self.positional_only = positional_only
        """How many of those cannot be passed by keyword."""
        self.keyword_only = keyword_only
        self.defaults = defaults
        self.any_positional = any_positional
        self.any_keyword = any_keyword

    def __str__(self) -> str:
        words = [self._spelled(name) for name in self.positional]
        if self.positional_only:
            words.insert(self.positional_only, "/")
        if self.any_positional:
            words.append("*args")
        elif self.keyword_only:
            words.append("*")
        words += [self._spelled(name) for name in self.keyword_only]
        if self.any_keyword:
            words.append("**kwargs")
        return f"({', '.join(words)})"

    def _spelled(self, name: str) -> str:
        return f"{name}=..." if name in self.defaults else name


def check(replacement: Any, original: Any, name: str, *, bound: bool) -> None:
    """Raise UnknownSignatureError if ``replacement`` does not take exactly what ``original`` does.

    A function that takes ``*args`` and ``**kwargs`` takes everything, whether it is a replacement
    that passes all arguments on or another library's wrapper. A function without a readable
    signature, such as some builtins, counts as taking everything, too. ``bound``: the first
    parameter is the instance (or class), and its name does not matter. ``name`` is for the message.
    """
    function, plain = _function(replacement), _unwrapped(original)
    if _is_alike(function, plain) or _takes_the_rest(function, plain, bound):
        return
    if bound and _is_alike_in_c(function, plain):
        return
    ours, theirs = _signature(function), _signature(plain)
    if ours is not None and theirs is not None and not _fits(ours, theirs, bound):
        raise UnknownSignatureError(f"{name} takes {theirs}, expected {ours}")


def check_class(replacement: type, original: type, name: str) -> None:
    """Check each method of ``replacement`` against the method of the class that it replaces."""
    for attribute, function in vars(replacement).items():
        if not isinstance(_function(function), FunctionType):
            continue
        plain = _found(original, attribute)
        # The language defines the parameters of a special method, unless Python code implements it.
        is_special = attribute.startswith("__")
        if plain is _MISSING or (is_special and not isinstance(_function(plain), FunctionType)):
            continue
        check(function, plain, f"{name}.{attribute}", bound=True)


def _fits(ours: _Signature, theirs: _Signature, bound: bool) -> bool:
    mine = ours.positional
    while len(mine) > len(theirs.positional) and ours.defaults.get(mine[-1]) is NOT_GIVEN:
        mine = mine[:-1]
    shared = min(len(mine), len(theirs.positional))
    for place in range(shared):
        name, their_name = mine[place], theirs.positional[place]
        by_keyword = place >= theirs.positional_only and not (bound and place == 0)
        if by_keyword and (place < ours.positional_only or their_name != name):
            return False
        if not _is_same_default(ours, name, theirs, their_name):
            return False
    less, more = mine[shared:], theirs.positional[shared:]
    if theirs.any_positional and theirs.any_keyword:
        return not more or ours.any_positional  # another library's wrapper, which passes all on
    if less or ((more or theirs.any_positional) and not ours.any_positional):
        return False
    if ours.any_keyword:
        named = {*ours.keyword_only}
    elif theirs.any_keyword or more[max(theirs.positional_only - shared, 0) :]:
        return False
    else:
        named = {*ours.keyword_only, *theirs.keyword_only}
    return all(
        name in theirs.keyword_only
        and name in ours.keyword_only
        and _is_same_default(ours, name, theirs, name)
        for name in named
    )


def _is_same_default(ours: _Signature, name: str, theirs: _Signature, their_name: str) -> bool:
    mine = ours.defaults.get(name, _MISSING)
    other = theirs.defaults.get(their_name, _MISSING)
    if mine is other or mine is NOT_GIVEN:
        return True
    # Compare types as well, since `0 == False`. `==` of other types may run arbitrary code.
    return type(mine) is type(other) and type(mine) in _PLAIN and bool(mine == other)


_PLAIN: Any = (bool, int, float, str, tuple, dict, frozenset)


def _is_alike(function: Any, other: Any) -> bool:
    """Whether two functions have the same parameters and defaults. Nearly all pairs do."""
    if not (isinstance(function, FunctionType) and isinstance(other, FunctionType)):
        return False
    mine, theirs = function.__code__, other.__code__
    count = mine.co_argcount
    return (
        count == theirs.co_argcount
        and mine.co_varnames[:count] == theirs.co_varnames[:count]
        and mine.co_posonlyargcount == theirs.co_posonlyargcount
        and not (mine.co_kwonlyargcount or theirs.co_kwonlyargcount)
        and _are_alike(function.__defaults__, other.__defaults__)
        and mine.co_flags & _TAKES_MORE == theirs.co_flags & _TAKES_MORE
    )


def _takes_the_rest(function: Any, other: Any, bound: bool) -> bool:
    """Whether a function names the first parameters of another, and takes all others as they are.

    What it says of two functions is what :func:`_fits` says, which takes longer.
    """
    if not (isinstance(function, FunctionType) and isinstance(other, FunctionType)):
        return False
    mine, theirs = function.__code__, other.__code__
    count = mine.co_argcount
    return (
        mine.co_flags & _TAKES_MORE == _TAKES_MORE
        and not (mine.co_kwonlyargcount or function.__defaults__)
        and count <= theirs.co_argcount - len(other.__defaults__ or ())
        and mine.co_posonlyargcount <= max(theirs.co_posonlyargcount, bound)
        and mine.co_varnames[bound:count] == theirs.co_varnames[bound:count]
    )


def _is_alike_in_c(function: Any, method: Any) -> bool:
    """Whether a function has the same parameters and defaults as a method that is written in C.

    The method's own text tells, which ``inspect`` would parse and compile.
    """
    if not (isinstance(function, FunctionType) and isinstance(method, MethodDescriptorType)):
        return False
    code, defaults = function.__code__, function.__defaults__ or ()
    if not code.co_argcount or code.co_flags & _TAKES_MORE:
        return False
    if code.co_posonlyargcount or code.co_kwonlyargcount:
        return False
    if not all(default is None or type(default) in _SPELLED_ALIKE for default in defaults):
        return False
    names = code.co_varnames[1 : code.co_argcount]
    optional = len(names) - len(defaults)
    if optional < 0:  # even the instance has a default
        return False
    words = [*names[:optional], *map("{}={!r}".format, names[optional:], defaults)]
    text: object = getattr(method, "__text_signature__", None)  # PyPy's methods have none
    return text == ", ".join(("($self, /", *words)) + ")"


_SPELLED_ALIKE: Any = (bool, int, str)
"""Types whose values are written in Python as in the text of a method in C."""


def _are_alike(defaults: tuple[Any, ...] | None, others: tuple[Any, ...] | None) -> bool:
    """Whether the defaults of two functions are the very same objects, in the same order."""
    if not (defaults and others):
        return not (defaults or others)
    return len(defaults) == len(others) and all(map(operator.is_, defaults, others))


_TAKES_MORE = inspect.CO_VARARGS | inspect.CO_VARKEYWORDS


def _signature(function: Any) -> _Signature | None:
    if isinstance(function, MethodDescriptorType):
        return _in_c(function)
    if not isinstance(function, FunctionType):
        return _slowly(function)
    code: CodeType = function.__code__
    count = code.co_argcount
    positional = code.co_varnames[:count]
    defaults = dict(zip(reversed(positional), reversed(function.__defaults__ or ()), strict=False))
    return _Signature(
        positional,
        code.co_posonlyargcount,
        code.co_varnames[count : count + code.co_kwonlyargcount],
        {**defaults, **(function.__kwdefaults__ or {})},
        bool(code.co_flags & inspect.CO_VARARGS),
        bool(code.co_flags & inspect.CO_VARKEYWORDS),
    )


@functools.lru_cache(maxsize=64)
def _in_c(method: MethodDescriptorType) -> _Signature | None:
    """Return the signature of a method that is written in C, which is for ever the same."""
    return _slowly(method)


def _slowly(thing: Any) -> _Signature | None:
    """Return the signature of a callable that is no Python function, if it has a signature."""
    try:
        parameters = inspect.signature(thing).parameters.values()
    except (TypeError, ValueError):
        return None
    kinds: dict[Any, list[inspect.Parameter]] = {}
    for parameter in parameters:
        kinds.setdefault(parameter.kind, []).append(parameter)
    only = kinds.get(inspect.Parameter.POSITIONAL_ONLY, [])
    either = kinds.get(inspect.Parameter.POSITIONAL_OR_KEYWORD, [])
    named = kinds.get(inspect.Parameter.KEYWORD_ONLY, [])
    every = (*only, *either, *named)
    return _Signature(
        tuple(parameter.name for parameter in (*only, *either)),
        len(only),
        tuple(parameter.name for parameter in named),
        {one.name: one.default for one in every if one.default is not one.empty},
        inspect.Parameter.VAR_POSITIONAL in kinds,
        inspect.Parameter.VAR_KEYWORD in kinds,
    )


def _unwrapped(thing: Any) -> Any:
    """Return the innermost function, found by ``__wrapped__`` through other libraries' wrappers."""
    for _ in range(_MOST_WRAPPERS):
        function = _function(thing)
        inner = getattr(function, "__wrapped__", None)
        if inner is None or inner is function:
            return function
        thing = inner
    return thing


def _function(attribute: Any) -> Any:
    """Return the function inside a static or class method; return anything else as it is."""
    kind = cast("Any", type(attribute))
    return attribute.__func__ if kind in (staticmethod, classmethod) else attribute


def _found(kind: type, name: str) -> Any:
    for base in kind.__mro__:
        if name in vars(base):
            return vars(base)[name]
    return _MISSING
