"""Proxies that replace functions of the standard library, and look like the original function.

Programs do more with functions than call them. ansible-core builds a pool from a copy of
``ThreadPoolExecutor._adjust_thread_count``, with the same code and closure but other globals. Other
programs pickle functions by value, or ask which file defines one. If the replacement were a plain
Python function that calls the original, a program would copy the replacement, and its changes to
the copy would not reach the original's code.

So the replacement is an object. Calling it calls our function; every attribute that is read from it
is the original's. It costs a fifth of a microsecond at each call; :data:`PLAIN_FUNCTIONS` lists the
functions where that is too much.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from operator import attrgetter
from types import FunctionType, MethodType, ModuleType
from typing import Any, TypeVar, cast

_REASONS: Mapping[str, str] = {
    "The original reads only builtins and one exception from its globals, so a copy with other "
    "globals behaves alike. So does a copy of the replacement.": """
        asyncio.queues.Queue._get asyncio.queues.Queue._put asyncio.queues.Queue.empty
        asyncio.queues.Queue.get asyncio.queues.Queue.task_done
        asyncio.queues.LifoQueue._get asyncio.queues.LifoQueue._put
        queue.Queue._get queue.Queue._put queue.Queue._qsize queue.Queue.task_done
        queue.LifoQueue._get queue.LifoQueue._put queue.LifoQueue._qsize
        queue.PriorityQueue._qsize
        multiprocessing.queues.JoinableQueue.task_done
        multiprocessing.pool.ApplyResult._set multiprocessing.pool.MapResult._set
        concurrent.futures.thread._WorkItem.__init__ concurrent.futures.thread._WorkItem.run
        asyncio.events.TimerHandle.__init__
    """,
    "The original only calls heappush or heappop. A program that needs another order overrides the "
    "method, which is made for that, and does not copy it.": """
        asyncio.queues.PriorityQueue._get asyncio.queues.PriorityQueue._put
        queue.PriorityQueue._get queue.PriorityQueue._put
    """,
    "The original's only global is heapq, which keeps the events in order. The clock, the delay "
    "function and the events are attributes of the scheduler, which a copy reads as well.": """
        sched.scheduler.run
    """,
    "The original's only globals are the names of states, and the logger for a callback that "
    "raises.": """
        concurrent.futures._base.Future.add_done_callback concurrent.futures._base.Future.cancel
    """,
    "The original's only globals are modules that make the executor and the future. A program that "
    "needs another executor passes it, and does not copy the method.": """
        asyncio.base_events.BaseEventLoop.run_in_executor
    """,
    "The original's only global is the class of results, which belongs to the pool. A copy of the "
    "replacement calls the original.": """
        multiprocessing.pool.Pool.apply_async
    """,
    "The original's globals are threading's records of its threads, and what starts one. No "
    "program is known that copies it. A copy of the replacement calls the original.": """
        threading.Thread.start threading.Thread._bootstrap_inner
    """,
    "The original's only global is the module that words what is logged when a callback raises. A "
    "copy of the replacement calls the original.": """
        asyncio.events.TimerHandle._run
    """,
    "The original's globals are the clock, an exception, and the pickler by a name for queues. "
    "A program that needs another pickler makes a queue of its own.": """
        multiprocessing.queues.Queue.get
        multiprocessing.queues.SimpleQueue.get multiprocessing.queues.SimpleQueue.put
    """,
    "The original's only global is io, for its buffer. Only queues use the class by this name; "
    "programs copy and subclass it by its name in multiprocessing.reduction.": """
        multiprocessing.queues._ForkingPickler.dumps
    """,
    "The original is written in C or made by namedtuple(), so it has no source file, globals or "
    "closure that a program could use.": """
        multiprocessing.queues._ForkingPickler.loads
        queue.SimpleQueue.__new__ queue.SimpleQueue.get queue.SimpleQueue.get_nowait
        queue.SimpleQueue.put queue.SimpleQueue.put_nowait
        sched.Event.__getitem__ sched.Event.__iter__ sched.Event.__new__ sched.Event.__reduce__
    """,
}

PLAIN_FUNCTIONS: Mapping[str, str] = {
    name: reason for reason, names in _REASONS.items() for name in names.split()
}
"""The functions that are replaced by a plain function without a proxy, each with the reason why
that breaks no program."""


class FunctionProxy:
    """Calls our function, and looks like the original function when it is inspected.

    Made by :func:`proxy`. Python looks ``__call__`` up in the class, so each proxy gets a separate
    class that has our function as its ``__call__``. That adds no frame between the caller and our
    function.
    """

    __slots__ = ("__weakref__", "__wrapped__")  # not annotated: an instance would show that

    def __get__(self: Any, instance: object, owner: type | None = None) -> Any:
        return self if instance is None else MethodType(self, instance)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__wrapped__, name)

    def __setattr__(self, name: str, value: object) -> None:
        setattr(self.__wrapped__, name, value)

    def __delattr__(self, name: str) -> None:
        delattr(self.__wrapped__, name)

    def __repr__(self) -> str:
        return repr(self.__wrapped__)

    def __reduce_ex__(self, protocol: object) -> str:
        return str(self.__wrapped__.__qualname__)  # by name, as a function is pickled

    def __copy__(self) -> FunctionProxy:
        return self

    def __deepcopy__(self, memo: object) -> FunctionProxy:
        return self


def proxy(original: Any, function: Any) -> FunctionProxy:
    """Return a proxy that calls ``function``, and looks like ``original`` in all other respects."""
    body = {
        "__slots__": (),
        "__call__": staticmethod(function),
        "__class__": FunctionType,  # for isinstance(), which reads it from the instance
        "__doc__": original.__doc__,
        "__module__": original.__module__,
    }
    made: Any = type("function", (FunctionProxy,), body)()
    object.__setattr__(made, "__wrapped__", original)
    return cast("FunctionProxy", made)


def function_of(attribute: Any) -> Any:
    """Return the function that a proxy calls; return anything that is not a proxy as it is."""
    kind = cast("Any", type(attribute))
    return vars(kind)["__call__"].__func__ if issubclass(kind, FunctionProxy) else attribute


def is_wanted(owner: type | ModuleType, name: str) -> bool:
    """Whether the replacement of ``owner.name`` has to be a proxy."""
    if isinstance(owner, type):
        module, name = owner.__module__, f"{owner.__qualname__}.{name}"
    else:
        module = owner.__name__
    is_library = module.partition(".")[0] in sys.stdlib_module_names
    return is_library and f"{module}.{name}" not in PLAIN_FUNCTIONS


Kind = TypeVar("Kind", bound=type)


def shows_the_callables_own(kind: Kind) -> Kind:
    """Have objects of ``kind`` show the documentation and the module of their ``_function``.

    Every class has these attributes itself, and so its objects are not asked for them.
    """
    for name in ("__doc__", "__module__"):
        setattr(kind, name, property(attrgetter(f"_function.{name}")))
    return kind
