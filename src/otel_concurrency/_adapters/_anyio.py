"""anyio: memory object streams, which are queues of tasks, and worker processes.

The setting ASYNCIO covers streams, under trio too, and MULTIPROCESSING covers ``to_process``.
Tasks, threads and portals of anyio carry context natively.

anyio kills its worker processes when the event loop ends. With this adapter, an idle worker is
first asked to exit, so that it exports what it has recorded.
"""

from __future__ import annotations

import functools
import os
import signal
import threading
import weakref
from collections.abc import Callable
from types import ModuleType
from typing import Any

from otel_concurrency._child_exit import flush
from otel_concurrency._core import handoff
from otel_concurrency._core.handoff import NO_CONTEXT, Call, Seam
from otel_concurrency._core.patching import Layer, Patch
from otel_concurrency._crossing import pickled_calls
from otel_concurrency._crossing.carrier import Headers
from otel_concurrency._items.channels import Channels, Kind

TESTED = ("4.4.0", "4.16.0")


def _layers(memory: ModuleType, seam: Seam) -> list[Patch]:
    return [
        Channels(
            seam,
            Kind(
                memory.MemoryObjectSendStream,
                memory.MemoryObjectReceiveStream,
                items=lambda state: [*state.buffer, *state.waiting_senders.values()],
                size=lambda state: len(state.buffer) + len(state.waiting_senders),
                senders=lambda state: list(state.waiting_senders),
                waiting=lambda state: tuple(state.waiting_receivers.values()),
                given=_given,
                task=lambda: memory.get_current_task().id,
            ),
        )
    ]


def _given(state: Any, receivers: tuple[Any, ...]) -> int | None:
    """Return the task of the receiver that gets the item; cancelled receivers get none."""
    return next((one.task_info.id for one in receivers if hasattr(one, "item")), None)


def _process_layers(to_process: ModuleType, seam: Seam) -> list[Patch]:
    return [
        Layer(to_process, "pickle", lambda raw: _Pickle(raw, seam)),
        Layer(to_process, "open_process", lambda raw: _open_process(raw, seam)),
    ]


MODULES = {
    "asyncio": {"anyio.streams.memory": _layers},
    "multiprocessing": {"anyio.to_process": _process_layers},
}


class _Pickle:
    """Replaces the module ``pickle`` where anyio pickles commands for a worker."""

    def __init__(self, plain: Any, seam: Seam) -> None:
        self._plain = plain
        self._seam = seam

    def __getattr__(self, name: str) -> Any:
        return getattr(self._plain, name)

    def dumps(self, obj: Any, *args: Any, **kwargs: Any) -> Any:
        """Pickle a command; a command that runs a function gets the current context."""
        if obj[0] == "run":
            command, function, arguments = obj
            obj = command, pickled_calls.portable(self._seam, function, __name__), arguments
        return self._plain.dumps(obj, *args, **kwargs)


def _open_process(original: Any, seam: Seam) -> Any:
    @functools.wraps(original)
    async def open_process(*args: Any, **kwargs: Any) -> Any:
        process = await original(*args, **kwargs)
        if seam.active and flush.timeout > 0:
            process.kill = _Kill(weakref.ref(process))
        return process

    return open_process


class _Kill:
    """Ends a worker in two steps: asks it to exit, and kills it after a timeout."""

    def __init__(self, process: weakref.ref[Any]) -> None:
        self._process = process
        self._is_asked = False

    def __call__(self) -> None:
        process: Any = self._process()
        if self._is_asked or process is None:
            return
        self._is_asked = True
        try:
            timer = threading.Timer(flush.timeout / 1000, self._kill_if_alive)
            timer.daemon = True
            Call(NO_CONTEXT, timer.start)()
        except Exception as error:
            handoff.report_fault("end a worker", error)
            process.__class__.kill(process)
        else:
            process.terminate()

    def _kill_if_alive(self) -> None:
        process: Any = self._process()
        if process is not None and process.returncode is None:
            os.kill(process.pid, getattr(signal, "SIGKILL", signal.SIGTERM))


# In the worker.


def received(function: Callable[..., Any], headers: Headers | None) -> Callable[..., Any]:
    """Return a callable that runs ``function`` in the context of ``headers``.

    After it, the worker can exit when it is asked to.
    """
    call = pickled_calls.received(function, headers)

    def run(*args: Any) -> Any:
        _stay()
        try:
            return call(*args)
        finally:
            _be_ready_to_leave()

    return run


def _be_ready_to_leave() -> None:
    try:
        if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
            signal.signal(signal.SIGTERM, _leave)
    except Exception as error:
        handoff.report_fault("be ready to leave", error)


def _stay() -> None:
    try:
        if signal.getsignal(signal.SIGTERM) is _leave:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
    except Exception as error:
        handoff.report_fault("stay", error)


def _leave(number: int, frame: object) -> None:
    """End the worker's loop. Nothing reads its answers any more."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    raise SystemExit
