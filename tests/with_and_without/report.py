"""Reports differences, and holds them against the list of those that are justified."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import NamedTuple

from rich.console import Console
from rich.table import Table

from with_and_without.differences import Result

VERSION = f"{sys.version_info.major}.{sys.version_info.minor}"


class Expected(NamedTuple):
    """A difference that is not a bug of ours."""

    test: str
    """The id of a test; ``*`` stands for anything."""
    reason: str
    versions: tuple[str, ...] = ()
    """``3.13`` and so on; empty: all."""


def report(
    console: Console,
    title: str,
    results: Iterable[Result],
    expected: Sequence[Expected],
    *,
    every_mode: bool = True,
    record: Callable[[Mapping[str, int]], None] | None = None,
) -> int:
    """Print ``results`` as they come, and a table; return the exit status.

    1: there is a difference that is not in ``expected``, or an entry there that does not differ,
    if ``every_mode`` was tried: some differ in one of them alone. Where all is as expected,
    ``record`` is called with the number of tests in each suite.
    """
    table = Table("suite", title=f"{title}: without the library, and with it", show_footer=True)
    for column in ("tests", "pass", "differ", "expected"):
        table.add_column(column, justify="right")
    listed = [one for one in expected if not one.versions or VERSION in one.versions]
    seen: set[Expected] = set()
    ran: list[str] = []
    counts: dict[str, int] = {}
    wrong: list[str] = []
    total = [0, 0, 0, 0]
    for suite, plain, different in results:
        known = {test: [one for one in listed if fnmatchcase(test, one.test)] for test in different}
        seen.update(one for ones in known.values() for one in ones)
        ran += plain
        counts[suite] = len(plain)
        passed = sum(outcome == "passed" for outcome in plain.values())
        figures = len(plain), passed, len(different), sum(map(bool, known.values()))
        total = [sum(pair) for pair in zip(total, figures, strict=True)]
        table.add_row(suite, *map(str, figures))
        console.print(f"{suite}: {passed} of {len(plain)} pass, {len(different)} differ")
        new = [f"{test}: fails {sorted(different[test])}" for test in known if not known[test]]
        _complain(console, new)
        wrong += new
    for column, figure in zip(table.columns[1:], total, strict=True):
        column.footer = str(figure)
    console.print(table)
    wrong += [
        f"{one.test}: is listed in expected.py, and does not differ any more"
        for one in listed
        if every_mode and one not in seen and any(fnmatchcase(test, one.test) for test in ran)
    ]
    _complain(console, wrong)
    if record is not None and not wrong:
        record(counts)
    return 1 if wrong else 0


def _complain(console: Console, lines: list[str]) -> None:
    for line in lines:
        console.print(line, style="red", soft_wrap=True, highlight=False, markup=False)
