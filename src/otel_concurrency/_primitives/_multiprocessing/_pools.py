"""``multiprocessing.Pool`` and ``multiprocessing.pool.ThreadPool``.

The context is captured when work is handed to the pool: once for a whole ``map``, once for each
``apply``. For a pool of processes, the function waits as a :class:`_WithHeaders` for the pool's
task thread, which takes it apart again: it sends the plain task, with headers behind its pickle. In
a ``ThreadPool`` the context itself travels. A worker attaches the context when it takes a task from
its queue, and detaches it when it has the result. In between it calls nothing but the user's
function.

The user's iterable is iterated over on the pool's task thread, and callbacks are called on another
thread. Both run in the context in which they were passed to the pool.

A pool's workers are shared. They start with an empty context, and return to it after each task.
"""

from __future__ import annotations

import functools
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

from opentelemetry.context import Context

from otel_concurrency._child_exit import flush
from otel_concurrency._core import handoff
from otel_concurrency._core.handoff import NO_CONTEXT, BodyCall, Call, Seam, capture_nothing
from otel_concurrency._core.patching import Layer
from otel_concurrency._crossing import trailers
from otel_concurrency._primitives._multiprocessing._turns import Turn

_LOOK_EVERY = 0.05
"""Seconds between two checks for workers whose exit their sentinel does not show."""


def _layers(pool: ModuleType, seam: Seam) -> list[Layer]:
    return [
        Layer(pool.Pool, "apply_async", lambda raw: _apply_async(raw, seam, pool.ThreadPool)),
        Layer(pool.Pool, "_map_async", lambda raw: _map_async(raw, seam)),
        Layer(pool.Pool, "_guarded_task_generation", lambda raw: _generation(raw, seam, pool)),
        Layer(pool.Pool, "_handle_tasks", _handle_tasks),
        Layer(pool.Pool, "_terminate_pool", lambda raw: _terminate_pool(raw, seam, pool)),
        Layer(pool.ApplyResult, "_set", _set_result),
        Layer(pool.MapResult, "_set", _set_chunk),
        Layer(pool, "worker", lambda raw: _worker(raw, seam)),
    ]


MODULES = {"multiprocessing.pool": _layers}


# Handing off.


class _Handed(BodyCall):
    """A callable on its way to a thread with its context.

    Workers take it apart. Only a worker that was started before instrumenting calls it as it is.
    """

    __slots__ = ()

    def take(self) -> tuple[Context | None, Callable[..., Any]]:
        """Return the context, once, and the callable."""
        context, self._context = self._context, None
        return context, self._function


class _WithHeaders(Call):
    """A callable on its way to a process, with the headers to append to its pickle."""

    __slots__ = ("trailer",)

    def __init__(self, function: Callable[..., Any], trailer: bytes) -> None:
        super().__init__(NO_CONTEXT, function)
        self.trailer = trailer


def _with_headers(function: Callable[..., Any], context: Context) -> _WithHeaders | None:
    trailer = trailers.pack(context) if context else None
    return None if trailer is None else _WithHeaders(function, trailer)


def _apply_async(original: Any, seam: Seam, thread_pool: type) -> Any:
    @functools.wraps(original)
    def apply_async(
        self: Any,
        func: Any,
        args: Any = (),
        kwds: Any = {},  # noqa: B006 - the signature of the plain one
        callback: Any = None,
        error_callback: Any = None,
    ) -> Any:
        if seam.capture is capture_nothing:
            return original(self, func, args, kwds, callback, error_callback)
        call: Call | None = None
        if isinstance(self, thread_pool):
            call = handoff.call(seam, func, _Handed) if callable(func) else None
        elif callable(func):
            try:
                call = _with_headers(func, seam.capture(func) or NO_CONTEXT)
            except Exception as error:
                handoff.report_fault("apply_async", error)
        if callback is not None:
            callback = _registered(seam, callback)
        if error_callback is not None:
            error_callback = _registered(seam, error_callback)
        try:
            work = func if call is None else call
            return original(self, work, args, kwds, callback, error_callback)
        except BaseException:
            _release(call, callback, error_callback)
            raise

    return apply_async


def _map_async(original: Any, seam: Seam) -> Any:
    @functools.wraps(original)
    def _map_async(
        self: Any,
        func: Any,
        iterable: Any,
        mapper: Any,
        chunksize: Any = None,
        callback: Any = None,
        error_callback: Any = None,
    ) -> Any:
        callback, error_callback = _registered(seam, callback), _registered(seam, error_callback)
        try:
            result = original(self, func, iterable, mapper, chunksize, callback, error_callback)
        except BaseException:
            _release(callback, error_callback)
            raise
        if result._event.is_set():  # the iterable was empty, so no callback will be called
            _release(callback, error_callback)
        return result

    return _map_async


