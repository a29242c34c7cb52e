"""Every place at which the library replaces a function of the standard library."""

from __future__ import annotations

import asyncio
import concurrent.futures.process
import concurrent.futures.thread
import functools
import importlib
import logging.handlers
import multiprocessing
import multiprocessing.managers
import multiprocessing.pool
import multiprocessing.queues
import queue
import sched
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any, NamedTuple

from opentelemetry.context import attach, detach, set_value

from otel_concurrency import ConcurrencyInstrumentor, _instrumentor
from otel_concurrency._core.patching import Layer, StandIn

if sys.version_info >= (3, 14):
    import concurrent.futures.interpreter

IMPORTED = (
    asyncio,
    concurrent.futures,
    logging.handlers,
    multiprocessing,
    queue,
    sched,
    subprocess,
    threading,
)
"""What has to be imported for all to be patched."""


class Place(NamedTuple):
    """A function, or a method, that is replaced by the library."""

    setting: str
    patched: str
    """The module for which the setting has the layer."""
    module: str
    name: str
    """In the module: ``Class.method``, or a function."""

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"

    @property
    def owner(self) -> Any:
        """The class or module that has it, as it is found now."""
        path = self.name.split(".")[:-1]
        return functools.reduce(getattr, path, importlib.import_module(self.module))

    @property
    def attribute(self) -> str:
        """Its own name."""
        return self.name.rpartition(".")[2]

    @property
    def raw(self) -> Any:
        """What stands in the owner for it, also if that has inherited it."""
        for owner in getattr(self.owner, "__mro__", (self.owner,)):
            if self.attribute in vars(owner):
                return vars(owner)[self.attribute]
        raise AttributeError(str(self))

    @property
    def function(self) -> Any:
        """The function, where its class has it as a static or a class method."""
        return getattr(self.raw, "__func__", self.raw)


def layers() -> Iterator[tuple[str, str, Layer]]:
    """Yield each layer of a primitive, with the setting and the module that it is for."""
    for primitive in _instrumentor.primitives_in_use.values():
        for module, patches in primitive.layers.items():
            for patch in patches:
                for layer in (*getattr(patch, "layers", (patch,)), *getattr(patch, "_later", ())):
                    yield primitive.name, module, layer


def places() -> list[Place]:
    """Return all of them, of this version of Python, in an order that is the same in each process.

    The layers of classes of equal depth are listed in no particular order.
    """
    ConcurrencyInstrumentor().instrument(subprocess="parent")
    token = attach(set_value("value", "a"))
    try:
        asyncio.run(_use_a_queue())  # which completes what is patched there
        items = multiprocessing.SimpleQueue()
        items.put(1)
        reader = threading.Thread(target=items.get)  # this flow adopts nothing
        reader.start()
        reader.join()
        return sorted(place for each in layers() for place in _places_of(*each))
    finally:
        detach(token)
        ConcurrencyInstrumentor().uninstrument()


async def _use_a_queue() -> None:
    asyncio.Queue().put_nowait(1)


def _places_of(setting: str, patched: str, layer: Layer) -> Iterator[Place]:
    owner = layer.owner
    is_class = isinstance(owner, type)
    module = owner.__module__ if is_class else owner.__name__
    if module.partition(".")[0] not in sys.stdlib_module_names:
        return
    name = f"{owner.__qualname__}.{layer.name}" if is_class else layer.name
    raw = vars(owner).get(layer.name)
    if type(raw) is not StandIn:
        yield Place(setting, patched, module, name)
        return
    for method, function in vars(raw).items():
        is_called = callable(function) or isinstance(function, staticmethod | classmethod)
        if is_called and hasattr(raw.stands_in_for, method) and method != "stands_in_for":
            yield Place(setting, patched, module, f"{name}.{method}")


PLACES = places()
