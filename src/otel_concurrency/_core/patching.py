"""Replaces attributes of classes and modules, and puts them back exactly.

Knows owners and attribute names, not OpenTelemetry. No file but this and `imports` imports wrapt.

A :class:`Layer` is one replaced attribute. It is undone by identity, and only where it is still on
top: where somebody else has patched over it, it stays in the chain (its advice is expected to have
become a pass-through), and a later :meth:`Layer.apply` finds it there instead of stacking another.
Where the patch on top is a layer too (of whoever watches the program), the end of that one undoes
both.
"""

from __future__ import annotations

import abc
import functools
import logging
from collections.abc import Callable, Iterable, Iterator
from types import FunctionType, MethodDescriptorType, ModuleType
from typing import TYPE_CHECKING, Any, Protocol, cast

import wrapt

from otel_concurrency._core import function_proxies, signatures
from otel_concurrency._core.function_proxies import FunctionProxy, function_of

_logger = logging.getLogger(__name__)

_MISSING: Any = object()
_MAX_CHAIN = 64
"""How many callables are looked at when searching for a buried layer."""


class Patch(Protocol):
    """What can be applied, undone, and applied again."""

    def apply(self) -> None:
        """Put it in place, or find it still in place."""

    def undo(self) -> None:
        """Take it away, as far as nobody else has built on it."""


class Layer:
    """``owner.name`` replaced by ``wrap(owner.name)``.

    ``wrap`` takes the raw attribute as it stands in ``vars(owner)`` (or as inherited) and returns
    its replacement. Unless it is another function altogether, that takes what the original takes:
    ``check_signature``.
    """

    __slots__ = ("_original", "_replacement", "_wrap", "check_signature", "name", "owner")

    def __init__(
        self,
        owner: type | ModuleType,
        name: str,
        wrap: Callable[[Any], Any],
        *,
        check_signature: bool = True,
    ) -> None:
        self.owner = owner
        self.name = name
        self.check_signature = check_signature
        self._wrap = wrap
        self._original: Any = _MISSING
        self._replacement: Any = _MISSING

    def apply(self) -> None:
        """Replace the attribute, or find our earlier replacement still in place.

        Raises AttributeError where the owner has no such attribute, and UnknownSignatureError where
        the replacement cannot take what it takes.
        """
        _buried.discard(self)
        original = vars(self.owner).get(self.name, _MISSING)
        if self._replacement is not _MISSING and self._replacement in _chain(original):
            return
        present = _inherited(self.owner, self.name) if original is _MISSING else original
        if isinstance(self.owner, type):
            present = _callable_with_self(present)
        replacement = self._wrap(function_of(present))
        if self.check_signature:
            self._check(replacement, present)
        replacement = self._like(present, replacement)
        self._original, self._replacement = original, replacement
        setattr(self.owner, self.name, replacement)

    def _check(self, replacement: Any, present: Any) -> None:
        name = f"{getattr(self.owner, '__qualname__', self.owner.__name__)}.{self.name}"
        if type(replacement) is StandIn:
            signatures.check_class(replacement, present, name)
        elif type(replacement) is not _BuiltinWrapper:  # that passes on what it is given
            signatures.check(replacement, present, name, bound=isinstance(self.owner, type))

    def _like(self, present: Any, replacement: Any) -> Any:
        """Return the replacement so that it can be taken apart as what it replaces."""
        kind = cast("Any", type(replacement))
        if kind in _BOUND_OTHERWISE and type(present) is kind:
            inner = self._like(present.__func__, replacement.__func__)
            return kind(inner)
        is_function = kind is FunctionType and isinstance(present, FunctionType)
        wanted = is_function and function_proxies.is_wanted(self.owner, self.name)
        return function_proxies.proxy(present, replacement) if wanted else replacement

    def undo(self) -> None:
        """Restore what was there, by identity, unless somebody else's patch is on top of ours."""
        if self._replacement is _MISSING:
            return
        if not self.is_on_top:
            if self.is_in_place:
                _buried.add(self)
            return
        _buried.discard(self)
        if self._original is _MISSING:
            delattr(self.owner, self.name)
        else:
            setattr(self.owner, self.name, self._original)
        self._original = self._replacement = _MISSING
        for below in [layer for layer in _buried if layer.name == self.name and layer.is_on_top]:
            below.undo()

    @property
    def is_applied(self) -> bool:
        """Whether it was applied, and not undone since."""
        return self._replacement is not _MISSING

    @property
    def replaced(self) -> Any:
        """What stood there before it was applied; None where it is not."""
        return None if self._original is _MISSING else self._original

    @property
    def is_undone(self) -> bool:
        """Whether nothing of it is left: somebody else's patch on top of it may lead to it yet."""
        return self._replacement is _MISSING

    @property
    def is_on_top(self) -> bool:
        """Whether it is what is found there at present."""
        return vars(self.owner).get(self.name, _MISSING) is self._replacement is not _MISSING

    @property
    def is_in_place(self) -> bool:
        """Whether it is reached, also through what somebody else has put on top."""
        present = vars(self.owner).get(self.name, _MISSING)
        return self._replacement is not _MISSING and self._replacement in _chain(present)


