"""Runs CPython's own tests without the library and with it, and lists the differences.

``python tests/cpython`` runs the short list with the interpreter that runs it; ``--full`` all that
is concerned; ``--module`` names one. Exit status 1: there is a difference that is not in
``expected.py``, or an entry there that does not differ any more.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import site
import sys
import sysconfig
import tempfile
from collections.abc import Mapping
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from expected import EXPECTED  # noqa: E402
from modules import FULL, SHORT, merge, present  # noqa: E402
from rich.console import Console  # noqa: E402

from recorded import record  # noqa: E402
from with_and_without import modes, outcomes  # noqa: E402
from with_and_without.differences import compare  # noqa: E402
from with_and_without.report import VERSION, report  # noqa: E402


def _origin(package: str) -> Path:
    found = importlib.util.find_spec(package)
    assert found is not None
    assert found.origin is not None
    return Path(found.origin).parent


def _paths() -> list[str]:
    """Return where what is installed here is found, an editable installation of ours included."""
    here = {*site.getsitepackages(), sysconfig.get_paths()["purelib"]}
    # Of one that is not there, Python 3.15 says so in every interpreter.
    existing = [path for path in sorted(here) if Path(path).is_dir()]
    return [*existing, str(_origin("otel_concurrency").parent)]


def main() -> int:
    """Run what the command line asks for; return the exit status."""
    parser = argparse.ArgumentParser(prog="python tests/cpython", description=__doc__)
    parser.add_argument("--full", action="store_true", help="all modules, not only the quick ones")
    parser.add_argument("--module", action="append", help="one module, such as test_threading")
    parser.add_argument(
        "--mode",
        action="append",
        choices=modes.MODES,
        help="on without a context, in a span, or in a span under the policy link (default: all)",
    )
    parser.add_argument(
        "--borrow",
        type=Path,
        metavar="PATH",
        help="a package `test`, of another version, that has what this Python's own does not have",
    )
    parser.add_argument("--seconds", type=float, default=900, help="how long a module may take")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="how many at a time")
    parser.add_argument(
        "--record",
        action="store_true",
        help="keep the number of all tests, with --full, for docs/proofs.md",
    )
    options = parser.parse_args()
    if options.record and (not options.full or options.module):
        parser.error("--record needs --full, and no --module")
    console = Console()
    with tempfile.TemporaryDirectory() as directory:
        tests, first = _origin("test"), []
        if options.borrow:
            tests = merge(Path(directory), tests, options.borrow)
            # A forkserver of before 3.12.4 does not look where its parent does.
            first = [f"import sys; sys.path.insert(0, {str(tests.parent)!r})"]
        pythons = modes.create(Path(directory), plain=first, others=[*first, *_paths()])

        def run(mode: str, module: str, names: tuple[str, ...]) -> outcomes.Outcomes:
            def command(file: Path) -> list[str | Path]:
                script = [pythons[mode], HERE / "run_module.py", file, str(options.seconds)]
                return [*script, tests.parent, f"test.{module}", *names]

            return outcomes.run(command, module, options.seconds)

        names = options.module or (FULL if options.full else SHORT)
        modules = list(present(names, tests))
        for name in names:
            if not any(f"{module}.".startswith(f"{name}.") for module in modules):
                console.print(f"test.{name} does not come with this Python {VERSION}")
        results = compare(run, modules, options.jobs, options.mode or modes.MODES, lists=True)
        return report(
            console,
            f"CPython {VERSION}'s own tests",
            results,
            EXPECTED,
            every_mode=not options.mode,
            record=_record if options.record else None,
        )


def _record(counts: Mapping[str, int]) -> None:
    record("cpython", VERSION, {"tests": sum(counts.values())})


if __name__ == "__main__":
    sys.exit(main())
