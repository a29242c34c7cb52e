"""ray: tasks, actors and their methods, in workers on this host and on others.

The setting MULTIPROCESSING covers them, since workers are processes. Ray sends the arguments of a
call as one list of names and values; the headers are one more pair at its end. A worker that gets
them is switched on like the process that sent them, before the function is called; without this
library it drops the pair.

All that a worker does for a call happens inside its ``_changeproctitle``, from the arguments to the
last result. From there an asynchronous actor hands its coroutine to an event loop, which gives it a
copy of the current context. Such an actor begins several calls in turns on one thread (on fibers),
so the context is set there just before the call, and never put back by a token.
"""

from __future__ import annotations

import functools
import importlib
import threading
from _thread import get_ident
from types import ModuleType
from typing import Any

from opentelemetry.context import Context

from otel_concurrency import _settings
from otel_concurrency._core import handoff
from otel_concurrency._core.handoff import NO_CONTEXT, Seam
from otel_concurrency._core.patching import Layer, Patch
from otel_concurrency._crossing import carrier
from otel_concurrency._crossing.carrier import Headers

TESTED = ("2.60.0", "2.60.0")

_NAME = "_otel_concurrency_headers"
"""The name in the pair, and the mark of a ``recover_args`` that takes the pair away."""

_RECEIVER = """\
def receive():
    from functools import wraps
    from ray._common import signature
    original, to_do = signature.recover_args, [settings]
    if hasattr(original, name):
        return
    @wraps(original)
    def recover_args(flattened_args):
        if flattened_args[-2:-1] == [name]:
            if to_do:
                try:
                    from otel_concurrency import _child
                    _child.instrument(to_do.pop())
                except Exception:
                    pass
                if signature.recover_args is not recover_args:
                    return signature.recover_args(flattened_args)
            flattened_args = flattened_args[:-2]
        return original(flattened_args)
    setattr(recover_args, name, True)
    signature.recover_args = recover_args
receive()
"""
"""What a worker runs that unpickles headers for the first time. The library is switched on later,
when the pair is taken away: Ray replaces ``signal.signal`` while it unpickles."""

_UNPICKLED = (
    "headers if hasattr(__import__('ray')._common.signature.recover_args, name)"
    " else (exec(text, globals()), headers)[1]"
)


def _function_layers(remote_function: ModuleType, seam: Seam) -> list[Patch]:
    return [Layer(remote_function.RemoteFunction, "_remote", lambda raw: _remote(raw, seam))]


def _actor_layers(actor: ModuleType, seam: Seam) -> list[Patch]:
    return [
        Layer(actor.ActorClass, "_remote", lambda raw: _remote(raw, seam)),
        Layer(actor.ActorMethod, "_remote", lambda raw: _remote(raw, seam)),
    ]


def _signature_layers(signature: ModuleType, seam: Seam) -> list[Patch]:
    return [
        Layer(signature, "flatten_args", _flatten_args),
        Layer(signature, "recover_args", lambda raw: _recover_args(raw, seam)),
    ]


def _worker_layers(worker: ModuleType, seam: Seam) -> list[Patch]:
    return [Layer(worker, "_changeproctitle", lambda raw: _changeproctitle(raw, seam))]


MODULES = {
    "multiprocessing": {
        "ray._common.signature": _signature_layers,
        "ray._private.worker": _worker_layers,
        "ray.actor": _actor_layers,
        "ray.remote_function": _function_layers,
    }
}


class _Arguments(tuple[Any, ...]):
    """The positional arguments of a call, and its headers.

    They are true also where there are none, since Ray does not flatten what is not.
    """

    headers: _PortableHeaders

    def __bool__(self) -> bool:
        return True

    def __reduce__(self) -> tuple[Any, ...]:
        return tuple, (list(self),)


class _PortableHeaders:
    """Headers that unpickle to the plain ones, where the pair will be taken away."""

    __slots__ = ("_scope",)

    def __init__(self, headers: Headers, settings: _settings.Settings) -> None:
        self._scope = {
            "headers": headers,
            "settings": settings.as_keywords(),
            "name": _NAME,
            "text": _RECEIVER,
        }

    def __reduce__(self) -> tuple[Any, ...]:
        return eval, (_UNPICKLED, self._scope)


def _remote(original: Any, seam: Seam) -> Any:
    @functools.wraps(original)
    def _remote(self: Any, args: Any = None, kwargs: Any = None, *more: Any, **options: Any) -> Any:
        return original(self, _with_headers(seam, self, args), kwargs, *more, **options)

    return _remote


def _with_headers(seam: Seam, work: Any, args: Any) -> Any:
    try:
        settings = _settings.in_force
        if not seam.active or settings is None or type(args) not in (tuple, list, type(None)):
            return args
        headers = carrier.capture(seam, getattr(work, "_function", work))
        if headers is None:
            return args
        found = _Arguments(args or ())
        found.headers = _PortableHeaders(headers, settings)
        return found
    except Exception as error:
        handoff.report_fault("capture", error)
        return args


def _flatten_args(original: Any) -> Any:
    @functools.wraps(original)
    def flatten_args(signature_parameters: Any, args: Any, kwargs: Any) -> Any:
        flat = original(signature_parameters, args, kwargs)
        return [*flat, _NAME, args.headers] if type(args) is _Arguments else flat

    return flatten_args


def _recover_args(original: Any, seam: Seam) -> Any:
    @functools.wraps(original)
    def recover_args(flattened_args: Any) -> Any:
        headers = None
        if flattened_args[-2:-1] == [_NAME]:
            headers, flattened_args = flattened_args[-1], flattened_args[:-2]
        if seam.active and (headers or _present.takes_turns):
            _enter(headers)
        return original(flattened_args)

    setattr(recover_args, _NAME, True)
    return recover_args


def _enter(headers: Headers | None) -> None:
    try:
        _be_in(carrier.unpack_safely(headers) or NO_CONTEXT)
    except Exception as error:
        handoff.report_fault("attach", error)


class _Present(threading.local):
    """What holds for the call that this thread begins."""

    takes_turns = False
    """Whether other calls may have begun on this thread since then."""


_present = _Present()


def _changeproctitle(original: Any, seam: Seam) -> Any:
    @functools.wraps(original)
    def _changeproctitle(title: Any, next_title: Any) -> Any:
        manager = original(title, next_title)
        return _Execution(manager) if seam.active else manager

    return _changeproctitle


class _Execution:
    """Around a call of Ray's: what it does begins and ends in no context."""

    def __init__(self, manager: Any) -> None:
        self._manager = manager

    def __enter__(self) -> Any:
        _begin()
        return self._manager.__enter__()

    def __exit__(self, *exc_info: Any) -> Any:
        try:
            return self._manager.__exit__(*exc_info)
        finally:
            _end()


def _begin() -> None:
    try:
        ray: Any = importlib.import_module("ray._private.worker")
        _present.takes_turns = ray.global_worker.core_worker.current_actor_is_asyncio()
        _be_in(NO_CONTEXT)
    except Exception as error:
        handoff.report_fault("attach", error)


def _end() -> None:
    try:
        _be_in(NO_CONTEXT)
        del handoff.bodies[get_ident()]
    except Exception as error:
        handoff.report_fault("detach", error)


def _be_in(context: Context) -> None:
    """Make ``context`` that of the call which this thread begins, or ends."""
    handoff.begin_in(context)
    handoff.bodies[get_ident()] = context
