"""``tkinter``: what is called after a while runs in the context in which it was asked for.

Events belong to no hand-off: wherever the loop runs, their callbacks begin in no context. A
callback that the program itself causes at once (``invoke()``, ``event_generate()``,
``variable.set()``) is an ordinary call, in the context of its caller.
"""

from __future__ import annotations

import functools
from types import ModuleType
from typing import Any

from otel_concurrency._core import handoff
from otel_concurrency._core.handoff import NO_CONTEXT, Call, Seam
from otel_concurrency._core.patching import Layer, Patch
from otel_concurrency._linking.posted import post

_RUN_THE_LOOP = (
    "mainloop",
    "update",
    "update_idletasks",
    "wait_variable",
    "wait_visibility",
    "wait_window",
    "waitvar",
)
"""The methods of a widget in which the loop runs: for ever, for a while, or once."""


def _layers(tkinter: ModuleType, seam: Seam) -> list[Patch]:
    def advice(raw: Any) -> Any:
        return _run_the_loop(raw, seam)

    return [
        Layer(tkinter.Misc, "after", lambda raw: _after(raw, seam)),
        *(Layer(tkinter.Misc, name, advice) for name in _RUN_THE_LOOP),
        Layer(tkinter, "mainloop", advice),
    ]


MODULES = {"tkinter": _layers}


def _after(original: Any, seam: Seam) -> Any:
    @functools.wraps(original)
    def after(self: Any, ms: Any, func: Any = None, *args: Any) -> Any:
        posted = None if func is None else post(seam, func, args)
        try:
            return original(self, ms, posted, *args)
        except BaseException:
            if isinstance(posted, Call):
                posted.release()
            raise

    return after


def _run_the_loop(original: Any, seam: Seam) -> Any:
    @functools.wraps(original)
    def run(*args: Any, **kwargs: Any) -> Any:
        if not (seam.active and handoff.is_concerned(seam)):
            return original(*args, **kwargs)
        return Call(NO_CONTEXT, original)(*args, **kwargs)

    return run
