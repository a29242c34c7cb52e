"""Watches work that crosses to another process: multiprocessing, forks, and commands."""

from __future__ import annotations

import functools
import json
import os
import sys
from _thread import get_ident
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any, cast

from otel_concurrency._core import frames
from otel_concurrency._core.callers import caller
from otel_concurrency._core.patching import Layer, wrap_builtin
from otel_concurrency._crossing import trailers
from otel_concurrency._observer import flows, item_hooks, state
from otel_concurrency._observer.call_hooks import run_as
from otel_concurrency._observer.flows import hand_off, observed
from otel_concurrency._observer.records import Record

_KEY = "_otel_concurrency_hand_off"
"""The attribute of a process object that carries the record to the child."""

VARIABLE = "OTEL_CONCURRENCY_HAND_OFF"
"""The environment variable with the record of the hand-off that started a command."""

_ENV = 10
"""The index of ``env`` among the arguments of ``Popen``, without ``self``."""

_APPLY = {"": "Pool.apply_async", "apply": "Pool.apply"}
_MAP = {
    "": "Pool.map_async",
    "map": "Pool.map",
    "starmap": "Pool.starmap",
    "starmap_async": "Pool.starmap_async",
}
_SUBMIT = {"": "ProcessPoolExecutor.submit", "map": "ProcessPoolExecutor.map"}
_COMMANDS = {
    "": "subprocess.Popen",
    **{
        name: f"subprocess.{name}"
        for name in ("run", "call", "check_call", "check_output", "getoutput", "getstatusoutput")
    },
    "popen": "os.popen",
    "create_subprocess_exec": "asyncio.create_subprocess_exec",
    "create_subprocess_shell": "asyncio.create_subprocess_shell",
}

reaches: Callable[[Mapping[str, str]], bool] | None = None
"""Tells whether a command with this environment is watched; None means that none is."""

_starting: dict[int, str] = {}
"""For each thread: the call that is about to start a process, and may fork."""


def _process_layers(process: ModuleType) -> list[Layer]:
    return [
        Layer(process.BaseProcess, "start", _start),
        Layer(process.BaseProcess, "_bootstrap", _bootstrap),
    ]


def _start(original: Any) -> Any:
    @functools.wraps(original)
    def start(self: Any) -> Any:
        try:
            record = hand_off("multiprocessing", "Process.start", self, always=True)
            if record is not None and not state.alone:
                self.__dict__[_KEY] = record
        except Exception as error:
            state.fault("start", error)
        _starting[get_ident()] = "process"
        try:
            return original(self)
        finally:
            _starting.pop(get_ident(), None)
            self.__dict__.pop(_KEY, None)

    return start


def _bootstrap(original: Any) -> Any:
    @functools.wraps(original)
    def _bootstrap(self: Any, *args: Any, **kwargs: Any) -> Any:
        _starting.pop(get_ident(), None)  # a fork has copied it from the parent
        record = self.__dict__.pop(_KEY, None)
        if record is not None:
            run_as(self, record)
        return original(self, *args, **kwargs)

    return _bootstrap


def _pool_layers(pool: ModuleType) -> list[Layer]:
    return [
        Layer(pool.Pool, "apply_async", lambda raw: _handing(raw, _APPLY)),
        Layer(pool.Pool, "_map_async", lambda raw: _handing(raw, _MAP)),
        Layer(pool.Pool, "imap", lambda raw: _handing(raw, "Pool.imap")),
        Layer(pool.Pool, "imap_unordered", lambda raw: _handing(raw, "Pool.imap_unordered")),
    ]


