"""Compares what became of tests without the library with what became of them with it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from with_and_without.modes import BASELINES, MODES, PLAIN
from with_and_without.outcomes import PASSED, Outcomes

TRIES = 3
"""How often a test has to pass without and to fail with the library before that is a difference."""

Run = Callable[[str, str, "tuple[str, ...]"], Outcomes]
"""From a mode, a suite and the names of tests (none: all) to what became of them."""

Different = dict[str, set[str]]
"""The modes in which a test differs."""

Result = tuple[str, Outcomes, Different]
"""A suite, what became of its tests without the library, and what differs with it."""


def compare(
    run: Run, suites: Sequence[str], jobs: int, modes: Sequence[str] = MODES
) -> Iterator[Result]:
    """Yield the result of each suite in ``modes``; ``jobs`` of them run at a time."""
    with ThreadPoolExecutor(jobs) as pool:
        first: dict[str, dict[str, Future[Outcomes]]] = {
            suite: {mode: pool.submit(run, mode, suite, ()) for mode in (PLAIN, *modes)}
            for suite in suites
        }
        for suite, runs in first.items():
            plain = runs[PLAIN].result()
            different: Different = {}
            for mode in modes:
                suspects = _worse(plain, runs[mode].result())
                for test in _confirmed(run, suite, mode, suspects):
                    different.setdefault(test, set()).add(mode)
            yield suite, plain, different


def _worse(before: Outcomes, after: Outcomes) -> set[str]:
    """Return what does not pass any more, and what was not there and fails: a tear-down, say."""
    return {
        test
        for test in {*before, *after}
        if before.get(test, "passed") == "passed"
        and after.get(test, "failed" if test in before else "passed") not in PASSED
    }


def _confirmed(run: Run, suite: str, mode: str, suspects: set[str]) -> set[str]:
    """Return those that differ every time: each alone or, where that is in order, in company."""
    alone = {test for test in suspects if _differs_alone(run, suite, mode, test)}
    rest = suspects - alone
    for _ in range(TRIES - 1):
        if rest:
            rest &= _worse(run(PLAIN, suite, ()), run(mode, suite, ()))
    for baseline in BASELINES[mode]:
        if rest and baseline != PLAIN:
            rest -= _worse(run(PLAIN, suite, ()), run(baseline, suite, ()))
    return alone | rest


def _differs_alone(run: Run, suite: str, mode: str, test: str) -> bool:
    def passes(mode: str) -> bool:
        return run(mode, suite, (test,)).get(test) == "passed"

    # By turns: a machine that is busy for a while makes nobody a culprit.
    return all(
        not passes(mode) and all(passes(baseline) for baseline in BASELINES[mode])
        for _ in range(TRIES)
    )
