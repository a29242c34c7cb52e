"""Runs in every Python that finds this directory first in its ``PYTHONPATH``.

It shadows another ``sitecustomize`` of the program or its environment, so it runs that first.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from importlib.machinery import PathFinder


def _run_the_other() -> None:
    mine = os.path.dirname(os.path.abspath(__file__))
    # Skip the module of opentelemetry-instrument: it does the same as `start`, but exports too.
    theirs = os.path.join("opentelemetry", "instrumentation", "auto_instrumentation")
    paths = [path for path in sys.path if os.path.abspath(path) != mine]
    paths = [path for path in paths if not os.path.abspath(path).endswith(theirs)]
    spec = PathFinder.find_spec("sitecustomize", paths)
    if spec is not None and spec.loader is not None:
        module = importlib.util.module_from_spec(spec)
        sys.modules["sitecustomize"] = module
        spec.loader.exec_module(module)


try:
    _run_the_other()
finally:
    try:
        from otel_concurrency._observer.start import start
    except ImportError:  # this Python does not have the library; the command reports that
        pass
    else:
        start()