def _generation(original: Any, seam: Seam, pool: Any) -> Any:
    @functools.wraps(original)
    def _guarded_task_generation(self: Any, result_job: Any, func: Any, iterable: Any) -> Any:
        tasks = original(self, result_job, func, iterable)
        if not seam.active:
            return tasks
        try:
            chunked = func is pool.mapstar or func is pool.starmapstar
            work = _function_of(iterable) if chunked else func
            context = seam.capture(work)
            call: Callable[[], Call | None]
            if context is None or not callable(func):
                call = _no_call
            elif isinstance(self, pool.ThreadPool):
                call = functools.partial(_Handed, context, func)
            else:
                wrapped = _with_headers(func, context)
                call = lambda: wrapped  # noqa: E731
            return _in_context(tasks, func, context or NO_CONTEXT, call)
        except Exception as error:
            handoff.report_fault("map", error)
            return tasks

    return _guarded_task_generation


def _no_call() -> None:
    return None


def _function_of(chunks: Any) -> Any:
    """Return the user's function, which the generator ``chunks`` holds in its frame."""
    frame = getattr(chunks, "gi_frame", None)
    return None if frame is None else frame.f_locals.get("func")


def _in_context(
    tasks: Iterator[Any], func: Any, context: Context, call: Callable[[], Call | None]
) -> Iterator[Any]:
    """Yield the tasks, each computed in ``context``, with ``func`` replaced by ``call()``."""
    while True:
        task = Call(context, next)(tasks, None)
        if task is None:
            return
        if task[2] is func:
            try:
                work = call()
            except Exception as error:
                handoff.report_fault("map", error)
                work = None
            if work is not None:
                task = (task[0], task[1], work, task[3], task[4])
        yield task
        task = work = None


