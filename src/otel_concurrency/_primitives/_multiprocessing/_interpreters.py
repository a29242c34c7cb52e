"""``InterpreterPoolExecutor`` (3.14+): from a worker's thread into the interpreter that it drives.

Such a pool is a thread pool, and the primitive ``futures`` attaches the context on its threads.
Interpreters share no objects, so a thread sends the context to its interpreter as headers, in a
queue beside the task; the task itself is not changed. The interpreter is instrumented first. It
takes the headers from the queue when it calls the task. If it cannot import this library, the task
runs without a context.
"""

from __future__ import annotations

import functools
from types import ModuleType
from typing import Any

from otel_concurrency import _settings
from otel_concurrency._core import handoff
from otel_concurrency._core.handoff import NO_CONTEXT, BodyCall, Seam
from otel_concurrency._core.patching import Layer
from otel_concurrency._crossing import carrier

_OUTBOX = "_otel_concurrency_outbox"

_INSTRUMENT = """\
from otel_concurrency import _child
from otel_concurrency._primitives._multiprocessing import _interpreters
_child.instrument(settings)
_interpreters.inbox = inbox
"""

inbox: Any = None
"""In a pool's interpreter: the queue with the headers of the next task. Otherwise None."""


def _layers(interpreter: ModuleType, seam: Seam) -> list[Layer]:
    interpreters = interpreter.interpreters
    return [
        Layer(interpreter.WorkerContext, "run", lambda raw: _run(raw, seam, interpreters)),
        Layer(interpreter, "do_call", lambda raw: _do_call(raw, interpreters)),
    ]


MODULES = {"concurrent.futures.interpreter": _layers}


def _run(original: Any, seam: Seam, interpreters: Any) -> Any:
    @functools.wraps(original)
    def run(self: Any, task: Any) -> Any:
        if not seam.active:
            return original(self, task)
        outbox = _outbox_of(self, task, interpreters)
        headers = carrier.capture(seam, task[0]) if outbox else None
        if headers is None:
            return original(self, task)
        _give(outbox, headers)
        try:
            return original(self, task)
        finally:
            _take(outbox, interpreters)  # still there if the task could not be sent

    return run


def _outbox_of(worker: Any, task: Any, interpreters: Any) -> Any:
    """Return the queue for headers to the interpreter of ``worker``, or False where it has none.

    The first call instruments the interpreter. If that fails before the pool's initializer has run,
    it is tried again later, since the initializer may make more modules importable.
    """
    outbox = worker.__dict__.get(_OUTBOX)
    if outbox is None and _settings.in_force is not None:
        try:
            outbox = interpreters.create_queue()
            settings = _settings.in_force.as_keywords()
            worker.interp.call(exec, _INSTRUMENT, {"settings": settings, "inbox": outbox})
        except Exception as error:
            if task is worker.initdata:
                return False
            handoff.report_fault("instrument an interpreter", error)
            outbox = False
        worker.__dict__[_OUTBOX] = outbox
    return outbox


def _do_call(original: Any, interpreters: Any) -> Any:
    @functools.wraps(original)
    def do_call(*args: Any, **kwargs: Any) -> Any:
        if inbox is None:
            return original(*args, **kwargs)
        headers = _take(inbox, interpreters)
        return BodyCall(carrier.unpack_safely(headers) or NO_CONTEXT, original)(*args, **kwargs)

    return do_call


def _take(box: Any, interpreters: Any) -> Any:
    try:
        return box.get_nowait()
    except interpreters.QueueEmpty:
        return None
    except Exception as error:
        handoff.report_fault("get", error)
        return None


def _give(box: Any, headers: Any) -> None:
    try:
        box.put(headers)
    except Exception as error:
        handoff.report_fault("put", error)
