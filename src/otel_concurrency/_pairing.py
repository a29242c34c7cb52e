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
from types import CodeType, FrameType, ModuleType
from typing import Any, cast

from otel_concurrency import _handoff, _items
from otel_concurrency._handoff import Seam, adopted, get_current
from otel_concurrency._pairs import UNKNOWN, Fifo, Keyed, Lifo, Pairs
from otel_concurrency._patching import Layer, apply_all, definer, family, method_of, undo_all

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
_UNPAIRED = Keyed((None, None), 0)
"""The pairs of a queue that is plumbing."""

_FRAMES_OF_A_CALL = 5
"""How many may stand between a method and ours: other people's wrappers."""


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
    return [Layer(stock, "shutdown", _items.abstaining)] if hasattr(stock, "shutdown") else []


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
        # Only a consumer asks what is private.
        self._own_consumers = ("get", "get_nowait") if self._waits.startswith("_") else ()
        self._inlined = inlined(self)
        self.layers = [Layer(self.stock, "__init__", self._init)]
        self._later = later
        self._hooked: set[tuple[type, str]] = set()
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
            if type(queue.__dict__.get("_get")) is _LastGet:
                del queue.__dict__["_get"]
        for layer in self.layers:
            layer.apply()
        for kind in family(self.stock):
            self._cover_safely(kind)

    def undo(self) -> None:
        """Take the hooks away, and every context that waits."""
        with self._lock:
            undo_all((*self.layers, *self._later))
            self._any_accompanied = False
            for queue in self._forget_accompanied():
                queue.__dict__.pop(KEY, None)
                if "_get" not in queue.__dict__:
                    queue.__dict__["_get"] = _LastGet(queue)
                    self._note(queue)
            if KEY in vars(self.stock):
                delattr(self.stock, KEY)
        _items.let_go()  # nobody will tell this flow to do it any more

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
            hooks = {"_put": self._put, "_get": self._get, self._waits: self._ask}
            layers = [
                Layer(kind, name, functools.partial(hook, kind))
                for name, hook in hooks.items()
                if (definer(kind, name), name) not in self._hooked
            ]
            for name in ("put", "put_nowait"):
                own = vars(kind).get(name)
                if (
                    kind is not self.stock
                    and inspect.isfunction(own)
                    and not inspect.iscoroutinefunction(own)
                ):
                    layers.append(Layer(kind, name, _items.abstaining))
            apply_all(layers)
            self.layers += layers
            self._hooked |= {(kind, layer.name) for layer in layers}

    # The hooks.

    def _put(self, owner: type, plain: Any) -> Any:
        if inlined := self._inline(owner, "_put", plain):
            return inlined
        accompany, remember, fault = self.accompany, self.remember, self.fault

        plain = _items.abstaining(method_of(owner, "_put", plain))  # it may take out another item

        @functools.wraps(plain)
        def _put(self: Any, /, *args: Any, **kwargs: Any) -> Any:
            try:
                if self._otel_concurrency_pairs is None and get_current():
                    accompany(self, owner)
            except Exception as error:
                fault("put", error)
            try:
                result = plain(self, *args, **kwargs)
            except BaseException:
                _give_up(self)
                raise
            try:
                if self._otel_concurrency_pairs is not None:
                    remember(self, args[0] if args else next(iter(kwargs.values())), owner)
            except Exception as error:
                fault("put", error)
            return result

        return _put

    def _get(self, owner: type, plain: Any) -> Any:
        if inlined := self._inline(owner, "_get", plain):
            return inlined
        deliver, fault = self.deliver, self.fault
        plain = method_of(owner, "_get", plain)

        @functools.wraps(plain)
        def _get(self: Any, /, *args: Any, **kwargs: Any) -> Any:
            try:
                item = plain(self, *args, **kwargs)
            except BaseException:
                _items.let_go()  # it may have taken one out
                _give_up(self)
                raise
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
        wait, waits_when, fault = self.wait, self._waits_when, self.fault
        plain = method_of(owner, self._waits, plain)

        @functools.wraps(plain)
        def ask(self: Any, /, *args: Any, **kwargs: Any) -> Any:
            answer = plain(self, *args, **kwargs)
            if bool(answer) is waits_when:
                try:
                    wait(self)
                except Exception as error:
                    fault("get", error)
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
        kind = queue.__class__
        if not self._seam.active or definer(kind, "_put") is not owner:
            return
        owners = owner, definer(kind, "_get")
        size = getattr(queue, self._size)() - known
        container = getattr(queue, self._container, None)
        pairs: Pairs
        if is_plumbing(sys._getframe(1)):  # pyright: ignore[reportPrivateUsage]
            pairs = _UNPAIRED
        elif owners == (self.stock, self.stock) and type(container) is deque:
            pairs = Fifo(owners, size)
        elif owners == (self._module.LifoQueue,) * 2 and type(container) is list:
            pairs = Lifo(owners, size)
        elif owners == (self._module.PriorityQueue,) * 2 and type(container) is list:
            pairs = Keyed(owners, size, cast("list[object]", container))
        else:
            pairs = Keyed(owners, size)
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
        if pairs.owners[0] is owner:
            if pairs.owners[1] is not owner and not _is_stored(item, queue, self._container, pairs):
                pairs.forget(getattr(queue, self._size)())
            else:
                pairs.put(item, get_current(), getattr(queue, self._size)())
        elif pairs is not _UNPAIRED:
            pairs.stored = item

    def deliver(self, queue: Any, item: Any, owner: type) -> None:
        """Give the context of ``item``, which has just been got, to the consumer. May raise."""
        pairs: Pairs | None = queue._otel_concurrency_pairs
        context = None
        if pairs is not None:
            if pairs.owners[1] is not owner:
                if pairs is not _UNPAIRED:
                    pairs.stored = item
                return
            context = pairs.take(item, getattr(queue, self._size)())
        if self._seam.active:
            _items.adopt(context)
        else:
            _items.let_go()

    def wait(self, queue: Any) -> None:
        """Let go of the last item if it is a consumer who has just been told that there is none."""
        pairs: Pairs | None = queue._otel_concurrency_pairs
        if not pairs and adopted.get() is None:
            return
        frame: FrameType | None = sys._getframe(2)  # pyright: ignore[reportPrivateUsage]
        for _ in range(_FRAMES_OF_A_CALL):
            if frame is None:
                return
            code = frame.f_code
            if code in self._consumers or code.co_name in self._own_consumers:
                _items.let_go()
                if pairs:
                    pairs.forget(0)  # somebody has cleared the queue by hand
                return
            if frame.f_globals is vars(self._module) or frame.f_globals is globals():
                return  # another method asks, or a hook
            frame = frame.f_back

    def fault(self, step: str, error: Exception) -> None:
        """Report a fault of a hook, unless the hook has only outlived ``undo()``."""
        if self._seam.active:
            _handoff.report(step, error)