class Alias(Layer):
    """The same function, where another module has imported it from the one that a layer is about.

    It is replaced by what replaces it there, and is as before, by identity, when it is undone: also
    where the module has imported what replaces it.
    """

    __slots__ = ("_home",)

    def __init__(self, owner: ModuleType, name: str, home: ModuleType) -> None:
        super().__init__(owner, name, lambda raw: raw)
        self._home = home

    def apply(self) -> None:
        """Replace the function, unless it is another one than that of its home."""
        replacement = vars(self._home).get(self.name)
        original = getattr(replacement, "__wrapped__", _MISSING)
        present = vars(self.owner).get(self.name, _MISSING)
        if original is _MISSING or not (present is original or present is replacement):
            return
        self._original, self._replacement = original, replacement
        setattr(self.owner, self.name, replacement)


_buried: set[Layer] = set()
"""Layers that were undone while another patch was on top of them."""


def apply_all(layers: Iterable[Patch]) -> None:
    """Apply every layer or, where one raises, none of them."""
    applied: list[Patch] = []
    try:
        for layer in layers:
            applied.append(layer)
            layer.apply()
    except BaseException:
        undo_all(applied)
        raise


def undo_all(layers: Iterable[Patch]) -> None:
    """Undo every layer, the last one first."""
    for layer in reversed(list(layers)):
        layer.undo()


def _inherited(owner: type | ModuleType, name: str) -> Any:
    bases: tuple[type, ...] = getattr(owner, "__mro__", ())
    for base in bases:
        if name in vars(base):
            return vars(base)[name]
    raise AttributeError(f"{owner!r} has no attribute {name!r}")


class _Chain(list[Any]):
    """Callables found from the outermost inwards; membership is by identity."""

    def __contains__(self, item: object) -> bool:
        return any(link is item for link in self)


def _chain(outermost: Any) -> _Chain:
    """Follow wrappers inwards: ``__wrapped__`` first, else bases, or whatever a closure holds."""
    found = _Chain()
    pending: list[Any] = [outermost]
    while pending and len(found) < _MAX_CHAIN:
        link = pending.pop(0)
        if link in found:
            continue
        found.append(link)
        pending.extend(_wrapped_by(link))
    return found


def _wrapped_by(link: Any) -> Iterator[Any]:
    wrapped = getattr(link, "__wrapped__", None)
    if wrapped is not None:
        yield wrapped
        return
    if isinstance(link, type):
        yield from link.__bases__
        return
    for cell in getattr(link, "__closure__", None) or ():
        try:
            content = cell.cell_contents
        except ValueError:  # an empty cell
            continue
        if callable(content):
            yield content


if TYPE_CHECKING:
    _FunctionWrapper = wrapt.FunctionWrapper[Any, Any]
else:
    _FunctionWrapper = wrapt.FunctionWrapper  # not generic before wrapt 2


_CALLED_AS_THEY_ARE = (FunctionType, MethodDescriptorType, staticmethod, classmethod)


