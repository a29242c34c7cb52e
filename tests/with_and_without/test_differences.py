"""What differs is found whichever of the runs without the library are left out."""

from __future__ import annotations

import pytest

from with_and_without.differences import LIST, compare
from with_and_without.modes import PLAIN


class Suite:
    """A suite whose tests have given outcomes: without the library, and with it."""

    def __init__(self, without, with_library, sdk=None):
        self.outcomes = {PLAIN: without, "sdk": without if sdk is None else sdk}
        self.with_library = with_library
        self.runs = []

    def run(self, mode, suite, names):
        """Return the outcomes in a mode, as the runners do."""
        self.runs.append((mode, names))
        if names == (LIST,):
            return dict.fromkeys(self.outcomes[PLAIN], "listed")
        outcomes = self.outcomes.get(mode, self.with_library)
        return {test: outcomes[test] for test in names or outcomes if test in outcomes}

    def differences(self, *, lists):
        """Return what differs in the one mode."""
        ((_, _, different),) = compare(self.run, ["suite"], 1, ("span",), lists=lists)
        return different


FINE = {"a": "passed", "b": "passed"}


@pytest.mark.parametrize("lists", [True, False])
@pytest.mark.parametrize(
    ("without", "with_library", "different"),
    [
        (FINE, FINE, set()),
        (FINE, {"a": "passed", "b": "skipped"}, set()),
        (FINE, {"a": "passed", "b": "failed"}, {"b"}),
        (FINE, {"a": "passed", "b": "hung"}, {"b"}),
        (FINE, {"a": "passed"}, {"b"}),
        (FINE, {}, {"a", "b"}),
        ({"a": "passed", "b": "failed"}, {"a": "passed", "b": "failed"}, set()),
        ({"a": "passed", "b": "failed"}, FINE, set()),
        ({"a": "passed", "b": "skipped"}, {"a": "passed", "b": "failed"}, set()),
        (FINE, {**FINE, "suite: it did not end": "failed"}, {"suite: it did not end"}),
        ({}, {}, set()),
    ],
)
def test_what_passes_without_and_not_with_the_library_differs(
    without, with_library, different, lists
):
    """So does a test that is missing with it; the runs that are left out change nothing."""
    assert Suite(without, with_library).differences(lists=lists).keys() == different


def test_what_passes_with_the_library_is_not_run_without():
    """The tests are listed, so that one that is missing is found out."""
    tests = Suite(FINE, FINE)
    assert not tests.differences(lists=True)
    assert tests.runs == [(PLAIN, (LIST,)), ("span", ())]


def test_what_fails_with_the_sdk_alone_is_no_difference_of_the_library():
    """Nor is the whole suite run again to find that out."""
    suite = Suite(FINE, {"a": "passed", "b": "failed"}, sdk={"a": "passed", "b": "failed"})
    assert not suite.differences(lists=True)
    assert suite.runs.count(("span", ())) == 1
