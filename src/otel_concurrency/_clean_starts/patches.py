"""Has the functions and tasks of the table start clean, in the libraries that a program imports.

Only what is in the table is touched: neither the making of a task nor that of a callback costs
anything more, since the functions themselves see to it that they begin in no context.
"""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable, Iterable, Mapping
from types import ModuleType
from typing import Any

from otel_concurrency._clean_starts.functions import FLOWS, TASKS
from otel_concurrency._core import handoff
from otel_concurrency._core.callers import caller
from otel_concurrency._core.handoff import NO_CONTEXT, Seam
from otel_concurrency._core.patching import Layer, Patch

_Advice = Callable[[ModuleType, Seam], "list[Patch]"]
_Wrap = Callable[[Any, Seam], Any]

_RUNS_FOR_OTHERS = "anyio."
"""How the modules begin of which a coroutine is what a task runs in order to run another one."""


def _layers(module: ModuleType, seam: Seam) -> list[Patch]:
    name = module.__name__
    flows = _found(module, FLOWS.get(name, ()))
    tasks = _found(module, TASKS.get(name, ()))
    return [
        *(Layer(owner, name, _wrapping(_flow, seam)) for owner, name in flows),
        *(Layer(owner, name, _wrapping(_task, seam)) for owner, name in tasks),
    ]


MODULES: Mapping[str, Callable[[ModuleType, Seam], list[Patch]]] = dict.fromkeys(
    (*FLOWS, *TASKS), _layers
)


def _wrapping(wrap: _Wrap, seam: Seam) -> Callable[[Any], Any]:
    return lambda raw: wrap(raw, seam)


def _found(module: ModuleType, names: Iterable[str]) -> list[tuple[Any, str]]:
    """Return the owners and names of those functions that this version of the library has."""
    found: list[tuple[Any, str]] = []
    for qualname in names:
        *path, name = qualname.split(".")
        owner: Any = module
        for part in path:
            owner = getattr(owner, part, None)
        if callable(getattr(owner, "__dict__", _NOTHING).get(name)):
            found.append((owner, name))
    return found


_NOTHING: Mapping[str, Any] = {}


def _flow(original: Any, seam: Seam) -> Any:
    if inspect.iscoroutinefunction(original):
        return _asynchronous_flow(original, seam)

    @functools.wraps(original)
    def flow(*args: Any, **kwargs: Any) -> Any:
        if seam.active and handoff.current_safely():
            return handoff.as_flow_that_begins(NO_CONTEXT, original, *args, **kwargs)
        return original(*args, **kwargs)

    return flow


def _asynchronous_flow(original: Any, seam: Seam) -> Any:
    @functools.wraps(original)
    async def flow(*args: Any, **kwargs: Any) -> Any:
        clean = seam.active and handoff.current_safely()
        token = handoff.attach_safely(NO_CONTEXT) if clean else None
        try:
            return await original(*args, **kwargs)
        finally:
            handoff.leave(token)

    return flow


def _task(original: Any, seam: Seam) -> Any:
    @functools.wraps(original)
    async def begin(*args: Any, **kwargs: Any) -> Any:
        if seam.active and _is_all_of_its_task():
            handoff.begin_in(NO_CONTEXT)
        return await original(*args, **kwargs)

    return begin


def _is_all_of_its_task() -> bool:
    """Whether the coroutine that asks is what its task runs: nobody else waits for it."""
    try:
        asyncio: Any = sys.modules.get("asyncio")
        task = None if asyncio is None else asyncio.current_task()
        frame = caller()
        if task is None or frame is None:
            return False
        outermost: Any = getattr(task.get_coro(), "cr_frame", None)
        if outermost is None or outermost is frame:
            return outermost is frame
        is_anyio = str(outermost.f_globals.get("__name__")).startswith(_RUNS_FOR_OTHERS)
        return is_anyio and outermost is frame.f_back
    except Exception as error:
        handoff.report("begin a task", error)
        return False