def _callable_with_self(attribute: Any) -> Any:
    """Return a method as it stands in its class so that it can be called with ``self`` first.

    A function can; somebody else's wrapper may have to be bound, as attribute access does.
    """
    # Not isinstance(): that asks a wrapper, which answers for what it wraps.
    kind = cast("Any", type(attribute))
    if kind in _CALLED_AS_THEY_ARE or issubclass(kind, FunctionProxy):
        return attribute
    if not (callable(attribute) and hasattr(kind, "__get__")):
        return attribute

    @functools.wraps(attribute)
    def bound_first(self: Any, /, *args: Any, **kwargs: Any) -> Any:
        return kind.__get__(attribute, self, type(self))(*args, **kwargs)

    return bound_first


def method_of(kind: type, name: str, attribute: Any) -> Any:
    """Return what a class has for a method as something to be called with ``self``."""
    if name not in vars(kind):  # whose it is may change

        def inherited(self: Any, *args: Any, **kwargs: Any) -> Any:
            bases = cast("Any", super(kind, self))
            return getattr(bases, name)(*args, **kwargs)

        return functools.wraps(attribute)(inherited)
    bind = getattr(cast("Any", type(attribute)), "__get__", None)
    if callable(attribute) and bind and not isinstance(attribute, _BOUND_OTHERWISE):
        return attribute

    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        function = bind(attribute, self, self.__class__) if bind else attribute
        return function(*args, **kwargs)

    return method


_BOUND_OTHERWISE: Any = (staticmethod, classmethod)


def definer(kind: type, name: str) -> type:
    """Return the class that a class has an attribute from; raise AttributeError if it has none."""
    for base in kind.__mro__:
        if name in vars(base):
            return base
    raise AttributeError(f"{kind!r} has no attribute {name!r}")


def family(kind: type) -> list[type]:
    """Return a class and all that derive from it at present, each after its bases."""
    found = {kind}
    pending = [kind]
    while pending:
        derived: set[type] = set(type.__subclasses__(pending.pop())) - found
        found |= derived
        pending += derived
    return sorted(found, key=lambda one: len(one.__mro__))


class StandIn(abc.ABCMeta):
    """The type of a class that takes another one's place under its name.

    Such a class derives from ``stands_in_for``, which is written in its body, and counts every
    instance of that class as its own: also those made before it was there.
    """

    def __new__(mcs, name: str, bases: tuple[type, ...], body: dict[str, Any]) -> StandIn:
        plain = body.get("stands_in_for")
        if plain is not None:
            for value in body.values():  # a method of C has no module for wraps() to copy
                if isinstance(value, FunctionType) and value.__module__.startswith(_OURS):
                    value.__module__ = body["__module__"]
            body["__qualname__"] = plain.__qualname__
            body["__doc__"] = plain.__doc__
            for attribute in _PLACE_IN_A_FILE & body.keys():
                del body[attribute]
                if attribute in vars(plain):
                    body[attribute] = vars(plain)[attribute]
        return super().__new__(mcs, name, bases, body)

    def __instancecheck__(cls, instance: object) -> bool:
        plain = cls.__dict__.get("stands_in_for")
        return super().__instancecheck__(instance) if plain is None else isinstance(instance, plain)

    def __subclasscheck__(cls, subclass: type) -> bool:
        plain = cls.__dict__.get("stands_in_for")
        return super().__subclasscheck__(subclass) if plain is None else issubclass(subclass, plain)


_OURS = f"{__name__.partition('.')[0]}."

_PLACE_IN_A_FILE = frozenset(("__firstlineno__", "__static_attributes__"))
"""What a class written in Python says of its source: since 3.13."""


class _BuiltinWrapper(_FunctionWrapper):
    """A wrapped builtin that pickles by name and does not bind, as the builtin does."""

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        return self

    def __reduce_ex__(self, protocol: Any) -> str:
        return str(self.__wrapped__.__qualname__)

    def __copy__(self) -> Any:
        return self

    def __deepcopy__(self, memo: Any) -> Any:
        return self


def wrap_builtin(builtin: Any, advice: Callable[..., Any]) -> Any:
    """Return ``builtin`` wrapped so that ``advice(builtin, args, kwargs)`` is called for it."""

    def wrapper(wrapped: Any, _instance: object, args: Any, kwargs: Any) -> Any:
        return advice(wrapped, args, kwargs)

    return _BuiltinWrapper(builtin, wrapper)
