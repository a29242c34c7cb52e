"""Names files in a report for the terminal: as much of a path as tells it from the others."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator

from otel_concurrency._trace_report.model import Leak, Orphan, Report

_INSTALLED = re.compile(r"[^\s`'\"]*[/\\](?:site|dist)-packages[/\\]")
"""What precedes the name of a package in the path of a file of it."""

_LINE = re.compile(r"(?<![\w/.])(/[^\s:`'\"]+)(?=:\d)")
"""The absolute path of a file, before the number of a line."""


class Paths:
    """Shortens the paths of one report.

    A file below the working directory is named as seen from there, a file of an installed package
    from the package on, and any other by its last parts, which no other file of the report has.
    """

    def __init__(self, texts: Iterable[str] = ()) -> None:
        here = os.path.join(os.getcwd(), "")
        self._here = "" if here == os.sep else here
        self._short: dict[str, str] = {}
        known = [self._from_here(text) for text in dict.fromkeys(texts)]
        files = {path for text in known for path in _LINE.findall(text)}
        others = {text.rpartition(":")[0] for text in known} - files
        times = Counter(tail for path in files | others for tail in _tails(path))
        for path in files:
            self._short[path] = next((tail for tail in _tails(path) if times[tail] == 1), path)

    def local(self, words: str) -> str:
        """Return ``words`` with the paths in it shortened."""
        return _LINE.sub(lambda path: self._short.get(path[1], path[1]), self._from_here(words))

    def _from_here(self, words: str) -> str:
        return _INSTALLED.sub("", words.replace(self._here, "") if self._here else words)


def of(report: Report) -> Paths:
    """Return what shortens the paths in ``report``."""
    faults: list[Orphan | Leak] = [*report.orphans, *report.leaks]
    sites = [
        *(each.site for each in report.call_sites),
        *(site for each in report.hand_offs for site in (each.site, each.to_site)),
        *(text for each in faults for text in (each.site, each.words, each.advice)),
    ]
    return Paths(site for site in sites if site is not None)


def _tails(path: str) -> Iterator[str]:
    """Yield the last part of ``path``, the last two, and so on; ``path`` itself comes last."""
    parts = path.split("/")
    return ("/".join(parts[-number:]) for number in range(1, len(parts) + 1))
