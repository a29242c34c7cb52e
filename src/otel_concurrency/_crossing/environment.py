"""Environment variables as the carrier: of this process, and of the processes that it starts.

The specification ("Environment Variables as Context Propagation Carriers") puts each header of the
configured propagators into a variable with the header's name in upper case: ``TRACEPARENT``,
``TRACESTATE``, ``BAGGAGE``. A reader of these takes the span in ``TRACEPARENT`` as its parent. So
an origin, which is to be linked to only, travels in a variable that only this library reads.

A process passes the variables that it was started with on to all its children by default. Wherever
there is a context, it replaces all of these variables. Values that the program has set itself since
then are left alone.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import threading
import time
from _thread import get_ident
from collections.abc import Callable, Mapping, MutableMapping
from typing import Any

from opentelemetry import propagate, trace
from opentelemetry.context import Context
from opentelemetry.propagators.textmap import Getter, Setter

from otel_concurrency._core import faults, handoff
from otel_concurrency._core.handoff import NO_CONTEXT
from otel_concurrency._crossing import carrier
from otel_concurrency._linking import origins

_logger = logging.getLogger(__name__)

_LINK = "OTEL_CONCURRENCY_LINK"
"""The origin of a new trace in the form of ``TRACEPARENT``, then the link's reason and primitive.

The other origins of a batch follow, separated by commas.
"""

_BAGGAGE = "BAGGAGE"

_inherited: Mapping[str, str] = {}
"""The carrier's variables that this process was started with."""

_base: Context | None = None
"""The context that was read from these variables, while it is the main thread's base context."""


class _Setter(Setter[MutableMapping[str, str]]):
    def set(self, carrier: MutableMapping[str, str], key: str, value: str) -> None:
        if not (value.isascii() and value.isprintable()):  # as the specification has it
            raise ValueError(
                f"{key} needs a printable ASCII value in the environment, got {value!r}"
            )
        carrier[_variable(key)] = value


class _Getter(Getter[Mapping[str, str]]):
    def get(self, carrier: Mapping[str, str], key: str) -> list[str] | None:
        value = carrier.get(_variable(key))
        return None if value is None else [value]

    def keys(self, carrier: Mapping[str, str]) -> list[str]:
        return list(carrier)


_SETTER, _GETTER = _Setter(), _Getter()


def _variable(header: str) -> str:
    """Return the name of the variable for a header."""
    name = re.sub("[^A-Z0-9_]", "_", header.upper())
    return f"_{name}" if name[:1].isdigit() else name


def _names() -> set[str]:
    """Return the names of all variables that may carry something."""
    return {_LINK, *map(_variable, propagate.get_global_textmap().fields)}


Changes = tuple["list[Any]", "dict[str, str]"]
"""The variables to remove from an environment, and those to set in it."""


def changes_for_child(context: Context, given: Any) -> Changes | None:
    """Return how the environment ``given`` (None: this process's) changes to carry ``context``.

    None if there is nothing to carry, if the program has set such variables in ``given`` itself, or
    if ``given`` is no environment (``Popen`` will raise its error). May raise.
    """
    variables: dict[str, str] = {}
    propagate.inject(variables, context, setter=_SETTER)
    links = origins.instead_of(trace.get_current_span(context), context)
    if links:
        variables[_LINK] = _spell(links)
    environment = os.environ if given is None else given
    if not variables or not hasattr(environment, "items"):
        return None
    names = _names()
    lost: list[Any] = []
    for key, value in environment.items():
        name = os.fsdecode(key) if isinstance(key, bytes) else key
        if name not in names:
            continue
        if _is_inherited(name, value):
            lost.append(key)
        elif name != _BAGGAGE:
            return None
        else:
            variables.pop(name, None)
    return lost, variables


def changed(given: Any, changes: Changes) -> dict[Any, Any]:
    """Return a copy of the environment ``given`` (None: this process's) after ``changes``."""
    copy: dict[Any, Any] = dict((os.environ if given is None else given).items())
    _change(copy, changes)
    return copy


