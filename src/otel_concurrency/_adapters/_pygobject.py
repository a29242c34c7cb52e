"""PyGObject: callbacks that are posted to a loop of GLib's, which GTK's is, too.

The setting SCHED covers them. GLib calls a callback again for as long as it returns what is true:
from the second round on, each is a trace of its own, with a link to the one before. Whoever runs a
loop does so in no context: what it calls belongs to nobody, unless it was posted in a context.
"""

from __future__ import annotations

import functools
from types import ModuleType
from typing import Any

from otel_concurrency._core import handoff
from otel_concurrency._core.handoff import NO_CONTEXT, Call, Seam
from otel_concurrency._core.patching import Layer, Patch
from otel_concurrency._linking.posted import PostedAgain, post

TESTED = ("3.50.2", "3.50.2")


def _glib_layers(glib: ModuleType, seam: Seam) -> list[Patch]:
    def run(raw: Any) -> Any:
        return _run(raw, seam)

    return [
        Layer(glib, "idle_add", lambda raw: _idle_add(raw, seam)),
        Layer(glib, "timeout_add", lambda raw: _timeout_add(raw, seam)),
        Layer(glib, "timeout_add_seconds", lambda raw: _timeout_add(raw, seam)),
        Layer(vars(glib)["MainLoop"], "run", run),
        Layer(vars(glib)["MainContext"], "iteration", run),
    ]


def _gio_layers(gio: ModuleType, seam: Seam) -> list[Patch]:
    return [Layer(vars(gio)["Application"], "run", lambda raw: _run(raw, seam))]


MODULES = {"sched": {"gi.repository.GLib": _glib_layers, "gi.repository.Gio": _gio_layers}}


def _idle_add(original: Any, seam: Seam) -> Any:
    @functools.wraps(original)
    def idle_add(function: Any, *user_data: Any, **kwargs: Any) -> Any:
        return original(post(seam, function, user_data, kind=PostedAgain), *user_data, **kwargs)

    return idle_add


def _timeout_add(original: Any, seam: Seam) -> Any:
    @functools.wraps(original)
    def timeout_add(interval: Any, function: Any, *user_data: Any, **kwargs: Any) -> Any:
        posted = post(seam, function, user_data, kind=PostedAgain)
        return original(interval, posted, *user_data, **kwargs)

    return timeout_add


def _run(original: Any, seam: Seam) -> Any:
    @functools.wraps(original)
    def run(self: Any, *args: Any, **kwargs: Any) -> Any:
        if not (seam.active and handoff.is_concerned(seam)):
            return original(self, *args, **kwargs)
        return Call(NO_CONTEXT, original)(self, *args, **kwargs)

    return run
