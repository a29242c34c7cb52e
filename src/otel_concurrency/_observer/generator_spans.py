"""Finds spans that a suspended generator leaves current, so that its consumer's become children.

A generator that holds a span over its ``yield`` shares its caller's context. The library gives it
its own from Python 3.12 on. What it attaches as a context manager or a fixture is meant for others.
"""

from __future__ import annotations

import inspect
import sys
from _thread import get_ident
from types import CodeType, FrameType
from typing import Any, NamedTuple

from otel_concurrency._generators import drivers

_HOLDS = inspect.CO_GENERATOR | inspect.CO_ASYNC_GENERATOR

_NO_STREAMS = (*drivers.TABLE, "twisted.internet.defer", "tornado.gen")
"""What resumes a generator that is a context manager, a fixture or a coroutine in another shape."""

_FAR = 100
"""The maximum number of frames between a span and its generator."""

_OF_OPENTELEMETRY = 8
"""The maximum number of frames between ``Tracer.start_span`` and ``start_as_current_span``."""

Place = tuple[object, ...]
"""A thread, the task and the greenlet that runs there."""

Generator = tuple[int, CodeType, Place]
"""The identity of a generator's frame, its code, and where it ran."""


def generator_of(frame: FrameType | None) -> Generator | None:
    """Return the generator that makes a span current from ``frame``, where the span is started.

    None where it is not made current, or not by a generator that hands values to a consumer.
    """
    frame = _caller_of_start_as_current_span(frame)
    for _ in range(_FAR):
        if frame is None:
            return None
        if frame.f_code.co_flags & _HOLDS and not _is_no_stream(frame.f_back):
            place = _place()
            return None if place is None else (id(frame), frame.f_code, place)
        frame = frame.f_back
    return None


def _caller_of_start_as_current_span(frame: FrameType | None) -> FrameType | None:
    for _ in range(_OF_OPENTELEMETRY):
        if frame is None:
            return None
        above = frame.f_back
        if frame.f_code.co_name == "start_as_current_span" and _module(frame).startswith(
            "opentelemetry."
        ):
            return above
        frame = above
    return None


def _is_no_stream(driver: FrameType | None) -> bool:
    if driver is None:
        return True
    module = _module(driver)
    return any(
        f"{name}.".startswith(f"{module}.") or module.startswith(f"{name}.") for name in _NO_STREAMS
    )


def _module(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__", ""))


def is_suspended(generator: Generator, frame: FrameType | None) -> bool:
    """Whether ``generator`` does not run, while its consumer does, in ``frame``."""
    return generator[2] == _place() and _running(generator, frame) is None


def resumed_elsewhere(generator: Generator, frame: FrameType | None) -> Resumption | None:
    """Return where ``generator`` runs, if it began in another thread, task or greenlet.

    ``frame`` is that of a span which is started in it.
    """
    here = _place()
    if here is None or here == generator[2]:
        return None
    running = _running(generator, frame)
    return None if running is None else Resumption(here, running.f_back)


class Resumption(NamedTuple):
    """Where a generator has been resumed."""

    place: Place
    by: FrameType | None


def _running(generator: Generator, frame: FrameType | None) -> FrameType | None:
    identity, code, _ = generator
    while frame is not None:
        if frame.f_code is code and id(frame) == identity:
            return frame
        frame = frame.f_back
    return None


def _place() -> Place | None:
    """Return where this runs; None where work of several contexts runs and cannot be told apart."""
    if "trio" in sys.modules:
        return None
    task: Any = None
    events: Any = sys.modules.get("asyncio.events")
    if events is not None and events._get_running_loop() is not None:
        task = sys.modules["asyncio.tasks"].current_task()
        if task is None:
            return None  # callbacks of the loop
    greenlet: Any = sys.modules.get("greenlet")
    return (
        get_ident(),
        None if task is None else id(task),
        None if greenlet is None else id(greenlet.getcurrent()),
    )