def _give_up(queue: Any) -> None:
    """Drop what is known of a step that has failed."""
    pairs: Pairs | None = getattr(queue, KEY, None)
    if pairs is not None:
        pairs.stored = UNKNOWN


def _is_stored(item: object, queue: Any, container: str, pairs: Pairs) -> bool:
    """Whether a queue that does not give what it takes has stored ``item`` itself, or said what."""
    if pairs.stored is not UNKNOWN:
        return True
    items: Any = getattr(queue, container, None)
    return type(items) not in (deque, list) or any(item is one for one in reversed(items))


class _LastGet:
    """Stays with a queue after ``undo()``: some consumer may be in the context of its last item."""

    def __init__(self, queue: Any) -> None:
        self._queue = weakref.ref(queue)

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        _items.let_go()
        caller = sys._getframe(1)  # pyright: ignore[reportPrivateUsage]
        queue: Any = caller.f_locals.get("self")
        if getattr(queue, "__dict__", {}).get("_get") is not self:  # it may be in a copy
            queue = self._queue()
        return queue.__class__._get(queue, *args, **kwargs)

    def __reduce_ex__(self, protocol: object) -> tuple[Any, ...]:
        queue: Any = self._queue()
        return getattr, (queue, "_get")  # in a copy, the copy's own method


def _code(function: Any) -> CodeType:
    return cast("CodeType", inspect.unwrap(function).__code__)
