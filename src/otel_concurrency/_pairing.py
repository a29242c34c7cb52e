"""Pairs the items of queues with contexts, for one module: ``queue`` or ``asyncio.queues``.

The hooks stand where items go in and out, under the queue's own lock or in its event loop: at
``_put`` and ``_get``, and at the method by which a consumer learns whether it has to wait. They are
set on the stock classes, and on every subclass that has such methods of its own, so that what is
paired is what the program put and what it gets. Hooks are known by the class that they are set on,
their *owner*: of several that one step goes through, by ``super()``, only the outermost ones pair.

A queue is accompanied from the first item on that is put to it in a context; until then its hooks
do nothing but look.
"""

from __future__ import annotations

import functools
import inspect
import os
import sys
import threading
import weakref
from collections import deque
from collections.abc import Callable
from types import CodeType, FrameType, MethodType, ModuleType
from typing import Any, cast

from otel_concurrency import _handoff, _items
from otel_concurrency._handoff import Seam, get_current
from otel_concurrency._items import adopted
from otel_concurrency._pairs import Fifo, Keyed, Lifo, Pairs
from otel_concurrency._patching import Layer, apply_all, undo_all

KEY = "_otel_concurrency_pairs"
"""The attribute of a queue that holds its pairs."""

_PLUMBING = frozenset(
    (
        "concurrent.futures.interpreter",
        "concurrent.futures.process",
        "concurrent.futures.thread",
        "logging.handlers",
        "multiprocessing.managers",
        "multiprocessing.pool",
    )
)
"""Modules of the standard library whose own queues hand nothing off."""


_PASSED_THROUGH = frozenset(
    (
        __name__,
        "asyncio.queues",
        "otel_concurrency._primitives._asyncio",
        "otel_concurrency._primitives._queue",
        "queue",
    )
)
_UNPAIRED = Keyed(None, 0)
"""The pairs of a queue that is plumbing."""


def is_plumbing(frame: FrameType | None) -> bool:
    """Whether the queue operation that ``frame`` is part of was called by the standard library."""
    while frame is not None and frame.f_globals.get("__name__") in _PASSED_THROUGH:
        frame = frame.f_back
    return frame is not None and frame.f_globals.get("__name__") in _PLUMBING


def task_done(original: Any) -> Any:
    """Wrap ``task_done`` of a queue: the consumer is done with its item."""

    @functools.wraps(original)
    def task_done(self: Any) -> Any:
        if adopted.get() is not None:
            _items.let_go()
        return original(self)

    return task_done


def shutdown_layers(stock: type) -> list[Layer]:
    """Return the layer for ``shutdown`` (3.13): who calls it is no consumer of what it drains."""

    def wrap(original: Any) -> Any:
        @functools.wraps(original)
        def shutdown(self: Any, immediate: bool = False) -> None:
            flow = _items.flow()
            try:
                original(self, immediate)
            finally:
                _items.go_back(flow)
                flow = None

        return shutdown

    return [Layer(stock, "shutdown", wrap)] if hasattr(stock, "shutdown") else []


