"""Runs CPython's own tests without the library and with it, and lists the differences.

``python tests/cpython`` runs the short list with the interpreter that runs it; ``--full`` all that
is concerned; ``--module`` names one. Exit status 1: there is a difference that is not in
``expected.py``, or an entry there that does not differ any more.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import os
import signal
import site
import subprocess
import sys
import sysconfig
import tempfile
import venv
from concurrent.futures import ThreadPoolExecutor
from fnmatch import fnmatchcase
from pathlib import Path

from expected import EXPECTED
from rich.console import Console
from rich.table import Table

HERE = Path(__file__).parent
VERSION = f"{sys.version_info.major}.{sys.version_info.minor}"

_SHORT = """
    test_sched test_queue test_threading_local test_thread test_threading test_context
    test_asyncio.test_queues test_asyncio.test_threads test_asyncio.test_runners
"""
_LONG = """
    test_asyncio.test_base_events test_asyncio.test_events test_asyncio.test_tasks
    test_asyncio.test_futures test_asyncio.test_futures2 test_asyncio.test_locks
    test_asyncio.test_unix_events test_asyncio.test_taskgroups test_asyncio.test_timeouts
    test_concurrent_futures test_socketserver test_logging test_subprocess
    test_multiprocessing_fork test_multiprocessing_forkserver test_multiprocessing_spawn
    test_multiprocessing_main_handling
"""
SHORT = _SHORT.split()
LONG = SHORT + _LONG.split()

PLAIN, SDK = "plain", "sdk"
MODES = ("none", "span", "link")
"""On without a context, on in a recording span with baggage, the same under the policy ``link``."""
TRIES = 3
"""How often a test has to pass and to fail before that is called a difference."""

Outcome = dict[str, str]


class Environments:
    """A virtual environment for each mode; what is installed here is installed there."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def python(self, mode: str) -> Path:
        """Return the interpreter of ``mode``."""
        root = self._directory / mode
        python = root / "bin" / "python"
        if not root.exists():
            venv.create(root, symlinks=True)
            packages = root / "lib" / f"python{VERSION}" / "site-packages"
            if mode != PLAIN:
                code = (HERE / "otel_concurrency_everywhere.py").read_text()
                name = "otel_concurrency_everywhere"
                (packages / f"{name}.py").write_text(f"{code}\n\nstart({mode!r})\n")
                lines = [*_paths(), f"import {name}"]
                (packages / f"{name}.pth").write_text("\n".join(lines) + "\n")
            said = subprocess.check_output([python, "-c", _SAY], text=True).split()
            assert said == _EXPECTED_TO_SAY[mode], f"{mode} is {said}"
        return python


_SAY = """
import sys, threading
api = "opentelemetry.trace" in sys.modules and sys.modules["opentelemetry.trace"]
print(hasattr(threading.Thread.start, "__wrapped__"))
print(bool(api) and api.get_current_span().is_recording())
"""
_EXPECTED_TO_SAY = {
    PLAIN: ["False", "False"],
    SDK: ["False", "True"],
    "none": ["True", "False"],
    "span": ["True", "True"],
    "link": ["True", "True"],
}


def _paths() -> list[str]:
    """Return where what is installed here is found, an editable installation of ours included."""
    found = importlib.util.find_spec("otel_concurrency")
    assert found is not None
    assert found.origin is not None
    here = {*site.getsitepackages(), sysconfig.get_paths()["purelib"]}
    return [*sorted(here), str(Path(found.origin).parents[1])]


def run(python: Path, module: str, seconds: float, tests: tuple[str, ...] = ()) -> Outcome:
    """Return what became of the tests of ``module``: passed, failed, skipped or hung."""
    with tempfile.TemporaryDirectory() as directory:
        outcomes = Path(directory, "outcomes")
        command = [python, HERE / "run_module.py", outcomes, str(seconds), f"test.{module}", *tests]
        kept = {key: os.environ[key] for key in ("PATH", "HOME", "LANG") if key in os.environ}
        process = subprocess.Popen(
            command,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            stdin=subprocess.DEVNULL,
            env=kept,
            cwd=directory,
            start_new_session=True,
        )
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(seconds + 60)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # what the tests have left behind, too
        process.wait()
        lines = outcomes.read_text().splitlines() if outcomes.exists() else []
    found: Outcome = {}
    for line in lines:
        outcome, _, test = line.partition(" ")
        if outcome == "started":
            found[test] = "hung"
        elif outcome == "stopped":
            if found[test] == "hung":
                found[test] = "passed"
        elif test:
            found[test] = outcome
    if "ended" not in lines:
        found.setdefault(f"{module}: it did not end", "failed")
    return found