def _handing(original: Any, call: Any) -> Any:
    @functools.wraps(original)
    def hand(self: Any, func: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            if callable(func):
                func = observed(func, hand_off("multiprocessing", call, func))
        except Exception as error:
            state.fault("Pool", error)
        return original(self, func, *args, **kwargs)

    return hand


def _executor_layers(process: ModuleType) -> list[Layer]:
    chunk = process._process_chunk
    return [Layer(process.ProcessPoolExecutor, "submit", lambda raw: _submit(raw, chunk))]


def _submit(original: Any, process_chunk: Any) -> Any:
    @functools.wraps(original)
    def submit(self: Any, /, *args: Any, **kwargs: Any) -> Any:
        try:
            if args and callable(args[0]):
                args = (_in_process(args[0], process_chunk), *args[1:])
        except Exception as error:
            state.fault("submit", error)
        return original(self, *args, **kwargs)

    return submit


def _in_process(work: Any, process_chunk: Any) -> Any:
    if type(work) is functools.partial and work.func is process_chunk and len(work.args) == 1:
        each: Any = work.args[0]  # `map` submits a partial, and the library must recognize it
        return functools.partial(
            process_chunk, observed(each, hand_off("multiprocessing", _SUBMIT, each))
        )
    return observed(work, hand_off("multiprocessing", _SUBMIT, cast("Any", work)))


# Items: an object is pickled in the place of each. It unpickles to the item, and notes its arrival.


class _Sending:
    __slots__ = ("item", "record")

    def __init__(self, item: object, record: Record) -> None:
        self.item = item
        self.record = record

    def __reduce__(self) -> tuple[Any, ...]:
        return _received, (self.record, self.item)


def _sending(item: object, record: Record) -> _Sending:
    sending = _Sending(item, record)
    pending = trailers.outstanding()
    if pending is not None and pending[0] is item:  # the library will send a context behind it
        trailers.send(sending, pending[1])
    return sending


_received_by: dict[int, Record] = {}


def _received(record: Record, item: object) -> object:
    """Return ``item``, which is being unpickled, and note the hand-off that brought it."""
    if state.watching():
        _received_by[get_ident()] = record
    return item


def _queue_layers(queues: ModuleType) -> list[Layer]:
    return [
        Layer(queues.Queue, "put", lambda raw: _put(raw, "multiprocessing.Queue.put")),
        Layer(queues.JoinableQueue, "put", lambda raw: _put(raw, "JoinableQueue.put")),
        Layer(queues.SimpleQueue, "put", lambda raw: _put(raw, "multiprocessing.SimpleQueue.put")),
        Layer(queues.Queue, "get", _get),
        Layer(queues.SimpleQueue, "get", _get),
        Layer(queues.JoinableQueue, "task_done", item_hooks.finishing),
    ]


def _put(original: Any, call: str) -> Any:
    @functools.wraps(original)
    def put(self: Any, obj: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            if not item_hooks.is_plumbing(caller()) and not _is_executors(self):
                record = hand_off("multiprocessing", call)
                if record is not None and not state.alone:
                    obj = _sending(obj, record)
        except Exception as error:
            state.fault("put", error)
        return original(self, obj, *args, **kwargs)

    return put


def _is_executors(queue: Any) -> bool:
    return any(base.__module__ == "concurrent.futures.process" for base in type(queue).__mro__)


def _get(original: Any) -> Any:
    @functools.wraps(original)
    def get(self: Any, *args: Any, **kwargs: Any) -> Any:
        if item_hooks.is_plumbing(caller()) or _is_executors(self):
            return original(self, *args, **kwargs)
        has_its_own = flows.next_item()
        _received_by.pop(get_ident(), None)
        item = original(self, *args, **kwargs)
        record = _received_by.pop(get_ident(), None)
        if record is not None:
            source = item_hooks.records_of(self)
            flows.begin(record, source=source, adopted=not has_its_own)
        return item

    return get


# Forks.

_forking: dict[int, Record | None] = {}


def before_fork() -> None:
    """Note that this thread is about to fork, unless a watched call has noted that already."""
    try:
        if state.watching() and get_ident() not in _starting:
            _forking[get_ident()] = hand_off("fork", "os.fork", native=True)
    except Exception as error:
        state.fault("fork", error)


def after_fork_in_parent() -> None:
    """Remove the note of :func:`before_fork`."""
    _forking.pop(get_ident(), None)


def after_fork_in_child() -> Record | None:
    """Return the hand-off that made this process, if the program itself called ``fork``."""
    record = _forking.pop(get_ident(), None)
    _forking.clear()
    _received_by.clear()
    what = _starting.get(get_ident())
    _starting.clear()
    if what is not None:
        _starting[get_ident()] = what
    return record


def is_command() -> bool:
    """Whether this process was forked to become a command."""
    return _starting.get(get_ident()) == "command"


# Commands.


def _command_layers(subprocess: ModuleType) -> list[Layer]:
    return [Layer(subprocess.Popen, "__init__", _init)]


def _init(original: Any) -> Any:
    @functools.wraps(original)
    def init(self: Any, *args: Any, **kwargs: Any) -> None:
        try:
            record = hand_off("subprocess", _COMMANDS)
            if record is not None:
                args, kwargs = _telling_of(record, args, kwargs)
        except Exception as error:
            state.fault("Popen", error)
        _starting[get_ident()] = "command"
        try:
            original(self, *args, **kwargs)
        finally:
            _starting.pop(get_ident(), None)

    return init


def _telling_of(record: Record, args: Any, kwargs: Any) -> tuple[Any, Any]:
    given = args[_ENV] if len(args) > _ENV else kwargs.get("env")
    inherited = os.environ if given is None else given
    if reaches is None or not hasattr(inherited, "items") or not reaches(inherited):
        return args, kwargs  # the command is not watched, or `Popen` is about to raise
    environment = {**inherited, VARIABLE: json.dumps(record.facts())}
    if len(args) > _ENV:
        return (*args[:_ENV], environment, *args[_ENV + 1 :]), kwargs
    return args, {**kwargs, "env": environment}


def started_by() -> Record | None:
    """Return the hand-off that started this process, if it is a command. May raise."""
    encoded = os.environ.pop(VARIABLE, None)
    return None if encoded is None else Record(json.loads(encoded))


# Leaving.


def _os_layers(os: ModuleType) -> list[Layer]:
    def advice(original: Any, args: Any, kwargs: Any) -> Any:
        try:
            if state.watching():
                site = frames.site(sys._getframe(1)).line  # pyright: ignore[reportPrivateUsage]
                state.tell("process_end", at_ns=flows.now(), call="os._exit", site=site)
        except Exception as error:
            state.fault("_exit", error)
        return original(*args, **kwargs)

    return [Layer(os, "_exit", lambda raw: wrap_builtin(raw, advice))]


MODULES = {
    "multiprocessing.process": _process_layers,
    "multiprocessing.pool": _pool_layers,
    "multiprocessing.queues": _queue_layers,
    "concurrent.futures.process": _executor_layers,
    "subprocess": _command_layers,
    "os": _os_layers,
}
