"""Runs one module of the interpreter's own tests, and writes a line for each test to a file.

``python run_module.py OUTCOMES SECONDS PATH MODULE [TEST ...]``: the package ``test`` is in PATH. A
test that is only started has hung, or has taken the interpreter with it. If TEST is ``--list``, all
are listed and none is run. The generators of a module with ``+spans`` behind its name hold spans;
its tests' names end so, too.
"""

from __future__ import annotations

import faulthandler
import os
import sys
import tempfile
import unittest


class Outcomes(unittest.TextTestResult):
    """Writes what becomes of each test at once: what comes after may be a crash."""

    file = None
    suffix = ""

    def write(self, outcome, test):
        self.file.write(f"{outcome} {test.id()}{self.suffix}\n")
        self.file.flush()

    def startTest(self, test):
        super().startTest(test)
        self.write("started", test)

    def stopTest(self, test):
        super().stopTest(test)
        self.write("stopped", test)

    def addError(self, test, err):
        super().addError(test, err)
        self.write("failed", test)

    def addFailure(self, test, err):
        super().addFailure(test, err)
        self.write("failed", test)

    def addSubTest(self, test, subtest, err):
        super().addSubTest(test, subtest, err)
        if err is not None:
            self.write("failed", test)

    def addSkip(self, test, reason):
        super().addSkip(test, reason)
        self.write("skipped", test)

    def addUnexpectedSuccess(self, test):
        super().addUnexpectedSuccess(test)
        self.write("failed", test)


def tests_in(suite):
    """Yield the tests of a suite, one by one."""
    for test in suite:
        if isinstance(test, unittest.TestSuite):
            yield from tests_in(test)
        else:
            yield test


def main(outcomes, seconds, path, module, *names):
    """Run ``module``, or those of its tests that are named; or list them all."""
    if path not in sys.path:
        sys.path.insert(0, path)
    faulthandler.dump_traceback_later(float(seconds), exit=True)
    module, plus, _ = module.partition("+spans")
    Outcomes.suffix = plus
    try:
        if plus:
            import holding  # and what it imports, where no other module is tested

            holding.load(module)
        suite = unittest.defaultTestLoader.loadTestsFromName(module)
    except unittest.SkipTest:  # not for this platform
        suite = unittest.TestSuite()
    if names == ("--list",):
        lines = [f"listed {test.id()}{plus}" for test in tests_in(suite)]
        with open(outcomes, "w") as file:
            print(*lines, "ended", sep="\n", file=file)
        return
    if names:
        suite = unittest.TestSuite(test for test in tests_in(suite) if test.id() + plus in names)
    with open(outcomes, "w") as Outcomes.file, tempfile.TemporaryDirectory() as directory:
        os.chdir(directory)
        unittest.TextTestRunner(verbosity=2, resultclass=Outcomes).run(suite)
        os.chdir("/")
        print("ended", file=Outcomes.file)


if __name__ == "__main__":
    main(*sys.argv[1:])
