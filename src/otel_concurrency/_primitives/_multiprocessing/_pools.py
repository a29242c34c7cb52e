"""``multiprocessing.Pool`` and ``multiprocessing.pool.ThreadPool``.

A call is captured where it is handed to the pool: once for a whole ``map``, once for each
``apply``. What waits for the pool's own thread is a :class:`_Sent`, which that thread takes apart
again: the process is sent the plain task, with headers behind its pickle. Within one process it is
the context itself that travels. A worker is in the context of a task from the moment it takes that
from its queue until it has the result, and calls nothing but the user's function.

What the user iterates over is computed in the pool's own thread, and callbacks are called in
another: in the context that they were handed over in.

A pool's workers belong to nobody. They start clean, and are clean again when they wait.
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
from otel_concurrency._core.handoff import NO_CONTEXT, BodyCall, Call, Seam
from otel_concurrency._core.patching import Layer
from otel_concurrency._crossing import carrier, trailers
from otel_concurrency._primitives._multiprocessing._turns import Turn

_LOOK_EVERY = 0.05
"""Seconds after which it is looked again who has left, where nobody has said so."""


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
    """A callable on its way to a thread; only a worker from before has to call it as it is."""

    __slots__ = ()

    def take(self) -> Context | None:
        """Return the context, once."""
        context, self._context = self._context, None
        return context


class _Sent(Call):
    """A callable on its way to a process, with the headers that are to follow its pickle."""

    __slots__ = ("trailer",)

    def __init__(self, function: Callable[..., Any], trailer: bytes) -> None:
        super().__init__(NO_CONTEXT, function)
        self.trailer = trailer


def _sent(function: Callable[..., Any], context: Context) -> _Sent | None:
    headers = carrier.pack(context) if context else None
    return None if headers is None else _Sent(function, trailers.pack(headers))


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
        if not seam.active:
            return original(self, func, args, kwds, callback, error_callback)
        call: Call | None = None
        if isinstance(self, thread_pool):
            call = handoff.call(seam, func, _Handed) if callable(func) else None
        elif callable(func):
            try:
                call = _sent(func, seam.capture(func) or NO_CONTEXT)
            except Exception as error:
                handoff.report("apply_async", error)
        callback, error_callback = _registered(seam, callback), _registered(seam, error_callback)
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
        if result._event.is_set():  # there was nothing to do, and nobody will be called back
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
                sent = _sent(func, context)
                call = lambda: sent  # noqa: E731
            return _in_context(tasks, func, context or NO_CONTEXT, call)
        except Exception as error:
            handoff.report("map", error)
            return tasks

    return _guarded_task_generation


def _no_call() -> None:
    return None


def _function_of(chunks: Any) -> Any:
    """Return the user's function that a generator of chunks was made with."""
    frame = getattr(chunks, "gi_frame", None)
    return None if frame is None else frame.f_locals.get("func")


def _in_context(
    tasks: Iterator[Any], func: Any, context: Context, call: Callable[[], Call | None]
) -> Iterator[Any]:
    """Yield tasks, computed in ``context``, with ``call()`` in the place of ``func``."""
    while True:
        task = Call(context, next)(tasks, None)
        if task is None:
            return
        if task[2] is func:
            try:
                work = call()
            except Exception as error:
                handoff.report("map", error)
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
            handoff.report("send a task", error)
        return plain(taskqueue, put, *args, **kwargs)

    return staticmethod(_handle_tasks)


def _putting(put: Any) -> Any:
    """Return what puts plain tasks by ``put``, and headers behind them where it can."""
    pipe: Any = getattr(put, "__self__", None)
    connection: Any = sys.modules[type(pipe).__module__]
    base = getattr(connection, "_ConnectionBase", None)
    sends = base is not None and isinstance(pipe, base) and put == pipe.send

    def put_task(task: Any) -> Any:
        if task is None or type(sent := task[2]) is not _Sent:
            return put(task)
        task = (task[0], task[1], sent.__wrapped__, task[3], task[4])
        if not sends:
            return put(task)
        message = connection._ForkingPickler.dumps(task)
        return pipe.send_bytes(b"".join((message, sent.trailer)))

    return put_task


# Callbacks.