def differences(
    environments: Environments, module: str, seconds: float
) -> tuple[Outcome, dict[str, set[str]]]:
    """Return the plain outcomes of ``module``, and the modes in which a test differs."""
    plain = run(environments.python(PLAIN), module, seconds)
    different: dict[str, set[str]] = {}
    for mode in MODES:
        found = run(environments.python(mode), module, seconds)
        for test, outcome in plain.items():
            if outcome == "passed" and found.get(test, "hung") not in ("passed", "skipped"):
                different.setdefault(test, set()).add(mode)
    return plain, {
        test: real
        for test, modes in different.items()
        if (real := _confirmed(environments, module, test, modes, seconds))
    }


def _confirmed(
    environments: Environments, module: str, test: str, modes: set[str], seconds: float
) -> set[str]:
    """Return the modes in which ``test`` fails every time, though it passes without the library.

    Without the library is plain and, where there is a span, with the SDK and the span alone.
    """

    def fails(mode: str) -> bool:
        return run(environments.python(mode), module, seconds, (test,)).get(test) != "passed"

    baseline = {"none": (PLAIN,), "span": (PLAIN, SDK), "link": (PLAIN, SDK)}
    return {
        mode
        for mode in modes
        if all(fails(mode) for _ in range(TRIES))
        and not any(fails(other) for other in baseline[mode] for _ in range(TRIES))
    }


def main() -> int:
    """Run what the command line asks for; return the exit status."""
    parser = argparse.ArgumentParser(prog="python tests/cpython", description=__doc__)
    parser.add_argument("--full", action="store_true", help="all modules, not only the quick ones")
    parser.add_argument("--module", action="append", help="one module, such as test_threading")
    parser.add_argument("--seconds", type=float, default=900, help="how long a module may take")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="how many at a time")
    options = parser.parse_args()
    modules = options.module or (LONG if options.full else SHORT)
    present = [name for name in modules if importlib.util.find_spec(f"test.{name}")]
    console = Console()
    for name in sorted({*modules} - {*present}):
        console.print(f"test.{name} does not come with this Python {VERSION}", style="yellow")
    with tempfile.TemporaryDirectory() as directory, ThreadPoolExecutor(options.jobs) as pool:
        environments = Environments(Path(directory))
        for mode in (PLAIN, SDK, *MODES):
            environments.python(mode)
        results = pool.map(lambda one: differences(environments, one, options.seconds), present)
        return _report(console, dict(zip(present, results, strict=True)))


def _report(console: Console, results: dict[str, tuple[Outcome, dict[str, set[str]]]]) -> int:
    table = Table(title=f"CPython {VERSION}'s own tests: without the library, and with it")
    for column in ("module", "tests", "pass without", "differ", "expected"):
        table.add_column(column, justify="left" if column == "module" else "right")
    listed = [one for one in EXPECTED if not one.versions or VERSION in one.versions]
    seen, wrong = set(), []
    for module, (plain, different) in results.items():
        known = {test: [one for one in listed if fnmatchcase(test, one.test)] for test in different}
        seen |= {one for ones in known.values() for one in ones}
        wrong += [f"{test}: fails {sorted(different[test])}" for test in known if not known[test]]
        passed = sum(outcome == "passed" for outcome in plain.values())
        excused = sum(map(bool, known.values()))
        table.add_row(module, *map(str, (len(plain), passed, len(different), excused)))
    ran = [test for plain, _ in results.values() for test in plain]
    wrong += [
        f"{one.test}: is listed in expected.py, and does not differ any more"
        for one in listed
        if one not in seen and any(fnmatchcase(test, one.test) for test in ran)
    ]
    console.print(table)
    for line in wrong:
        console.print(line, style="red", soft_wrap=True)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