class Pairing:
    """The hooks of one module's queues; applied and undone as a layer is."""

    def __init__(
        self,
        module: ModuleType,
        seam: Seam,
        *,
        container: str,
        size: str,
        waits: tuple[str, bool],
        inlined: Callable[[Pairing], dict[str, tuple[Any, ...]]],
        later: tuple[Layer, ...] = (),
    ) -> None:
        """Take the names of the stock queue's parts.

        ``container`` holds the items, ``size`` says how many there are. ``waits`` is what a
        consumer asks, and the truth of the answer by which it has to wait. ``inlined`` returns
        hooks that contain the body of the stock method, with the names by which that body is known.
        The layers ``later`` are applied when the first queue is accompanied: a program that never
        has a context does not pay for them.
        """
        self._module: Any = module
        self._seam = seam
        self._container, self._size = container, size
        self._waits, self._waits_when = waits
        self.stock: Any = self._module.Queue
        self._consumers = (_code(self.stock.get), _code(self.stock.get_nowait))
        self._inlined = inlined(self)
        self.layers = [Layer(self.stock, "__init__", self._init)]
        self._later = later
        self._owners: set[type] = set()
        self._askers: set[type] = set()
        self._covered: weakref.WeakSet[type] = weakref.WeakSet()
        self._accompanied: dict[int, weakref.ref[Any]] = {}
        self._any_accompanied = False
        self._lock = threading.Lock()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._renew_lock)

    def _renew_lock(self) -> None:
        self._lock = threading.Lock()

    # Which classes have hooks.

    def apply(self) -> None:
        """Set the hooks on every class of queues that there is, and that there will be."""
        setattr(self.stock, KEY, None)
        for queue in self._forget_accompanied():
            if getattr(queue.__dict__.get("_get"), "__func__", None) is _last_get:
                del queue._get
        for layer in self.layers:
            layer.apply()
        for kind in _family(self.stock):
            self._cover_safely(kind)

    def undo(self) -> None:
        """Take the hooks away, and every context that waits."""
        with self._lock:
            undo_all((*self.layers, *self._later))
            self._any_accompanied = False
            for queue in self._forget_accompanied():
                queue.__dict__.pop(KEY, None)
                if "_get" not in vars(queue):
                    queue._get = MethodType(_last_get, queue)
                    self._note(queue)
            if KEY in vars(self.stock):
                delattr(self.stock, KEY)

    def _note(self, queue: Any) -> None:
        key, accompanied = id(queue), self._accompanied
        accompanied[key] = weakref.ref(queue, lambda _: accompanied.pop(key, None))

    def _forget_accompanied(self) -> list[Any]:
        queues = [reference() for reference in list(self._accompanied.values())]
        self._accompanied.clear()
        return [queue for queue in queues if queue is not None]

    def _init(self, original: Any) -> Any:
        stock, covered, cover, seam = self.stock, self._covered, self._cover_safely, self._seam

        @functools.wraps(original)
        def __init__(self: Any, *args: Any, **kwargs: Any) -> None:  # noqa: N807
            original(self, *args, **kwargs)
            kind = self.__class__
            if kind is not stock and kind not in covered and seam.active:
                cover(kind)

        return __init__

    def _cover_safely(self, kind: type) -> None:
        try:
            self._cover(kind)
        except Exception as error:
            _handoff.report(f"cover the queues of {kind.__qualname__}", error)

    def _cover(self, kind: type) -> None:
        with self._lock:
            if kind in self._covered:
                return
            self._covered.add(kind)
            layers: list[Layer] = []
            definers = {_definer(kind, "_put"), _definer(kind, "_get")}
            owns = len(definers) > 1 or not definers <= self._owners
            if owns:
                layers.append(Layer(kind, "_put", functools.partial(self._put, kind)))
                layers.append(Layer(kind, "_get", functools.partial(self._get, kind)))
            asks = _definer(kind, self._waits) not in self._askers
            if asks:
                layers.append(Layer(kind, self._waits, functools.partial(self._ask, kind)))
            apply_all(layers)
            self.layers += layers
            self._owners |= {kind} if owns else set()
            self._askers |= {kind} if asks else set()

    # The hooks.

    def _put(self, owner: type, plain: Any) -> Any:
        if inlined := self._inline(owner, "_put", plain):
            return inlined
        accompany, remember, fault = self.accompany, self.remember, self.fault

        plain = _method(plain)

        @functools.wraps(plain)
        def _put(self: Any, item: Any, *args: Any, **kwargs: Any) -> Any:
            flow = _items.flow()
            try:
                if self._otel_concurrency_pairs is None and get_current():
                    accompany(self, owner)
            except Exception as error:
                fault("put", error)
            try:
                result = plain(self, item, *args, **kwargs)
            finally:
                _items.go_back(flow)  # it may have taken another item out
                flow = None
            try:
                if self._otel_concurrency_pairs is not None:
                    remember(self, item, owner)
            except Exception as error:
                fault("put", error)
            return result

        return _put

    def _get(self, owner: type, plain: Any) -> Any:
        if inlined := self._inline(owner, "_get", plain):
            return inlined
        deliver, fault = self.deliver, self.fault
        plain = _method(plain)

        @functools.wraps(plain)
        def _get(self: Any, *args: Any, **kwargs: Any) -> Any:
            item = plain(self, *args, **kwargs)
            try:
                if self._otel_concurrency_pairs is not None or get_current():
                    deliver(self, item, owner)
            except Exception as error:
                fault("get", error)
            return item

        return _get

    def _ask(self, owner: type, plain: Any) -> Any:
        if inlined := self._inline(owner, self._waits, plain):
            return inlined
        wait, waits_when = self.wait, self._waits_when
        plain = _method(plain)

        @functools.wraps(plain)
        def ask(self: Any) -> Any:
            answer = plain(self)
            if adopted.get() is not None and bool(answer) is waits_when:
                wait()
            return answer

        return ask

    def _inline(self, owner: type, name: str, plain: Any) -> Any:
        """Return the hook that contains what ``plain`` does, if it is known to do just that."""
        hook, *names = self._inlined.get(name, (None,))
        known = owner is self.stock and getattr(plain, "__module__", "") == self.stock.__module__
        if known and hook is not None and plain.__code__.co_names == tuple(names):
            return functools.wraps(plain)(hook)
        return None

    # What the hooks do.

    def start(self, queue: Any, item: Any, owner: type) -> None:
        """Start to pair with ``item``, which has just been put and is in the queue. May raise."""
        self.accompany(queue, owner, known=1)
        if queue._otel_concurrency_pairs is not None:
            self.remember(queue, item, owner)

    def accompany(self, queue: Any, owner: type, known: int = 0) -> None:
        """Start to pair, unless another class has the outermost hooks. May raise.

        The queue holds ``known`` items that will be told of.
        """
        if not self._seam.active or _definer(queue.__class__, "_put") is not owner:
            return
        size = getattr(queue, self._size)() - known
        container = getattr(queue, self._container, None)
        pairs: Pairs
        if is_plumbing(sys._getframe(1)):  # pyright: ignore[reportPrivateUsage]
            pairs = _UNPAIRED
        elif owner is self.stock and type(container) is deque:
            pairs = Fifo(owner, size)
        elif owner is self._module.LifoQueue and type(container) is list:
            pairs = Lifo(owner, size)
        elif owner is self._module.PriorityQueue and type(container) is list:
            pairs = Keyed(owner, size, cast("list[object]", container))
        else:
            pairs = Keyed(owner, size)
        if not self._any_accompanied:
            self._accompany_first()
        object.__setattr__(queue, KEY, pairs)  # to touch its __dict__ would make it slower
        self._note(queue)

    def _accompany_first(self) -> None:
        with self._lock:
            if self._seam.active:
                apply_all(self._later)
                self._any_accompanied = True

    def remember(self, queue: Any, item: Any, owner: type) -> None:
        """Pair ``item``, which has just been put, with the current context. May raise."""
        pairs: Pairs = queue._otel_concurrency_pairs
        if pairs.owner is owner:
            pairs.put(item, get_current(), getattr(queue, self._size)())

    def deliver(self, queue: Any, item: Any, owner: type) -> None:
        """Give the context of ``item``, which has just been got, to the consumer. May raise."""
        pairs: Pairs | None = queue._otel_concurrency_pairs
        context = None
        if pairs is not None:
            if pairs.owner is not owner:
                return
            context = pairs.take(item, getattr(queue, self._size)())
        if self._seam.active:
            _items.adopt(context)
        else:
            _items.let_go()

    def wait(self) -> None:
        """Let go of the last item if it is a consumer who has just been told to wait."""
        if sys._getframe(2).f_code in self._consumers:  # pyright: ignore[reportPrivateUsage]
            _items.let_go()

    def fault(self, step: str, error: Exception) -> None:
        """Report a fault of a hook, unless the hook has only outlived ``undo()``."""
        if self._seam.active:
            _handoff.report(step, error)