def _registered(seam: Seam, callback: Any) -> Any:
    """Return a callback that is called in the context of now, also where that is none."""
    try:
        if not seam.active or not callable(callback):
            return callback
        return handoff.call(seam, callback) or Call(NO_CONTEXT, callback)
    except Exception as error:
        handoff.report("register a callback", error)
        return callback


def _release(*calls: Any) -> None:
    try:
        for call in calls:
            if isinstance(call, Call):
                call.release()
    except Exception as error:
        handoff.report("release", error)


def _set_result(original: Any) -> Any:
    @functools.wraps(original)
    def _set(self: Any, i: Any, obj: Any) -> Any:
        try:
            return original(self, i, obj)
        finally:
            _release_when_done(self)

    return _set


def _set_chunk(original: Any) -> Any:
    @functools.wraps(original)
    def _set(self: Any, i: Any, success_result: Any) -> Any:
        try:
            return original(self, i, success_result)
        finally:
            _release_when_done(self)

    return _set


def _release_when_done(result: Any) -> None:
    if result._event.is_set():  # one of the two was called, and none will be
        _release(result._callback, result._error_callback)


# The workers.


def _worker(original: Any, seam: Seam) -> Any:
    @functools.wraps(original)
    def worker(inqueue: Any, outqueue: Any, *args: Any, **kwargs: Any) -> Any:
        if not seam.active:
            return original(inqueue, outqueue, *args, **kwargs)
        token = handoff.attach_safely(NO_CONTEXT) if handoff.current_safely() else None
        turn = Turn()
        try:
            return original(_Inqueue(inqueue, turn), _Outqueue(outqueue, turn), *args, **kwargs)
        finally:
            turn.end()
            handoff.leave(token)
            token = None

    return worker


class _Inqueue:
    """The queue that a worker takes its tasks from, which are plain again when they come out."""

    def __init__(self, plain: Any, turn: Turn) -> None:
        self._plain = plain
        self._turn = turn
        self._last: tuple[bytes | None, Context | None] = (None, None)
        """What came with the last task, unpacked: all chunks of one ``map`` have the same."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._plain, name)

    def get(self) -> Any:
        """Return the next task, in its context."""
        self._turn.end()
        task, trailer = trailers.receive(self._plain.get)
        context = None
        if trailer is not None:
            if trailer != self._last[0]:
                self._last = trailer, trailers.unpack(trailer)
            context = self._last[1]
        elif task is not None and type(task[2]) is _Handed:
            handed = task[2]
            context = handed.take()
            task = (task[0], task[1], handed.__wrapped__, task[3], task[4])
        if context is not None:
            self._turn.begin(context)
        return task


class _Outqueue:
    """The queue that a worker puts its results to."""

    def __init__(self, plain: Any, turn: Turn) -> None:
        self._plain = plain
        self._turn = turn

    def __getattr__(self, name: str) -> Any:
        return getattr(self._plain, name)

    def put(self, result: Any) -> None:
        """Put a result, when its task is over."""
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
            handoff.report("terminate", error)
        finally:
            plain(cls, taskqueue, inqueue, outqueue, pool, change_notifier, *handlers, cache)

    return classmethod(_terminate_pool)


def _let_idle_ones_leave(
    pool: Any, workers: Any, change_notifier: Any, handlers: tuple[Any, Any, Any], cache: Any
) -> None:
    """Let workers that have nothing to do leave by themselves, with what they have recorded.

    It is what ``close()`` does: the handlers, one after the other, stop, and send every worker
    home. Nothing is waited for without a limit. A pool with work outstanding, or of which a handler
    has failed, is left as it is.
    """
    if cache or not workers or not hasattr(workers[0], "terminate"):
        return
    if threading.current_thread() in handlers:
        return  # it is the last one to let go of the pool, and cannot wait for itself
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
        # A process that a worker has left behind may hold its sentinel open.
        gone = pool.wait([worker.sentinel for worker in waiting], min(left, _LOOK_EVERY))
        waiting = [one for one in waiting if one.exitcode is None and one.sentinel not in gone]
    if not handlers[2].is_alive():
        cache.clear()  # what came in meanwhile is lost, as it is when a pool is terminated
