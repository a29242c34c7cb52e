"""Sets the hooks of one module's queues: ``queue``'s or ``asyncio.queues``'.

They stand where items go in and out, at ``_put`` and ``_get``, and at the method by which a
consumer learns whether it has to wait: on the stock classes, and on every subclass that has such
methods of its own, so that what is paired is what the program put and what it gets. Hooks are known
by the class that they are set on, their *owner*: of several that one step goes through, by
``super()``, only the outermost ones pair.
"""

from __future__ import annotations

import functools
import inspect
import os
import sys
import threading
import weakref
from collections.abc import Mapping
from typing import Any

from otel_concurrency._core import handoff
from otel_concurrency._core.handoff import get_current
from otel_concurrency._core.patching import Layer, apply_all, definer, family, method_of, undo_all
from otel_concurrency._items import adoption
from otel_concurrency._items.pairing import KEY, Pairing
from otel_concurrency._items.pairs import UNKNOWN, Pairs


def task_done(original: Any) -> Any:
    """Wrap ``task_done`` of a queue: the consumer is done with its item."""

    @functools.wraps(original)
    def task_done(self: Any) -> Any:
        adoption.let_go()
        return original(self)

    return task_done


def shutdown_layers(stock: type) -> list[Layer]:
    """Return the layer for ``shutdown`` (3.13): who calls it is no consumer of what it drains."""
    return [Layer(stock, "shutdown", adoption.abstaining)] if hasattr(stock, "shutdown") else []


