"""How the tests of other interpreters open one, from 3.14 on: in a pool, or by itself."""

from __future__ import annotations

import concurrent.futures
import contextlib
import sys
from concurrent import interpreters

TIMEOUT = 60
"""Seconds after which a test gives up waiting; nothing asserts a time."""


def pool_of_one(initializer=""):
    """Return a pool of one interpreter that imports from where this one does."""
    # It takes over none of what was put into this one's path.
    source = f"import sys; sys.path[:] = path; {initializer}"
    return concurrent.futures.InterpreterPoolExecutor(
        1, initializer=exec, initargs=(source, {"path": sys.path})
    )


@contextlib.contextmanager
def open_interpreter():
    """Open an interpreter that imports from where this one does."""
    interpreter = interpreters.create()
    try:
        interpreter.call(exec, "import sys; sys.path[:] = path", {"path": sys.path})
        yield interpreter
    finally:
        interpreter.close()


@contextlib.contextmanager
def by_a_pool():
    """Give what has an `InterpreterPoolExecutor` do work, and returns its result."""
    with pool_of_one() as pool:
        yield lambda work, *args, **kwargs: pool.submit(work, *args, **kwargs).result(TIMEOUT)


@contextlib.contextmanager
def by_a_call():
    """Give what has `Interpreter.call` do work, and returns its result."""
    with open_interpreter() as interpreter:
        yield interpreter.call
