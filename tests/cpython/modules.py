"""Which of CPython's own tests are run, and where they are found."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

_SHORT = """
    test_sched test_queue test_threading_local test_thread test_threading test_context
    test_asyncio.test_queues test_asyncio.test_threads test_asyncio.test_runners
    test_generators test_asyncgen test_yield_from test_contextlib test_contextlib_async
    test_generators+spans test_asyncgen+spans test_yield_from+spans test_coroutines+spans
    test_contextlib+spans test_contextlib_async+spans
"""
_LONG = """
    test_asyncio test_concurrent_futures test_socketserver test_logging test_subprocess
    test_multiprocessing_fork test_multiprocessing_forkserver test_multiprocessing_spawn
    test_multiprocessing_main_handling
    test_atexit test_audit test_coroutines test_decimal test_fork1 test_gc test_httpservers
    test_interpreters test_monitoring test_popen test_signal test_sys_setprofile test_sys_settrace
    test_thread_local_bytecode test_threaded_import test_threadedtempfile test_threadsignals
    test_weakref test_xmlrpc
"""
SPANS = "+spans"
"""What follows the name of a module whose generators are to hold spans."""

SHORT = _SHORT.split()
"""What takes a minute."""
FULL = SHORT + _LONG.split()
"""All that is concerned with threads, tasks, processes and contexts, or makes much use of them."""


def present(names: Iterable[str], tests: Path) -> Iterator[str]:
    """Yield those modules of the package ``tests`` that ``names`` ask for; a package is all of its.

    A name that is not there is left out: which there are depends on the version.
    """
    seen: set[str] = set()
    for name in names:
        path = tests.joinpath(*name.removesuffix(SPANS).split("."))
        found = [name] if path.with_suffix(".py").exists() else []
        if path.is_dir():
            found = [f"{name}.{module.stem}" for module in sorted(path.glob("test_*.py"))]
        for module in found:
            if module not in seen:
                seen.add(module)
                yield module


def merge(directory: Path, own: Path, borrowed: Path) -> Path:
    """Make a package ``test`` below ``directory`` of ``own`` and what only ``borrowed`` has."""
    merged = directory / "test"
    merged.mkdir()
    for source in (own, borrowed):
        for path in source.iterdir():
            target = merged / path.name
            if path.name != "__pycache__" and not target.is_symlink():
                target.symlink_to(path)
    return merged
