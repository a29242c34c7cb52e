"""Watches for a context that is left behind with a connection, a server or a long-lived task.

An event loop runs each callback in a copy of the context in which it was registered, and each task
in a copy of the context in which it was made. If the callback or task serves a connection, or a
library's background work, a note is put into that copy, with the line of the program that caused
it. A span that is later started there becomes a child of the span of that line, to which it does
not belong. With the library switched on the context is not left behind, and no such span occurs.
"""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable, Mapping
from contextvars import ContextVar, copy_context
from types import ModuleType
from typing import Any, NamedTuple

from otel_concurrency._clean_starts.functions import FLOWS, ROUNDS, SOURCES, Table
from otel_concurrency._clean_starts.patches import bound_alike, functions_of
from otel_concurrency._clean_starts.tasks import TASKS
from otel_concurrency._clean_starts.wrappers import Messages, is_all_of_its_task
from otel_concurrency._core import frames, handoff
from otel_concurrency._core.patching import Layer
from otel_concurrency._linking import origins
from otel_concurrency._observer import flows, state
from otel_concurrency._observer.records import Origin


class Left(NamedTuple):
    """A note in a contextvars context: this copy of a span's context was left behind."""

    reason: str
    call: str
    """The name of the call that left it, or of the work that runs there."""
    site: str | None
    origin: Origin
    if_over: bool
    """Whether it is a leak only once the span has ended."""


LEFT: ContextVar[Left | None] = ContextVar("otel_concurrency_left", default=None)

_SEEN_IN = "_otel_concurrency_seen_in"
"""The attribute in which a transport keeps the span in which it was made."""


def about(span: Any, parent: Any) -> Left | None:
    """Return the note that explains why ``span`` is a child of ``parent``.

    None if the context of ``parent`` was not left behind.
    """
    left = LEFT.get()
    if left is None or left.origin[:2] != flows.identify(span.parent):
        return None
    return None if left.if_over and getattr(parent, origins.END, None) is None else left


def _here(reason: str, call: str, *, if_over: bool = False) -> Left | None:
    """Return a note on the current context; None where it has no span. Never raises."""
    if not state.watching():
        return None
    try:
        origin = flows.origin_of(handoff.get_current())
        site = frames.site(sys._getframe(2)).line  # pyright: ignore[reportPrivateUsage]
        return None if origin is None else Left(reason, call, site, origin, if_over)
    except Exception as error:
        state.fault("leave a context", error)
        return None


def _selector_layers(selector_events: ModuleType) -> list[Layer]:
    transport = selector_events._SelectorTransport
    return [
        Layer(selector_events.BaseSelectorEventLoop, "_start_serving", _start_serving),
        Layer(transport, "__init__", _init),
        Layer(transport, "_add_reader", _add_reader),
    ]


def _uvloop_layers(uvloop: ModuleType) -> list[Layer]:
    loop = vars(uvloop)["Loop"]
    return [Layer(loop, name, _create_server) for name in ("create_server", "create_unix_server")]


def _init(original: Any) -> Any:
    @functools.wraps(original)
    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:  # noqa: N807
        setattr(self, _SEEN_IN, _here("", ""))
        original(self, *args, **kwargs)

    return __init__


def _add_reader(original: Any) -> Any:
    @functools.wraps(original)
    def _add_reader(self: Any, *args: Any, **kwargs: Any) -> Any:
        left = _here("left_with_connection", "resume_reading()", if_over=True)
        made_in: Left | None = getattr(self, _SEEN_IN, None)
        if left is None or (made_in is not None and made_in.origin == left.origin):
            return original(self, *args, **kwargs)
        return copy_context().run(_noting, left, original, self, *args, **kwargs)

    return _add_reader


def _start_serving(original: Any) -> Any:
    @functools.wraps(original)
    def _start_serving(self: Any, *args: Any, **kwargs: Any) -> Any:
        left = _here("left_with_server", "")
        if left is None:
            return original(self, *args, **kwargs)
        try:
            if kwargs.get("context") is not None:  # from Python 3.15 on
                kwargs["context"].run(LEFT.set, left)
        except Exception as error:
            state.fault("start a server", error)
        return copy_context().run(_noting, left, original, self, *args, **kwargs)

    return _start_serving


def _create_server(original: Any) -> Any:
    @functools.wraps(original)
    def create_server(self: Any, protocol_factory: Any, *args: Any, **kwargs: Any) -> Any:
        left = _here("left_with_server", "")
        if left is not None and callable(protocol_factory):
            protocol_factory = functools.partial(_noting, left, protocol_factory)
        return original(self, protocol_factory, *args, **kwargs)

    return create_server


def _noting(left: Left, function: Any, /, *args: Any, **kwargs: Any) -> Any:
    LEFT.set(left)
    return function(*args, **kwargs)


# Long-lived functions and tasks of libraries, from the table of clean starts.


def _flow(original: Any) -> Any:
    if inspect.iscoroutinefunction(inspect.unwrap(original)):
        return _meanwhile_awaited(original)
    return _meanwhile(original, "left_with_task")


def _meanwhile(original: Any, reason: str) -> Any:
    @functools.wraps(original)
    def start(*args: Any, **kwargs: Any) -> Any:
        token = LEFT.set(_here(reason, original.__qualname__) or LEFT.get())
        try:
            return original(*args, **kwargs)
        finally:
            LEFT.reset(token)

    return start


def _meanwhile_awaited(original: Any) -> Any:
    @functools.wraps(original)
    async def start(*args: Any, **kwargs: Any) -> Any:
        token = LEFT.set(_here("left_with_task", original.__qualname__) or LEFT.get())
        try:
            return await original(*args, **kwargs)
        finally:
            LEFT.reset(token)

    return start


def _task(original: Any) -> Any:
    @functools.wraps(original)
    def make(*args: Any, **kwargs: Any) -> Any:
        left = _here("left_with_task", original.__qualname__)
        coroutine = original(*args, **kwargs)
        return coroutine if left is None else _body(left, coroutine)

    return make


async def _body(left: Left, coroutine: Any) -> Any:
    if is_all_of_its_task():
        LEFT.set(left)
    return await coroutine


def _source(original: Any) -> Any:
    name = original.__qualname__
    if inspect.isasyncgenfunction(inspect.unwrap(original)):
        return functools.wraps(original)(
            lambda *args, **kwargs: Messages(original(*args, **kwargs), lambda _: _got(name))
        )

    @functools.wraps(original)
    async def get(*args: Any, **kwargs: Any) -> Any:
        message = await original(*args, **kwargs)
        if message is not None:
            _got(name)
        return message

    return get


def _got(name: str) -> None:
    left = _here("left_with_task", name, if_over=True)
    if left is not None:
        LEFT.set(left)


_KINDS: tuple[tuple[Table, Callable[[Any], Any]], ...] = (
    (FLOWS, _flow),
    (TASKS, _task),
    (ROUNDS, lambda raw: _meanwhile(raw, "left_with_rounds")),
    (SOURCES, _source),
)


def _library_layers(module: ModuleType) -> list[Layer]:
    return [
        Layer(owner, name, bound_alike(wrap))
        for table, wrap in _KINDS
        for owner, name in functions_of(module, table)
    ]


MODULES: Mapping[str, Callable[[ModuleType], list[Layer]]] = {
    **{module: _library_layers for table, _ in _KINDS for module in table},
    "asyncio.selector_events": _selector_layers,
    "uvloop": _uvloop_layers,
}
