"""The environment of a process as a carrier: of this one, and of those that it starts.

The specification ("Environment Variables as Context Propagation Carriers") has each header of the
configured propagators in a variable of its name, in upper case: ``TRACEPARENT``, ``TRACESTATE``,
``BAGGAGE``. Whoever reads them takes the span in ``TRACEPARENT`` for its parent, so an origin that
is only to be linked to travels in a variable that nobody knows but us.

What a process was started with it hands down by default, to children of any time. Wherever there is
a context, that one replaces all of it; what the program itself has put there since is left alone.
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
"""The origin of what starts a new trace, as in ``TRACEPARENT``; why, and which primitive.

Behind commas the other origins of a batch.
"""

_BAGGAGE = "BAGGAGE"

_inherited: Mapping[str, str] = {}
"""The carrier's variables that this process was started with."""

_base: Context | None = None
"""The context that was found in them, while it is the base of the main thread."""


class _Setter(Setter[MutableMapping[str, str]]):
    def set(self, carrier: MutableMapping[str, str], key: str, value: str) -> None:
        if not (value.isascii() and value.isprintable()):  # as the specification has it
            raise ValueError(f"the value of {key} does not go into an environment: {value!r}")
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
"""The variables that an environment is to lose, and those that it is to get."""


def changes_for_child(context: Context, given: Any) -> Changes | None:
    """Return how the environment ``given`` (None: this process's) changes to carry ``context``.

    None where there is nothing to carry, and where ``given`` already carries what the program has
    put there, or is no environment, as ``Popen`` is about to say. May raise.
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
    """Return what makes ``changes`` to the environment of its process and calls ``function``.

    That process is a child. No fault is reported: that takes locks, and a thread of the parent may
    have held one of them.
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
    """Make what the environment carries the base context of the process, of its main thread.

    ``change`` is what the policy makes of it. Nothing is attached over a context. Never raises.
    """
    global _inherited, _base  # noqa: PLW0603
    try:
        _inherited = {name: os.environ[name] for name in _names() if name in os.environ}
        found = {name: value for name, value in _inherited.items() if value}
        if not found or threading.current_thread() is not threading.main_thread():
            return
        context = _extract(found)
        if not context or handoff.get_current():
            return
        _base = context if change is None else change(context)
        handoff.bodies[get_ident()] = _base  # nothing in it is the main thread's own
        handoff.attach(_base)
    except Exception as error:
        handoff.report("extract", error)


def leave() -> None:
    """Take the base context away, if it still is the current one. Never raises."""
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
            "What the environment carries makes no context, and is ignored: %s",
            ", ".join(f"{name}={variables[name]!r}" for name in sorted(ignored)),
        )
    return context


def _is_text(value: str) -> bool:
    """Whether ``value`` was text before it was decoded: no propagator can read other bytes."""
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
    """Return ``context`` with the links that ``value`` spells, or None where it spells none."""
    first, *others = value.split(",")
    origin, _, words = first.partition(" ")
    reason, _, primitive = words.partition(" ")
    span = carrier.span_of(origin)
    if not span.is_valid:
        return None
    linked = trace.set_span_in_context(trace.NonRecordingSpan(span), context)
    return origins.deferred(linked, primitive or None, reason, map(carrier.span_of, others))
