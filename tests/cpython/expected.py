"""Tests of CPython's that pass without the library and fail with it, each with the reason.

A test is named by its id; ``*`` stands for anything. The runner fails if one of them does not fail
any more in any mode on the versions that it is listed for.
"""

from with_and_without.report import Expected

EXPECTED = (
    Expected(
        "test.test_threading.ThreadTests.test_import_from_another_thread",
        "It refuses to run where `threading` is imported at start-up, by whatever.",
    ),
    Expected(
        "test.test_thread.ThreadRunningTests.test_unraisable_exception",
        "What `sys.unraisablehook` gets as the object is what the C function was called with: our "
        "call, which is equal to the function and looks like it, but is not it (docs/limits.md).",
        ("3.10", "3.11", "3.12"),
    ),
    *(
        Expected(
            f"test.test_interpreters.{name}",
            "Python 3.12 hangs where an interpreter that has imported `threading`, by whatever, is "
            "closed by another thread than the one that has made it.",
            ("3.12",),
        )
        for name in ("CreateTests.test_in_thread", "TestInterpreterClose.test_from_other_thread")
    ),
    Expected(
        "test.test_threading.ThreadTests.test_finalize_daemon_thread_hang",
        "It takes the first flush of stderr for the end of the interpreter; `logging`, where it is "
        "imported at start-up, by whatever, flushes before that.",
        ("3.13", "3.14", "3.15"),
    ),
    Expected(
        "test.test_logging.FormatterTest.test_relativeCreated_has_higher_precision",
        "It expects `logging` to be imported by the interpreter that it starts, and not before, by "
        "whatever.",
        ("3.13", "3.14", "3.15"),
    ),
    Expected(
        "test.test_generators.SignalAndYieldFromTest.test_raise_and_yield_from+spans",
        "A signal that is there when a generator is resumed is handled in what it delegates to by "
        "`yield from`; where anything written in Python hears of PY_RESUME it is handled in that, "
        "and the outer generator is interrupted.",
        ("3.12", "3.13", "3.14", "3.15"),
    ),
    Expected(
        "test.test_concurrent_futures.test_interpreter_pool.InterpreterPoolExecutorTest"
        ".test_import_interpreter_pool_executor",
        "It takes `_interpreters` away and expects `concurrent.futures` to be imported after that; "
        "wrapt imports asyncio, and with it `concurrent.futures`, at start-up.",
        ("3.14", "3.15"),
    ),
)
