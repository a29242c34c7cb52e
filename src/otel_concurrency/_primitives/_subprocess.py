"""``subprocess.Popen``, and all that is built on it: ``run``, ``os.popen``, asyncio's subprocesses.

The context goes into a copy of the child's environment (``_crossing.environment``). The patched
method is ``Popen._execute_child``, which gets all arguments by position, under the same names since
CPython 3.9 (gevent's too). ``Popen.__init__`` is not patched: its warnings would then name this
library's frame instead of the caller. uvloop, ``os.system`` and ``os.spawn*`` start processes
without ``Popen``.
"""

from __future__ import annotations

import functools
from types import ModuleType
from typing import Any

from otel_concurrency._core import handoff
from otel_concurrency._core.handoff import Seam
from otel_concurrency._core.patching import Layer
from otel_concurrency._crossing import environment


def _layers(subprocess: ModuleType, seam: Seam) -> list[Layer]:
    return [Layer(subprocess.Popen, "_execute_child", lambda raw: _execute_child(raw, seam))]


MODULES = {"subprocess": _layers}


def _execute_child(original: Any, seam: Seam) -> Any:
    code = getattr(original, "__wrapped__", original).__code__
    names = code.co_varnames[1 : code.co_argcount]  # without `self`
    env, preexec_fn = names.index("env"), names.index("preexec_fn")

    def with_context(process: Any, args: tuple[Any, ...]) -> tuple[Any, ...]:
        context = seam.capture(process)
        changes = environment.changes_for_child(context, args[env]) if context else None
        if changes is None:
            return args
        changed = list(args)
        if args[env] is None and args[preexec_fn] is not None:
            # `preexec_fn` may change the environment, which has an effect only while `env` is None.
            changed[preexec_fn] = environment.changed_before(args[preexec_fn], changes)
        else:
            changed[env] = environment.changed(args[env], changes)
        return tuple(changed)

    @functools.wraps(original)
    def execute_child(self: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            changed = with_context(self, args)
        except Exception as error:
            handoff.report_fault("Popen", error)
            changed = args
        return original(self, *changed, **kwargs)

    return execute_child
