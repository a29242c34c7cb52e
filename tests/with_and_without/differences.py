"""Compares what became of tests without the library with what became of them with it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
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
"""A suite, what became of its tests, and what differs with the library.

Its tests are those that were run without the library, if that was needed."""

LIST = "--list"
"""In the place of the names of tests: none is run, and all are named as what there is."""


def compare(
    run: Run, suites: Sequence[str], jobs: int, modes: Sequence[str] = MODES, *, lists: bool = False
) -> Iterator[Result]:
    """Yield the result of each suite in ``modes``; ``jobs`` of them run at a time.

    ``lists``: ``run`` takes ``LIST``. Then tests that pass with the library in each mode, or are
    skipped, are not run without it, since whatever became of them there would be no difference.
    """
    before = (LIST,) if lists else ()
    with ThreadPoolExecutor(jobs) as pool:
        first: dict[str, dict[str, Future[Outcomes]]] = {
            suite: {
                PLAIN: pool.submit(run, PLAIN, suite, before),
                **{mode: pool.submit(run, mode, suite, ()) for mode in modes},
            }
            for suite in suites
        }
        for suite, runs in first.items():
            plain = runs[PLAIN].result()
            after = {mode: runs[mode].result() for mode in modes}
            if lists:
                plain = _run_if_needed(run, suite, plain, [*after.values()])
            different: Different = {}
            for mode in modes:
                suspects = _worse(plain, after[mode])
                for test in _confirmed(run, suite, mode, suspects):
                    different.setdefault(test, set()).add(mode)
            yield suite, plain, different


def _run_if_needed(
    run: Run, suite: str, there: Iterable[str], after: Sequence[Outcomes]
) -> Outcomes:
    """Return what becomes of tests without the library; what is well with it is taken from there.

    ``there``: the tests that there are without the library.
    """
    tests = {*there}.union(*after)
    well = {test for test in tests if all(each.get(test) in PASSED for each in after)}
    rest = run(PLAIN, suite, tuple(sorted(tests - well))) if tests - well else {}
    return {test: outcome for test, outcome in after[0].items() if test in well} | rest


def _worse(before: Outcomes, after: Outcomes) -> set[str]:
    """Return what does not pass any more, and what was not there and fails: a tear-down, say."""
    return {
        test
        for test in {*before, *after}
        if before.get(test, "passed") == "passed"
        and after.get(test, "failed" if test in before else "passed") not in PASSED
    }


def _confirmed(run: Run, suite: str, mode: str, suspects: set[str]) -> set[str]:
    """Return those that differ every time: each alone or, where that is in order, in company.

    What fails alone, every time, in a baseline that has something of the mode, such as the SDK,
    fails because of that. It is not run in company, which takes many runs of the whole suite.
    """

    def outcome(test: str, mode: str) -> str | None:
        return run(mode, suite, (test,)).get(test)

    def passes(test: str, mode: str) -> bool:
        return outcome(test, mode) == "passed"

    def fails(test: str, mode: str) -> bool:
        return outcome(test, mode) in ("failed", "hung")

    def differs_alone(test: str) -> bool:
        # By turns: a machine that is busy for a while makes nobody a culprit.
        return all(
            not passes(test, mode) and all(passes(test, one) for one in BASELINES[mode])
            for _ in range(TRIES)
        )

    others = [baseline for baseline in BASELINES[mode] if baseline != PLAIN]
    alone = {test for test in suspects if differs_alone(test)}
    rest = {
        test
        for test in suspects - alone
        if not any(all(fails(test, baseline) for _ in range(TRIES)) for baseline in others)
    }
    for _ in range(TRIES - 1):
        if rest:
            rest &= _worse(run(PLAIN, suite, ()), run(mode, suite, ()))
    for baseline in others:
        if rest:
            rest -= _worse(run(PLAIN, suite, ()), run(baseline, suite, ()))
    return alone | rest
