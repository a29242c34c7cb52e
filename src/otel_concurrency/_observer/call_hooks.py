"""Watches calls being handed off: threads, futures, schedulers, and executors of the program."""

from __future__ import annotations

import functools
from types import ModuleType
from typing import Any

from otel_concurrency._core.callers import leave_out_of_traceback
from otel_concurrency._core.patching import Layer, wrap_builtin
from otel_concurrency._observer import flows, state
from otel_concurrency._observer.flows import hand_off, observed
from otel_concurrency._observer.records import Record

_SUBMIT = {
    "": "ThreadPoolExecutor.submit",
    "map": "ThreadPoolExecutor.map",
    "run_in_executor": "loop.run_in_executor",
    "to_thread": "asyncio.to_thread",
}
_ENTER = {"": "scheduler.enterabs", "enter": "scheduler.enter"}
_CHAINING = "asyncio.futures"
_OTHER_INTERPRETERS = "concurrent.futures.interpreter"


def _thread_layers(threading: ModuleType) -> list[Layer]:
    # OpenTelemetry's threading instrumentor gives `Timer` its own `start`, which bypasses Thread's.
    kinds = [threading.Thread, *([threading.Timer] if "start" in vars(threading.Timer) else [])]
    return [Layer(kind, "start", lambda raw: _start(raw, threading.Timer)) for kind in kinds]


def _raw_thread_layers(_thread: ModuleType) -> list[Layer]:
    def advice(original: Any, args: Any, kwargs: Any) -> Any:
        try:
            if args and callable(args[0]) and not isinstance(args[0], flows.Observed):
                record = hand_off("threading", "_thread.start_new_thread", args[0])
                args = (observed(args[0], record), *args[1:])
        except Exception as error:
            state.fault("start_new_thread", error)
        return original(*args, **kwargs)

    names = ("start_new_thread", "start_new")
    return [
        Layer(_thread, name, lambda raw: wrap_builtin(raw, advice))
        for name in names
        if hasattr(_thread, name)
    ]


def _start(original: Any, timer: type) -> Any:
    @functools.wraps(original)
    def start(self: Any) -> Any:
        record = None
        try:
            if getattr(self, "_initialized", False):
                call = "Timer.start" if isinstance(self, timer) else "Thread.start"
                record = hand_off("threading", call, self, always=True)
            if record is not None:
                run_as(self, record)
        except Exception as error:
            state.fault("start", error)
        try:
            return original(self)
        except BaseException:
            if record is not None:
                self.__dict__.pop("run", None)
            raise

    return start


def run_as(work: Any, record: Record) -> None:
    """Treat the next ``work.run()`` of a thread or process as the work of ``record``.

    The observing ``run`` calls the ``run`` of the class, however others have patched that. After
    the call it is removed from ``work``.
    """
    own = work.__dict__.get("run")

    def run() -> Any:
        if work.__dict__.get("run") is run:
            if own is None:
                del work.__dict__["run"]
            else:
                work.__dict__["run"] = own
        try:
            return flows.run(record, work.run)
        except BaseException as error:
            leave_out_of_traceback(error)
            raise

    work.__dict__["run"] = run


def _future_layers(base: ModuleType) -> list[Layer]:
    return [Layer(base.Future, "add_done_callback", _add_done_callback)]


def _add_done_callback(original: Any) -> Any:
    @functools.wraps(original)
    def add_done_callback(self: Any, fn: Any) -> Any:
        try:
            if getattr(fn, "__module__", None) != _CHAINING:
                fn = observed(fn, hand_off("futures", "Future.add_done_callback", fn))
        except Exception as error:
            state.fault("add_done_callback", error)
        return original(self, fn)

    return add_done_callback


def _executor_layers(thread: ModuleType) -> list[Layer]:
    return [Layer(thread.ThreadPoolExecutor, "submit", _submit)]


def _submit(original: Any) -> Any:
    @functools.wraps(original)
    def submit(self: Any, /, *args: Any, **kwargs: Any) -> Any:
        try:
            if args and callable(args[0]) and not _crosses(self):
                args = (observed(args[0], hand_off("futures", _SUBMIT, args[0])), *args[1:])
        except Exception as error:
            state.fault("submit", error)
        return original(self, *args, **kwargs)

    return submit


def _crosses(executor: Any) -> bool:
    """Whether the executor's work runs in another interpreter, which is not watched."""
    return any(base.__module__ == _OTHER_INTERPRETERS for base in type(executor).__mro__)


def _loop_layers(base_events: ModuleType) -> list[Layer]:
    return [Layer(base_events.BaseEventLoop, "run_in_executor", _run_in_executor)]


def _run_in_executor(original: Any) -> Any:
    @functools.wraps(original)
    def run_in_executor(self: Any, executor: Any, func: Any, *args: Any) -> Any:
        try:
            if executor is not None and not _is_stock(executor):
                func = observed(func, hand_off("asyncio", "loop.run_in_executor", func))
        except Exception as error:
            state.fault("run_in_executor", error)
        return original(self, executor, func, *args)

    return run_in_executor


def _is_stock(executor: Any) -> bool:
    """Whether the executor uses the standard ``submit``, which is observed itself."""
    return any(
        base.__module__ in ("concurrent.futures.thread", "concurrent.futures.process")
        and "submit" in vars(base)
        for base in type(executor).__mro__
    )


def _sched_layers(sched: ModuleType) -> list[Layer]:
    from otel_concurrency._primitives import _sched

    _sched.CALLS.add(flows.Observed.__call__.__code__)
    return [Layer(sched.scheduler, "enterabs", _enterabs)]


def _enterabs(original: Any) -> Any:
    @functools.wraps(original)
    def enterabs(
        self: Any, time: Any, priority: Any, action: Any, *args: Any, **kwargs: Any
    ) -> Any:
        try:
            action = observed(action, hand_off("sched", _ENTER, action))
        except Exception as error:
            state.fault("enterabs", error)
        return original(self, time, priority, action, *args, **kwargs)

    return enterabs


MODULES = {
    "threading": _thread_layers,
    "_thread": _raw_thread_layers,
    "concurrent.futures._base": _future_layers,
    "concurrent.futures.thread": _executor_layers,
    "asyncio.base_events": _loop_layers,
    "sched": _sched_layers,
}
