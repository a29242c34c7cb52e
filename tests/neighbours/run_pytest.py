"""Runs pytest in the current directory, and writes a line for each test to a file.

``python run_pytest.py OUTCOMES [ARGUMENT ...]``; for the lines see ``with_and_without.outcomes``.
"""

from __future__ import annotations

import sys

import pytest


class Recorder:
    """Writes what becomes of each test at once: what comes after may be a crash."""

    def __init__(self, file):
        self._file = file

    def _write(self, event, test=""):
        self._file.write(f"{event} {test}".rstrip() + "\n")
        self._file.flush()

    def pytest_collectreport(self, report):
        if report.failed:
            self._write("failed", report.nodeid)

    def pytest_runtest_logstart(self, nodeid):
        self._write("started", nodeid)

    def pytest_runtest_logreport(self, report):
        if not report.passed:
            self._write(report.outcome, report.nodeid)

    def pytest_runtest_logfinish(self, nodeid):
        self._write("stopped", nodeid)

    def pytest_sessionfinish(self):
        self._write("ended")


if __name__ == "__main__":
    sys.path[0] = ""  # as `python -m pytest` has it
    with open(sys.argv[1], "w") as file:
        sys.exit(pytest.main(["-p", "no:cacheprovider", *sys.argv[2:]], [Recorder(file)]))
