"""Runs callables in a context, and keeps what they are: functions, coroutines, generators.

A generator is in the context from each resumption to the next ``yield``, and what it has attached
itself meanwhile is current again when it is resumed. In between its consumer is in its own.
"""

from __future__ import annotations

import functools
import inspect
import sys
import types
from collections.abc import AsyncGenerator, Callable, Generator
from types import AsyncGeneratorType, CoroutineType, FunctionType, GeneratorType
from typing import Any

from opentelemetry.context import Context

from otel_concurrency._core import handoff
from otel_concurrency._core.handoff import attach_safely, current_safely
from otel_concurrency._items import adoption


def wrapped(f: Any, context: Context) -> Any:
    """Return ``f`` so that its body runs in ``context``. Raises TypeError if it is not callable."""
    if not callable(f):
        hint = "; wrap the function, not what it returns" if type(f) in SUSPENDED else ""
        raise TypeError(f"only a callable can be wrapped, got {f!r}{hint}")
    make: _Make = _function
    if type(f) is not FunctionType or f.__code__.co_flags & _SUSPENDS:
        kinds = (make for is_such, make in _KINDS if is_such(f) or is_such(_call_of(f)))
        make = next(kinds, make)
    copied = () if isinstance(f, type) else functools.WRAPPER_UPDATES
    made = functools.wraps(f, updated=copied)(make(f, context))
    code = getattr(f, "__code__", None)
    if code is not None and code.co_flags & inspect.CO_ITERABLE_COROUTINE:
        return types.coroutine(made)
    return made


_SUSPENDS = inspect.CO_COROUTINE | inspect.CO_GENERATOR | inspect.CO_ASYNC_GENERATOR
"""The flags of functions whose body does not run where they are called."""


def carried(f: Any, result: Any, context: Context) -> Any:
    """Return ``result``, of one of the types SUSPENDED, so that its body runs in ``context``.

    A generator is left alone if ``f``, which has returned it, is no generator function: it may be
    anybody's.
    """
    is_such, make = SUSPENDED[type(result)]
    if make is _coroutine_function or is_such(f) or is_such(_call_of(f)):
        return make(lambda: result, context)()
    return result


def leave(token: Any, context: Context) -> None:
    """Detach what :func:`attach_safely` attached, and let go of what was adopted meanwhile."""
    handoff.leave(token)
    if handoff.any_adopted:
        adoption.end_in(context)


def _call_of(f: Any) -> Any:
    """Return what is called where the instance ``f`` is: it may be a coroutine function."""
    kind: Any = f.__class__
    return getattr(kind, "__call__", None)  # noqa: B004 - not to see whether there is one


_Make = Callable[[Any, Context], Any]
"""Makes of a callable and a context the function that takes its place."""


def _function(f: Any, context: Context) -> Any:
    def function(*args: Any, **kwargs: Any) -> Any:
        token = attach_safely(context)
        try:
            result = f(*args, **kwargs)
        finally:
            leave(token, context)
            del token
        if type(result) is CoroutineType:
            return carried(f, result, context)
        return result

    return function


def _coroutine_function(f: Any, context: Context) -> Any:
    async def coroutine(*args: Any, **kwargs: Any) -> Any:
        token = attach_safely(context)
        try:
            return await f(*args, **kwargs)
        finally:
            leave(token, context)
            del token

    return coroutine


def _generator_function(f: Any, context: Context) -> Any:
    def generator(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
        inner = f(*args, **kwargs)
        resume, own = inner.send, context
        value: Any = None
        while True:
            token = attach_safely(own)
            try:
                item = resume(value)
                here = current_safely()
                own = own if here is None else here
            except StopIteration as end:
                return end.value
            finally:
                leave(token, own)
                token = value = None
            try:
                sent = yield item
                resume, value = inner.send, sent
            except BaseException as error:
                resume, value = inner.throw, error

    return generator


def _async_generator_function(f: Any, context: Context) -> Any:
    async def async_generator(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, Any]:
        inner = f(*args, **kwargs)
        step, own = _first_step(inner), context
        while True:
            token = attach_safely(own)
            try:
                item = await step
                here = current_safely()
                own = own if here is None else here
            except StopAsyncIteration:
                return
            finally:
                leave(token, own)
                token = step = None
            try:
                sent = yield item
                step = inner.asend(sent)
            except BaseException as error:
                step = inner.athrow(error)

    return async_generator


def _first_step(inner: Any) -> Any:
    """Return what begins an asynchronous generator that its event loop is not to know of.

    A loop closes all that it knows of at once, in no order (``shutdown_asyncgens``). This one is
    closed by the generator around it. A loop is told where the first step is made (PEP 525).
    """
    hooks = sys.get_asyncgen_hooks()
    sys.set_asyncgen_hooks(None, None)
    try:
        return inner.asend(None)
    finally:
        sys.set_asyncgen_hooks(*hooks)


_KINDS: tuple[tuple[Callable[[Any], bool], _Make], ...] = (
    (inspect.isasyncgenfunction, _async_generator_function),
    (inspect.isgeneratorfunction, _generator_function),
    (inspect.iscoroutinefunction, _coroutine_function),
)

SUSPENDED = dict(zip((AsyncGeneratorType, GeneratorType, CoroutineType), _KINDS, strict=True))
"""The types of what runs only after the call that returns it."""