def _handle_tasks(original: Any) -> Any:
    plain = original.__get__(None, object)

    @functools.wraps(plain)
    def _handle_tasks(taskqueue: Any, put: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            put = _putting(put)
        except Exception as error:
            handoff.report_fault("send a task", error)
        return plain(taskqueue, put, *args, **kwargs)

    return staticmethod(_handle_tasks)


def _putting(put: Any) -> Any:
    """Return a function that puts plain tasks by ``put``, with headers behind them if possible."""
    pipe: Any = getattr(put, "__self__", None)
    if type(pipe).__module__ in _IN_PROCESS:
        return put
    connection: Any = sys.modules[type(pipe).__module__]
    base = getattr(connection, "_ConnectionBase", None)
    sends = base is not None and isinstance(pipe, base) and put == pipe.send

    def put_task(task: Any) -> Any:
        if task is None or type(wrapped := task[2]) is not _WithHeaders:
            return put(task)
        task = (task[0], task[1], wrapped.__wrapped__, task[3], task[4])
        if not sends:
            return put(task)
        message = connection._ForkingPickler.dumps(task)
        return pipe.send_bytes(b"".join((message, wrapped.trailer)))

    return put_task


# Callbacks.


def _registered(seam: Seam, callback: Any) -> Any:
    """Return a callback that will be called in the current context, even if that is empty."""
    try:
        if not seam.active or not callable(callback):
            return callback
        return handoff.call(seam, callback) or Call(NO_CONTEXT, callback)
    except Exception as error:
        handoff.report_fault("register a callback", error)
        return callback


def _release(*calls: Any) -> None:
    try:
        for call in calls:
            if isinstance(call, Call):
                call.release()
    except Exception as error:
        handoff.report_fault("release", error)


def _set_result(original: Any) -> Any:
    @functools.wraps(original)
    def _set(self: Any, i: Any, obj: Any) -> Any:
        try:
            return original(self, i, obj)
        finally:
            try:
                if self._callback is not None or self._error_callback is not None:
                    _release_when_done(self)
            except Exception as error:
                handoff.report_fault("release", error)

    return _set


def _set_chunk(original: Any) -> Any:
    @functools.wraps(original)
    def _set(self: Any, i: Any, success_result: Any) -> Any:
        try:
            return original(self, i, success_result)
        finally:
            try:
                if self._callback is not None or self._error_callback is not None:
                    _release_when_done(self)
            except Exception as error:
                handoff.report_fault("release", error)

    return _set


def _release_when_done(result: Any) -> None:
    """Release the callbacks of a result, once it is there. May raise."""
    if result._event.is_set():  # one of the callbacks was called; the other will never be
        _release(result._callback, result._error_callback)


# The workers.


def _worker(original: Any, seam: Seam) -> Any:
    @functools.wraps(original)
    def worker(inqueue: Any, outqueue: Any, *args: Any, **kwargs: Any) -> Any:
        if not seam.active:
            return original(inqueue, outqueue, *args, **kwargs)
        token = handoff.attach_safely(NO_CONTEXT) if handoff.current_safely() else None
        turn = Turn()
        receives = _Inqueue if inqueue.__class__.__module__ in _IN_PROCESS else _Pipe
        try:
            return original(receives(inqueue, turn), _Outqueue(outqueue, turn), *args, **kwargs)
        finally:
            turn.end()
            handoff.leave(token)
            token = None

    return worker


class _Inqueue:
    """Wraps the queue from which a worker takes its tasks, and restores their plain form.

    Whoever waits for a result goes on when the worker waits for its next task: so there is as
    little as possible in between.
    """

    def __init__(self, plain: Any, turn: Turn) -> None:
        self._plain = plain
        self._turn = turn

    def __getattr__(self, name: str) -> Any:
        return getattr(self._plain, name)

    def get(self) -> Any:
        """Return the next task, and attach its context."""
        turn = self._turn
        if handoff.current_safely() is not turn.base:
            turn.end()
        task = self._plain.get()
        if task is not None and type(task[2]) is _Handed:
            context, function = task[2].take()
            task = (task[0], task[1], function, task[3], task[4])
            if context is not None:
                turn.begin(context)
        return task


class _Pipe(_Inqueue):
    """The same for a worker that is a process."""

    def __init__(self, plain: Any, turn: Turn) -> None:
        super().__init__(plain, turn)
        self._last: tuple[bytes | None, Context | None] = (None, None)
        """The headers of the last task with their context: all chunks of a ``map`` share one."""

    def get(self) -> Any:
        """Return the next task, and attach its context."""
        self._turn.end()
        task, trailer = trailers.receive(self._plain.get)
        if trailer is not None:
            if trailer != self._last[0]:
                self._last = trailer, trailers.unpack(trailer)
            if self._last[1] is not None:
                self._turn.begin(self._last[1])
        return task


_IN_PROCESS = ("_queue", "queue")
"""The modules of a ``ThreadPool``'s queues, which pickle nothing."""


class _Outqueue:
    """Wraps the queue to which a worker puts its results."""

    def __init__(self, plain: Any, turn: Turn) -> None:
        self._plain = plain
        self._turn = turn

    def __getattr__(self, name: str) -> Any:
        return getattr(self._plain, name)

    def put(self, result: Any) -> None:
        """Detach the context of the task that has ended, and put its result."""
        self._turn.end()
        self._plain.put(result)


# The end.


def _terminate_pool(original: Any, seam: Seam, module: Any) -> Any:
    plain = original.__func__

    @functools.wraps(plain)
    def _terminate_pool(
        cls: Any,
        taskqueue: Any,
        inqueue: Any,
        outqueue: Any,
        pool: Any,
        change_notifier: Any,
        worker_handler: Any,
        task_handler: Any,
        result_handler: Any,
        cache: Any,
    ) -> None:
        handlers = worker_handler, task_handler, result_handler
        try:
            if seam.active and flush.is_needed():
                _let_idle_ones_leave(module, pool, change_notifier, handlers, cache)
        except Exception as error:
            handoff.report_fault("terminate", error)
        finally:
            plain(cls, taskqueue, inqueue, outqueue, pool, change_notifier, *handlers, cache)

    return classmethod(_terminate_pool)


def _let_idle_ones_leave(
    pool: Any, workers: Any, change_notifier: Any, handlers: tuple[Any, Any, Any], cache: Any
) -> None:
    """Let idle workers exit by themselves, so that they export what they have recorded.

    ``close()`` works the same way: the handler threads stop one after the other, and make every
    worker exit. Every wait has a time limit. A pool that has pending work, or a handler thread that
    has failed, is left as it is.
    """
    if cache or not workers or not hasattr(workers[0], "terminate"):
        return
    if threading.get_ident() in [handler.ident for handler in handlers]:
        return  # a handler thread dropped the last reference to the pool; it cannot join itself
    worker_handler = handlers[0]
    if worker_handler.is_alive():
        if not all(handler.is_alive() for handler in handlers):
            return
    elif worker_handler._state == pool.RUN:
        return
    deadline = time.monotonic() + flush.timeout / 1000
    worker_handler._state = pool.CLOSE
    change_notifier.put(None)
    worker_handler.join(flush.timeout / 1000)
    if worker_handler.is_alive():
        return
    waiting = list(workers)
    while waiting and not cache:
        left = deadline - time.monotonic()
        if left <= 0:
            break
        # A child process of a worker may outlive it and hold the worker's sentinel open.
        gone = pool.wait([worker.sentinel for worker in waiting], min(left, _LOOK_EVERY))
        waiting = [one for one in waiting if one.exitcode is None and one.sentinel not in gone]
    if not handlers[2].is_alive():
        cache.clear()  # work submitted meanwhile is lost, as always when a pool is terminated
