"""``concurrent.futures``: work submitted to a thread pool, and callbacks of futures.

``submit`` hands off a one-shot :class:`~otel_concurrency._handoff.Call`. Its future knows of it
until it is done, so that a cancelled future, whose work item may wait for a worker for long, lets
go of the context at once.

A callback runs in the context of its registration, as asyncio's do (PEP 567): where it was
registered without one it runs without one, whoever completes the future.

A pool's workers belong to nobody. They start clean, whatever started them (a traced request,
another instrumentor, ``sys.flags.thread_inherit_context``), and every task leaves its worker as it
found it, also the one that was handed off without a context and forgets to detach its own.
"""

from __future__ import annotations

import functools
from types import ModuleType
from typing import Any

from otel_concurrency import _handoff
from otel_concurrency._handoff import NO_CONTEXT, Call, Seam
from otel_concurrency._patching import Layer

_KEY = "_otel_concurrency_call"


def _base_layers(base: ModuleType, seam: Seam) -> list[Layer]:
    return [
        Layer(base.Future, "add_done_callback", lambda raw: _add_done_callback(raw, seam)),
        Layer(base.Future, "_invoke_callbacks", lambda raw: _invoke_callbacks(raw, seam)),
    ]


def _thread_layers(thread: ModuleType, seam: Seam) -> list[Layer]:
    executor = thread.ThreadPoolExecutor
    return [
        Layer(executor, "submit", lambda raw: _submit(raw, seam, executor)),
        Layer(thread._WorkItem, "run", lambda raw: _run(raw, seam)),
        Layer(thread, "_worker", lambda raw: _worker(raw, seam)),
    ]


MODULES = {"concurrent.futures._base": _base_layers, "concurrent.futures.thread": _thread_layers}


def _submit(original: Any, seam: Seam, executor: type) -> Any:
    @functools.wraps(original)
    def submit(self: Any, fn: Any, /, *args: Any, **kwargs: Any) -> Any:
        call = _handoff.call(seam, fn) if _runs_here(self, executor) else None
        if call is None:
            return original(self, fn, *args, **kwargs)
        try:
            future = original(self, call, *args, **kwargs)
        except BaseException:
            call.release()
            raise
        _accompany(future, call)
        return future

    submit._otel_concurrency_seam = seam  # type: ignore[attr-defined]  # see _asyncio
    return submit


def _runs_here(pool: Any, executor: type) -> bool:
    """Whether the pool calls what is submitted in this interpreter (3.14 has one that does not)."""
    if type(pool) is executor:
        return True
    return all(base.__module__ != "concurrent.futures.interpreter" for base in type(pool).__mro__)


def _accompany(future: Any, call: Call) -> None:
    try:
        setattr(future, _KEY, call)
        if future._state != "PENDING":  # a worker was faster
            future.__dict__.pop(_KEY, None)
    except Exception as error:
        _handoff.report("submit", error)


def _add_done_callback(original: Any, seam: Seam) -> Any:
    @functools.wraps(original)
    def add_done_callback(self: Any, fn: Any) -> Any:
        return original(self, _handoff.call(seam, fn) or fn)

    return add_done_callback


def _invoke_callbacks(original: Any, seam: Seam) -> Any:
    @functools.wraps(original)
    def _invoke_callbacks(self: Any) -> Any:
        if getattr(self, _KEY, None) is not None:
            _release(self)
        if not self._done_callbacks:
            return original(self)
        return _in_no_context(seam, original, self)

    return _invoke_callbacks


def _release(future: Any) -> None:
    call: Call | None = future.__dict__.pop(
        _KEY, None
    )  # or else the submitter is doing the same in _accompany
    if call is not None:
        call.release()


def _worker(original: Any, seam: Seam) -> Any:
    @functools.wraps(original)
    def _worker(*args: Any) -> Any:
        return _in_no_context(seam, original, *args)

    return _worker


def _in_no_context(seam: Seam, function: Any, *args: Any) -> Any:
    """Call ``function`` with nothing attached."""
    if not _handoff.current_safely():
        return _leaving_nothing_behind(seam, function, *args)
    attached = _handoff.attach_safely(NO_CONTEXT) if seam.active else None
    try:
        return function(*args)
    finally:
        _handoff.leave(attached)
        del attached


def _run(original: Any, seam: Seam) -> Any:
    @functools.wraps(original)
    def run(self: Any, *args: Any) -> Any:
        return _leaving_nothing_behind(seam, original, self, *args)

    return run


def _leaving_nothing_behind(seam: Seam, function: Any, *args: Any) -> Any:
    """Call ``function``, and see to it that what is current afterwards is what was before."""
    before = _handoff.current_safely()
    try:
        return function(*args)
    finally:
        if seam.active and before is not None and _handoff.current_safely() is not before:
            _handoff.attach_safely(before)