def _get(self: Any) -> Any:
    """Stay with a queue after ``undo()``: some consumer may be in the context of its last item."""
    if adopted.get() is not None:
        _items.let_go()
    return self.__class__._get(self)


_last_get = _get  # pickled by its name, it is the plain method again


def _code(function: Any) -> CodeType:
    return cast("CodeType", inspect.unwrap(function).__code__)


def _method(attribute: Any) -> Any:
    """Return what a class of the program's has for a method as one that takes ``self``."""
    bind = getattr(cast("Any", type(attribute)), "__get__", None)
    if bind is not None and not isinstance(attribute, _BOUND_OTHERWISE):
        return attribute

    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        function = attribute if bind is None else bind(attribute, self, self.__class__)
        return function(*args, **kwargs)

    return method


_BOUND_OTHERWISE: Any = (staticmethod, classmethod)


def _definer(kind: type, name: str) -> type:
    return next(base for base in kind.__mro__ if name in vars(base))


def _family(kind: type) -> list[type]:
    """Return a class and all that derive from it, each after its bases."""
    found = {kind}
    pending = [kind]
    while pending:
        derived: set[type] = set(type.__subclasses__(pending.pop())) - found
        found |= derived
        pending += derived
    return sorted(found, key=lambda one: len(one.__mro__))
