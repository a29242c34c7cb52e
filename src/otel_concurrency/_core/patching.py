"""Replaces attributes of classes and modules, and puts them back exactly.

This file knows owners and attribute names, not OpenTelemetry. Only it and `imports` import wrapt.

A :class:`Layer` is one replaced attribute. It is undone by identity, and only while it is still on
top. If other code has patched over it, it stays in the chain. Its advice then has to be a
pass-through, and a later :meth:`Layer.apply` finds it in the chain instead of adding another.
If the patch on top is itself a layer (the observer's, for example), undoing that one undoes both.
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
    """A change that can be applied, undone, and applied again."""

    def apply(self) -> None:
        """Make the change, unless it is still in place."""

    def undo(self) -> None:
        """Undo the change, except where other code has patched on top of it."""


class Layer:
    """``owner.name`` replaced by ``wrap(owner.name)``.

    ``wrap`` takes the raw attribute as it stands in ``vars(owner)`` (or as inherited) and returns
    its replacement. ``check_signature``: check that the replacement takes the same parameters as
    the original. It is false where the replacement is a wholly different function.
    """

    __slots__ = ("_made", "_original", "_replacement", "_wrap", "check_signature", "name", "owner")

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
        self._made: tuple[Any, Any] = (_MISSING, _MISSING)
        """What was replaced last, and by what: the same is replaced by the same again."""

    def apply(self) -> None:
        """Replace the attribute, or find our earlier replacement still in place.

        Raises AttributeError if the owner has no such attribute, and UnknownSignatureError if the
        replacement does not take the parameters of the original.
        """
        _buried.discard(self)
        original = vars(self.owner).get(self.name, _MISSING)
        if self._replacement is not _MISSING and self._replacement in _chain(original):
            return
        present = _inherited(self.owner, self.name) if original is _MISSING else original
        made_for, replacement = self._made
        if made_for is not present:
            replacement = self._make(present)
            if not isinstance(replacement, type):  # it would stay among the subclasses of its base
                self._made = present, replacement
        self._original, self._replacement = original, replacement
        setattr(self.owner, self.name, replacement)

    def _make(self, present: Any) -> Any:
        """Return what replaces ``present``. Raises UnknownSignatureError where that differs."""
        if isinstance(self.owner, type):
            present = _callable_with_self(present)
        replacement = self._wrap(function_of(present))
        if self.check_signature:
            self._check(replacement, present)
        return self._like(present, replacement)

    def _check(self, replacement: Any, present: Any) -> None:
        name = f"{getattr(self.owner, '__qualname__', self.owner.__name__)}.{self.name}"
        if type(replacement) is StandIn:
            signatures.check_class(replacement, present, name)
        elif type(replacement) is not _BuiltinWrapper:  # that one passes all arguments on
            signatures.check(replacement, present, name, bound=isinstance(self.owner, type))

    def _like(self, present: Any, replacement: Any) -> Any:
        """Return the replacement, as a proxy where it has to look like the original function."""
        kind = cast("Any", type(replacement))
        if kind in _BOUND_OTHERWISE and type(present) is kind:
            inner = self._like(present.__func__, replacement.__func__)
            return kind(inner)
        is_function = kind is FunctionType and isinstance(present, FunctionType)
        wanted = is_function and function_proxies.is_wanted(self.owner, self.name)
        return function_proxies.proxy(present, replacement) if wanted else replacement

    def undo(self) -> None:
        """Restore the very same original, unless other code has patched on top of this layer."""
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
        """The original attribute; None if the layer is not applied, or if it was inherited."""
        return None if self._original is _MISSING else self._original

    @property
    def is_undone(self) -> bool:
        """Whether the layer was fully undone. It was not if another patch may still lead to it."""
        return self._replacement is _MISSING

    @property
    def is_on_top(self) -> bool:
        """Whether the attribute at present is the layer's replacement."""
        return vars(self.owner).get(self.name, _MISSING) is self._replacement is not _MISSING

    @property
    def is_in_place(self) -> bool:
        """Whether the attribute leads to the replacement, directly or through other patches."""
        present = vars(self.owner).get(self.name, _MISSING)
        return self._replacement is not _MISSING and self._replacement in _chain(present)


class Alias(Layer):
    """A second name of a patched function, in a module that has imported it from its home module.

    The name gets the replacement that the home module has. Undoing restores the very same original
    function, even if the module had imported the replacement.
    """

    __slots__ = ("_home",)

    def __init__(self, owner: ModuleType, name: str, home: ModuleType) -> None:
        super().__init__(owner, name, lambda raw: raw)
        self._home = home

    def apply(self) -> None:
        """Replace the function, unless it is not the function of its home module."""
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
    """Follow wrappers inwards: by ``__wrapped__``, else by bases or by callables in a closure."""
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
    """Return a raw attribute of a class as a callable that takes ``self`` first.

    A function already is one. Another library's wrapper may have to be bound first, as attribute
    access does.
    """
    # Not isinstance(): a wrapper may claim the class of the object that it wraps.
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
    """Return the method ``name`` of a class as a callable that takes ``self`` first."""
    if name not in vars(kind):  # look it up at each call: a base may be patched later

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
    """Return the class in ``kind.__mro__`` that defines an attribute; else raise AttributeError."""
    for base in kind.__mro__:
        if name in vars(base):
            return base
    raise AttributeError(f"{kind!r} has no attribute {name!r}")


def family(kind: type) -> list[type]:
    """Return a class and all its present subclasses, each after its bases.

    Those of one base are in the order in which they were made, and classes of equal depth in that
    of their bases. So the order is the same in each process.
    """
    found: dict[type, None] = {kind: None}
    pending = [kind]
    for one in pending:
        below: list[type] = type.__subclasses__(one)
        derived = [each for each in below if each not in found]
        found |= dict.fromkeys(derived)
        pending += derived
    return sorted(found, key=lambda one: len(one.__mro__))


class StandIn(abc.ABCMeta):
    """The metaclass of a class that replaces another class under its name.

    Such a class derives from the class that it replaces, and names it as ``stands_in_for`` in its
    body. Every instance of the replaced class counts as its instance, also those that were created
    before instrumenting.
    """

    def __new__(mcs, name: str, bases: tuple[type, ...], body: dict[str, Any]) -> StandIn:
        plain = body.get("stands_in_for")
        if plain is not None:
            for value in body.values():  # a method in C has no __module__ for wraps() to copy
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
"""Attributes of a class that describe its source code; Python sets them since 3.13."""


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
