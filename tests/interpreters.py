"""What is not the same on every interpreter: conditions of tests, and when things are freed."""

from __future__ import annotations

import gc
import sys
import threading
import time
import weakref

import pytest

PYPY = sys.implementation.name == "pypy"

counts_references = pytest.mark.skipif(
    PYPY, reason="PyPy frees what nothing refers to when it collects, not at once"
)
measures_memory = pytest.mark.skipif(PYPY, reason="PyPy has no tracemalloc; sizes are CPython's")


class _CollectingReference(weakref.ref):
    def __call__(self):
        # A step frees what is young, in no time; what a finalizer lets go is freed by the next one.
        for collect in (gc.collect_step, gc.collect_step, gc.collect, gc.collect, gc.collect):
            if super().__call__() is None:
                break
            collect()
        return super().__call__()


class _CollectingEvent(threading.Event):
    def is_set(self):
        gc.collect()
        return super().is_set()

    def wait(self, timeout):
        deadline = time.monotonic() + timeout
        while not super().wait(0.01):
            if time.monotonic() > deadline:
                return False
            gc.collect()
        return True


DeathEvent = _CollectingEvent if PYPY else threading.Event
"""An event for a finalizer to set. PyPy, which finalizes what it collects, collects meanwhile."""

weak_reference = _CollectingReference if PYPY else weakref.ref
"""A weak reference. PyPy frees things when it collects, which it does here before it is looked."""


def death_of(thing):
    """Return an event that is set when nothing refers to ``thing`` any more."""
    died = DeathEvent()
    weakref.finalize(thing, died.set).atexit = False
    return died


THREADS_INHERIT = bool(getattr(sys.flags, "thread_inherit_context", False))
"""Whether CPython itself starts threads in a copy of the context, as builds without the GIL do."""
