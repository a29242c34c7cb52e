"""Runs callables in a context, and keeps their kind: function, coroutine or generator function.

The body of a generator runs in the context from each resumption to the next ``yield``. A context
that the body attached before a ``yield`` is current again when it is resumed. Between resumptions
the consumer is in the context that it had before.
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
from otel_concurrency._core.handoff import attach, attach_safely, current_safely, detach
from otel_concurrency._items import adoption

adopted_here = handoff.adopted.get
"""Returns what this flow has adopted with an item, if anything."""


def wrapped(f: Any, context: Context) -> Any:
    """Return ``f`` so that its body runs in ``context``. Raises TypeError if it is not callable."""
    if not callable(f):
        hint = "; wrap the function, not what it returns" if type(f) in SUSPENDED else ""
        raise TypeError(f"only a callable can be wrapped, got {f!r}{hint}")
    try:
        return _wrapped(f, context)
    except Exception as error:
        handoff.report_fault("wrap", error)
        return f


def _wrapped(f: Any, context: Context) -> Any:
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
"""The code flags of functions whose body does not run when they are called."""


def carried(f: Any, result: Any, context: Context) -> Any:
    """Return ``result``, of one of the types SUSPENDED, so that its body runs in ``context``.

    A generator is returned unchanged if ``f``, which returned it, is not a generator function: it
    may have been made elsewhere and belong to other work.
    """
    try:
        is_such, make = SUSPENDED[type(result)]
        if make is _coroutine_function or is_such(f) or is_such(_call_of(f)):
            return make(lambda: result, context)()
    except Exception as error:
        handoff.report_fault("wrap", error)
    return result


def leave(token: Any, context: Context) -> None:
    """Detach what :func:`attach_safely` attached, and let go of items adopted in the meantime."""
    if token is None:  # it could not be attached, which was reported
        return
    try:
        detach(token)
        if handoff.any_adopted and adopted_here() is not None:
            adoption.end_in(context)
    except Exception as error:
        handoff.report_fault("detach", error)


def _call_of(f: Any) -> Any:
    """Return the ``__call__`` of the class of ``f``, which may be a coroutine function."""
    kind: Any = f.__class__
    return getattr(kind, "__call__", None)  # noqa: B004 - its kind matters, not whether it exists


_Make = Callable[[Any, Context], Any]
"""Takes a callable and a context, and returns the function that replaces the callable."""


def _function(f: Any, context: Context) -> Any:
    def function(*args: Any, **kwargs: Any) -> Any:
        token: Any
        try:
            token = attach(context)
        except Exception as error:
            token = None
            handoff.report_fault("attach", error)
        try:
            result = f(*args, **kwargs)
        finally:
            if token is not None:  # as `leave`, without a call of it
                try:
                    detach(token)
                    if handoff.any_adopted and adopted_here() is not None:
                        adoption.end_in(context)
                except Exception as error:
                    handoff.report_fault("detach", error)
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
    """Return the awaitable of the first step, without registering ``inner`` with its event loop.

    A loop closes all generators that it knows at once, in no order (``shutdown_asyncgens``), while
    ``inner`` must be closed by the generator around it. The first step is what registers a
    generator with its loop (PEP 525).
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
"""For the types of objects whose body runs after the call that returned them: how to wrap it."""
