"""``subprocess.Popen``, and everything that is built on it: ``run``, ``os.popen``, asyncio's.

The context goes into a copy of the child's environment (``otel_concurrency._environment``). The
seam is ``Popen.__init__``, by its documented signature: the positions of its arguments have not
changed since CPython 3.1. uvloop, ``os.system`` and ``os.spawn*`` start their processes themselves.
"""

from __future__ import annotations

import functools
from types import ModuleType
from typing import Any

from otel_concurrency import _environment, _handoff
from otel_concurrency._handoff import Seam
from otel_concurrency._patching import Layer

_ENV = 10
"""The place of ``env`` among the arguments that follow ``self``."""


def _layers(subprocess: ModuleType, seam: Seam) -> list[Layer]:
    return [Layer(subprocess.Popen, "__init__", lambda raw: _init(raw, seam))]


MODULES = {"subprocess": _layers}


def _init(original: Any, seam: Seam) -> Any:
    @functools.wraps(original)
    def init(self: Any, *args: Any, **kwargs: Any) -> None:
        environment = _environment_for(seam, self, args, kwargs)
        if environment is None:
            pass
        elif len(args) > _ENV:
            args = (*args[:_ENV], environment, *args[_ENV + 1 :])
        else:
            kwargs["env"] = environment
        original(self, *args, **kwargs)

    return init


def _environment_for(seam: Seam, process: Any, args: Any, kwargs: Any) -> dict[Any, Any] | None:
    """Return the environment that ``process`` is to be started with; None: as it was asked for."""
    try:
        context = seam.capture(process)
        if not context:
            return None
        given = args[_ENV] if len(args) > _ENV else kwargs.get("env")
        if given is not None and not hasattr(given, "items"):
            return None  # `Popen` is about to say so
        return _environment.for_child(context, given)
    except Exception as error:
        _handoff.report("Popen", error)
        return None
