"""Whose generators are context managers in another shape: data, and nothing else.

What such a generator attaches before its ``yield`` is meant for whoever its driver works for: the
body of a ``with`` statement, a test, a request. It is left alone.

How an entry is written
    As those of ``_clean_starts.table``: the dotted name of the function that resumes the
    generator, as ``__module__`` and ``__qualname__`` have it at run time. An entry covers
    everything below it at a dot; a star at the end makes it a plain string prefix.

What does not belong here
    A consumer: what reads a stream to hand its values on, a response for example. A generator that
    stands for a coroutine (Twisted's ``inlineCallbacks``, tornado's ``gen.coroutine``): each
    resumption has a context of its own there, which the ``yield`` does not leave.

How an entry is verified
    With the library itself, in ``tests/conformance/test_generators_left_alone.py`` and
    ``tests/adapters/test_generators.py``.
"""

from __future__ import annotations

from typing import Final

TABLE: Final[tuple[str, ...]] = (
    # Standard library, CPython 3.10 to 3.15: context managers, sync and async, and exit stacks
    # with them, which enter a context manager by its own methods.
    "contextlib",
    # opentelemetry-api 1.18 to 1.45: use_span, start_as_current_span.
    "opentelemetry.util._decorator",
    # anyio 4.16: fixtures, in the task that runs a test
    "anyio.pytest_plugin",
    "anyio._backends._asyncio.TestRunner",
    "anyio._backends._trio.TestRunner",
    # pluggy: wrappers of hooks, old and new
    "pluggy",
    # pytest: fixtures
    "_pytest",
    # pytest-asyncio 1.5: fixtures
    "pytest_asyncio",
)
