"""The changelog's fragments: what towncrier makes of them has every line."""

from __future__ import annotations

import re

from pages import REPOSITORY

from otel_concurrency import __version__

FRAGMENTS = REPOSITORY / "changelog.d"


def test_every_fragment_has_a_kind_and_lines_of_text():
    """A file's name ends in its kind, since towncrier leaves out any other without a word.

    There may be none: after a release, and in a source distribution. The first line may be the
    heading of a subject.
    """
    files = [path for path in FRAGMENTS.glob("*") if path.name != "template.md.jinja"]
    assert not [
        path.name for path in files if not re.search(r"\.(added|changed|fixed)\.md$", path.name)
    ]
    for path in files:
        lines = path.read_text(encoding="utf-8").splitlines()
        if lines[0].startswith("#### "):
            del lines[0]
        assert lines
        assert not [line for line in lines if not line or re.match(r"(added|changed|fixed):", line)]


def test_citation_has_the_version():
    """Whoever cites the software names the version that it has."""
    citation = (REPOSITORY / "CITATION.cff").read_text(encoding="utf-8")
    assert f"\nversion: {__version__}\n" in citation