class QueueHooks:
    """The hooks of one module's queues; applied and undone as a layer is."""

    def __init__(
        self,
        pairing: Pairing,
        inlined: Mapping[str, tuple[Any, ...]],
        later: tuple[Layer, ...] = (),
    ) -> None:
        """Take what the hooks are to do.

        ``inlined`` are hooks that contain the body of the stock method, each with the names by
        which that body is known. The layers ``later`` are applied when the first queue is
        accompanied: a program that never has a context does not pay for them.
        """
        self._pairing = pairing
        self._inlined = inlined
        self._creation = Layer(pairing.stock, "__init__", self._init)
        self._later = later
        # A class keeps its layers itself: here they would keep the class, which may be one of many
        # that a program makes and drops.
        self._key = f"_otel_concurrency_layers_of_{pairing.stock.__module__}"
        self._covered: weakref.WeakSet[type] = weakref.WeakSet()
        self._lock = threading.Lock()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._renew_lock)

    def _renew_lock(self) -> None:
        self._lock = threading.Lock()

    # Which classes have hooks.

    @property
    def layers(self) -> list[Layer]:
        """What is applied at present, on all classes that there are."""
        classes = sorted(self._covered, key=lambda kind: len(kind.__mro__))
        return [self._creation, *(layer for kind in classes for layer in self._layers_of(kind))]

    def _layers_of(self, kind: type) -> list[Layer]:
        layers: list[Layer] = vars(kind).get(self._key, [])
        return layers

    def apply(self) -> None:
        """Set the hooks on every class of queues that there is, and that there will be."""
        pairing = self._pairing
        pairing.begin()
        setattr(pairing.stock, KEY, pairing.at_first)
        for queue in pairing.forget_all():
            if type(queue.__dict__.get("_get")) is _LastGet:
                del queue.__dict__["_get"]
        for layer in self.layers:
            layer.apply()
        for kind in family(pairing.stock):
            is_stock = kind.__module__ == pairing.stock.__module__
            (self._cover if is_stock else self._cover_safely)(kind)
        pairing.on_first = self._apply_later if self._later else None

    def _apply_later(self) -> None:
        with self._lock:
            if self._pairing.seam.active:
                apply_all(self._later)
                self._pairing.on_first = None

    def undo(self) -> None:
        """Take the hooks away, and every context that waits."""
        pairing = self._pairing
        with self._lock:
            undo_all((*self.layers, *self._later))
            self._forget_what_is_undone()
            pairing.on_first = None
            for queue in pairing.forget_all():
                queue.__dict__.pop(KEY, None)
                if "_get" not in queue.__dict__:
                    queue.__dict__["_get"] = _LastGet(queue)
                    pairing.note(queue)
            if KEY in vars(pairing.stock):
                delattr(pairing.stock, KEY)
        adoption.let_go()  # nobody will tell this flow to do it any more

    def _forget_what_is_undone(self) -> None:
        for kind in list(self._covered):
            if all(layer.is_undone for layer in self._layers_of(kind)):
                self._covered.discard(kind)
                if self._key in vars(kind):
                    delattr(kind, self._key)

    def _init(self, original: Any) -> Any:
        pairing = self._pairing
        stock, seam, covered, cover = pairing.stock, pairing.seam, self._covered, self._cover_safely

        @functools.wraps(original)
        def __init__(self: Any, *args: Any, **kwargs: Any) -> None:  # noqa: N807
            original(self, *args, **kwargs)
            try:
                pairing.is_nobodys(self)
            except Exception as error:
                pairing.fault("make a queue", error)
            kind = self.__class__
            if kind is not stock and kind not in covered and seam.active:
                cover(kind)

        return __init__

    def _cover_safely(self, kind: type) -> None:
        try:
            self._cover(kind)
        except Exception as error:
            handoff.report(f"cover the queues of {kind.__qualname__}", error)

    def _cover(self, kind: type) -> None:
        pairing = self._pairing
        with self._lock:
            if kind in self._covered:
                return
            self._covered.add(kind)
            hooks = {"_put": self._put, "_get": self._get, pairing.waits: self._ask}
            layers = [
                Layer(kind, name, functools.partial(hook, kind))
                for name, hook in hooks.items()
                if name not in [layer.name for layer in self._layers_of(definer(kind, name))]
            ]
            for name in ("put", "put_nowait"):
                own = vars(kind).get(name)
                if (
                    kind is not pairing.stock
                    and inspect.isfunction(own)
                    and not inspect.iscoroutinefunction(own)
                ):
                    layers.append(Layer(kind, name, adoption.abstaining))
            try:
                apply_all(layers)
            except Exception:
                self._covered.discard(kind)
                raise
            if layers:
                setattr(kind, self._key, layers)

    # The hooks.

    def _put(self, owner: type, plain: Any) -> Any:
        pairing = self._pairing
        if inlined := self._inline(owner, "_put", plain):
            return inlined
        accompany, remember, fault = pairing.accompany, pairing.remember, pairing.fault
        plain = adoption.abstaining(method_of(owner, "_put", plain))  # it may take out another item

        @functools.wraps(plain)
        def _put(self: Any, *args: Any, **kwargs: Any) -> Any:
            try:
                if self._otel_concurrency_pairs is pairing.at_first and pairing.seam.concerned():
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
        pairing = self._pairing
        if inlined := self._inline(owner, "_get", plain):
            return inlined
        deliver, fault = pairing.deliver, pairing.fault
        plain = method_of(owner, "_get", plain)

        @functools.wraps(plain)
        def _get(self: Any, *args: Any, **kwargs: Any) -> Any:
            try:
                item = plain(self, *args, **kwargs)
            except BaseException:
                adoption.let_go()  # it may have taken one out
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
        pairing = self._pairing
        if inlined := self._inline(owner, pairing.waits, plain):
            return inlined
        wait, waits_when, fault = pairing.wait, pairing.waits_when, pairing.fault
        plain = method_of(owner, pairing.waits, plain)

        @functools.wraps(plain)
        def ask(self: Any, *args: Any, **kwargs: Any) -> Any:
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
        pairing = self._pairing
        hook, *names = self._inlined.get(name, (None,))
        if hook is None or owner is not pairing.stock or not inspect.isfunction(plain):
            return None
        known = plain.__module__ == owner.__module__ and plain.__code__.co_names == tuple(names)
        return functools.wraps(plain)(hook) if known else None


def _give_up(queue: Any) -> None:
    """Drop what is known of a step that has failed."""
    pairs: Pairs | None = getattr(queue, KEY, None)
    if pairs is not None:
        pairs.stored = UNKNOWN


class _LastGet:
    """Stays with a queue after ``undo()``: some consumer may be in the context of its last item."""

    def __init__(self, queue: Any) -> None:
        self._queue = weakref.ref(queue)

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        adoption.let_go()
        caller = sys._getframe(1)  # pyright: ignore[reportPrivateUsage]
        queue: Any = caller.f_locals.get("self")
        if getattr(queue, "__dict__", {}).get("_get") is not self:  # it may be in a copy
            queue = self._queue()
        return queue.__class__._get(queue, *args, **kwargs)

    def __reduce_ex__(self, protocol: object) -> tuple[Any, ...]:
        queue: Any = self._queue()
        return getattr, (queue, "_get")  # in a copy, the copy's own method
