"""Sets the hooks of one module's queues: those of ``queue`` or of ``asyncio.queues``.

The hooks replace ``_put`` and ``_get``, through which items go in and out, and the method that
tells a consumer whether it has to wait. They are set on the stock classes and on every subclass
that overrides such a method, so that they see the items that the program puts and gets. The class
on which a hook is set is its *owner*. If one step calls several hooks through ``super()``, only the
outermost one pairs.
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

from otel_concurrency._core import compiled, handoff
from otel_concurrency._core.handoff import get_current
from otel_concurrency._core.patching import Layer, apply_all, definer, family, method_of, undo_all
from otel_concurrency._items import adoption
from otel_concurrency._items.pairing import KEY, Pairing
from otel_concurrency._items.pairs import UNKNOWN, Pairs


def task_done(original: Any) -> Any:
    """Wrap ``task_done`` of a queue: the consumer is done with its item."""

    @functools.wraps(original)
    def task_done(self: Any) -> Any:
        if not adoption.is_batch():
            adoption.let_go()
            return original(self)
        try:
            return original(self)
        finally:
            if _is_all_done(self):
                adoption.let_go()

    return task_done


def _is_all_done(queue: Any) -> bool:
    """Whether all items that were taken out of ``queue`` are done."""
    try:
        unfinished = getattr(queue, "unfinished_tasks", getattr(queue, "_unfinished_tasks", 0))
        return bool(unfinished <= queue.qsize())
    except Exception as error:
        handoff.report_fault("task_done", error)
        return True


def shutdown_layers(stock: type) -> list[Layer]:
    """Return the layer for ``shutdown`` (3.13): its caller does not consume the items it drains."""
    return [Layer(stock, "shutdown", adoption.abstaining)] if hasattr(stock, "shutdown") else []


Inlined = Mapping[str, tuple[Any, tuple[str, ...], tuple[Any, ...]]]
"""By the name of a method: the hook that contains its body, the names that this body uses, by which
it is recognized, and the parts of the method in C, if there is one."""


class QueueHooks:
    """The hooks of one module's queues. They are applied and undone like a layer."""

    def __init__(
        self,
        pairing: Pairing,
        inlined: Mapping[type, Inlined],
        later: tuple[Layer, ...] = (),
    ) -> None:
        """Take the pairing that the hooks call.

        ``inlined`` are, by stock class, hooks that contain the body of the stock method. The layers
        ``later`` are applied when tracking of the first queue starts: a program that never has a
        context does not pay for them.
        """
        self._pairing = pairing
        self._inlined = inlined
        self._creation = Layer(pairing.stock, "__init__", self._init)
        self._later = later
        # A class holds its layers itself. If they were held here, they would keep the class alive,
        # and a program may create and drop many classes.
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
        """The layers that are applied at present, on all classes."""
        classes = sorted(self._covered, key=lambda kind: len(kind.__mro__))
        return [self._creation, *(layer for kind in classes for layer in self._layers_of(kind))]

    def _layers_of(self, kind: type) -> list[Layer]:
        layers: list[Layer] = vars(kind).get(self._key, [])
        return layers

    def apply(self) -> None:
        """Set the hooks on all present queue classes; later ones get them at their first use."""
        pairing = self._pairing
        pairing.begin()
        setattr(pairing.stock, KEY, pairing.at_first)
        queues = pairing.forget_all()
        for layer in self.layers:
            layer.apply()
        for kind in family(pairing.stock):
            is_stock = kind.__module__ == pairing.stock.__module__
            (self._cover if is_stock else self._cover_safely)(kind)
        pairing.on_first = self._apply_later if self._later else None
        for queue in queues:
            if type(queue.__dict__.get("_get")) is _LastGet:
                del queue.__dict__["_get"]
            pairing.note(queue)  # a consumer may not have asked it for an item since `undo`

    def _apply_later(self) -> None:
        with self._lock:
            if self._pairing.seam.active:
                apply_all(self._later)
                self._pairing.on_first = None

    def undo(self) -> None:
        """Remove the hooks, and drop every context that waits."""
        pairing = self._pairing
        with self._lock:
            for queue in pairing.accompanied():
                queue.__dict__.setdefault("_get", _LastGet(queue))
            undo_all((*self.layers, *self._later))
            self._forget_what_is_undone()
            pairing.on_first = None
            for queue in pairing.forget_all():
                queue.__dict__.pop(KEY, None)
                if type(queue.__dict__.setdefault("_get", _LastGet(queue))) is _LastGet:
                    pairing.note(queue)
            if KEY in vars(pairing.stock):
                delattr(pairing.stock, KEY)
        adoption.let_go()  # without the hooks, this flow would stay in the context of its last item

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
                pairing.hands_no_work_off(self)
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
            handoff.report_fault(f"cover the queues of {kind.__qualname__}", error)

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
        # A custom `_put` may take another item out: that must not change the producer's context.
        plain = adoption.abstaining(method_of(owner, "_put", plain))

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
                adoption.let_go()  # the method may have taken an item out before it failed
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
        """Return the hook that inlines ``plain``; None unless that is the known stock method."""
        hook, names, parts = self._inlined.get(owner, {}).get(name, (None, (), ()))
        if hook is None or not inspect.isfunction(plain):
            return None
        if plain.__module__ != owner.__module__ or plain.__code__.co_names != names:
            return None
        hook = functools.wraps(plain)(hook)
        if not parts or compiled.functions is None:
            return hook
        return compiled.functions.method(f"{owner.__name__}.{name}", hook, *parts)


def _give_up(queue: Any) -> None:
    """Forget the item that was stored or taken out by a step that has failed."""
    pairs: Pairs | None = getattr(queue, KEY, None)
    if pairs is not None:
        pairs.stored = UNKNOWN


class _LastGet:
    """Replaces a queue's ``_get`` after ``undo()``, so that consumers let go of their last item."""

    def __init__(self, queue: Any) -> None:
        self._queue = weakref.ref(queue)

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        adoption.let_go()
        # A copy of the queue may share this object, so take the queue of the caller, if it has one.
        caller = sys._getframe(1)  # pyright: ignore[reportPrivateUsage]
        queue: Any = caller.f_locals.get("self")
        if getattr(queue, "__dict__", {}).get("_get") is not self:
            queue = self._queue()
        return queue.__class__._get(queue, *args, **kwargs)

    def __reduce_ex__(self, protocol: object) -> tuple[Any, ...]:
        queue: Any = self._queue()
        return getattr, (queue, "_get")  # a deep copy or a pickle gets the method of its queue
