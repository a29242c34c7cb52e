"""Runs the tests of other projects without the library and with it, and lists the differences.

``python tests/neighbours`` runs all with the interpreter that runs it; ``--name`` names one. Needs
PyPI. Exit status 1: there is a difference that is not in ``expected.py``, or an entry there that
does not differ any more.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from environment import extract, install  # noqa: E402
from expected import EXPECTED  # noqa: E402
from rich.console import Console  # noqa: E402
from suites import SUITES  # noqa: E402

from recorded import record  # noqa: E402
from with_and_without import modes, outcomes  # noqa: E402
from with_and_without.differences import compare  # noqa: E402
from with_and_without.report import VERSION, report  # noqa: E402


class Project:
    """A project whose tests can be run in every mode."""

    def __init__(self, directory: Path, name: str) -> None:
        self._name = name
        self._suite = SUITES[name]
        directory.mkdir()
        packages = [str(install(directory, name, self._suite))]
        self._pythons = modes.create(directory, plain=packages, others=packages)
        self._sources = {
            mode: extract(directory, directory / f"source-{mode}", self._suite)
            for mode in self._pythons
        }

    def run(self, mode: str, names: tuple[str, ...], seconds: float) -> outcomes.Outcomes:
        """Return what became of the tests, or of those that are named."""

        def command(file: Path) -> list[str | Path]:
            script = [self._pythons[mode], HERE / "run_pytest.py", file]
            return [*script, *self._suite.options, *(names or self._suite.tests)]

        return outcomes.run(command, self._name, seconds, self._sources[mode])


def main() -> int:
    """Run what the command line asks for; return the exit status."""
    parser = argparse.ArgumentParser(prog="python tests/neighbours", description=__doc__)
    parser.add_argument("--name", action="append", choices=SUITES, help="one project")
    parser.add_argument("--seconds", type=float, default=1800, help="how long a suite may take")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="how many at a time")
    parser.add_argument(
        "--record", action="store_true", help="keep the number of tests, for docs/proofs.md"
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        names = options.name or list(SUITES)
        projects = {name: Project(Path(directory, name), name) for name in names}

        def run(mode: str, name: str, tests: tuple[str, ...]) -> outcomes.Outcomes:
            return projects[name].run(mode, tests, options.seconds)

        results = compare(run, names, options.jobs)
        return report(
            Console(),
            f"Neighbours' tests on Python {VERSION}",
            results,
            EXPECTED,
            record=_record if options.record else None,
        )


def _record(counts: Mapping[str, int]) -> None:
    for name, count in counts.items():
        record("neighbours", name, {"tests": count})


if __name__ == "__main__":
    sys.exit(main())