def changed_before(function: Callable[[], object], changes: Changes) -> Callable[[], object]:
    """Return a function that makes ``changes`` to its process's environment and calls ``function``.

    It runs in a child process. It reports no fault, since reporting takes locks, which a thread of
    the parent may have held at the fork.
    """

    def change_first() -> object:
        with contextlib.suppress(Exception):
            _change(os.environ, changes)
        return function()

    return change_first


def _change(environment: Any, changes: Changes) -> None:
    lost, variables = changes
    for name in lost:
        environment.pop(name, None)
    environment.update(variables)


def _is_inherited(name: str, value: Any) -> bool:
    text = os.fsdecode(value) if isinstance(value, bytes) else value
    return bool(text == _inherited.get(name))


def enter(change: Callable[[Context], Context] | None) -> None:
    """Make the context in the environment the base context of the process's main thread.

    ``change`` applies the policy to it; None leaves it as it is. Nothing is attached if there is a
    current context already. Never raises.
    """
    global _inherited, _base  # noqa: PLW0603
    try:
        _inherited = {name: os.environ[name] for name in _names() if name in os.environ}
        found = {name: value for name, value in _inherited.items() if value}
        if not found or threading.get_ident() != threading.main_thread().ident:
            return
        context = _extract(found)
        if not context or handoff.get_current():
            return
        _base = context if change is None else change(context)
        handoff.bodies[get_ident()] = _base  # the main thread has got all of it from its starter
        handoff.attach(_base)
    except Exception as error:
        handoff.report_fault("extract", error)


def leave() -> None:
    """Stop using the base context, and leave it if it still is the current one. Never raises."""
    global _inherited, _base
    base, _base, _inherited = _base, None, {}
    if base is None:
        return
    main = threading.main_thread().ident
    if main is not None and handoff.bodies.get(main) is base:
        del handoff.bodies[main]
    if handoff.current_safely() is base:
        handoff.attach_safely(NO_CONTEXT)


def _extract(variables: Mapping[str, str]) -> Context:
    texts = {name: value for name, value in variables.items() if _is_text(value)}
    ignored = variables.keys() - texts.keys()
    context = propagate.extract(texts, Context(), getter=_GETTER)
    if trace.get_current_span(context).get_span_context().is_valid:
        context = origins.dated(context, time.time_ns())
    else:
        link = _read_link(context, texts.get(_LINK, ""))
        if link is not None:
            context = link
        else:
            ignored |= texts.keys() - {_BAGGAGE}
    if ignored:
        faults.once(
            _logger,
            "malformed",
            "The environment variables hold no valid context and are ignored: %s",
            ", ".join(f"{name}={variables[name]!r}" for name in sorted(ignored)),
        )
    return context


def _is_text(value: str) -> bool:
    """Whether the bytes of ``value`` were valid UTF-8: no propagator can read other bytes."""
    try:
        return bool(value.encode())
    except UnicodeEncodeError:
        return False


def _spell(links: origins.Links) -> str:
    attributes = links[0].attributes or {}
    words = (str(attributes.get(key, "")) for key in (origins.REASON, origins.PRIMITIVE))
    first, *others = (carrier.traceparent_of(link.context) for link in links)
    return ",".join((" ".join((first, *words)), *others))


def _read_link(context: Context, value: str) -> Context | None:
    """Return ``context`` with the links that ``value`` contains, or None if it contains none."""
    first, *others = value.split(",")
    origin, _, words = first.partition(" ")
    reason, _, primitive = words.partition(" ")
    span = carrier.span_of(origin)
    if not span.is_valid:
        return None
    linked = trace.set_span_in_context(trace.NonRecordingSpan(span), context)
    return origins.deferred(linked, primitive or None, reason, map(carrier.span_of, others))
