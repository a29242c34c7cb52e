"""How files are named in a report for the terminal."""

from __future__ import annotations

import os

import pytest

from otel_concurrency._cli.paths import Paths

A, B = "/srv/shop/billing/jobs.py:4", "/srv/shop/mailing/jobs.py:4"


@pytest.mark.parametrize(
    ("known", "shown"),
    [
        ([A], "jobs.py:4"),
        ([A, B], "billing/jobs.py:4"),
        ([A, "jobs.py:9"], "billing/jobs.py:4"),
        ([A, "/x/billing/jobs.py:1"], "shop/billing/jobs.py:4"),
        ([], A),
    ],
)
def test_a_path_is_as_long_as_it_needs_to_be(known, shown):
    """A file is named by the last parts of its path that no other file of the report has."""
    assert Paths(known).local(A) == shown


def test_paths_in_sentences_are_shortened():
    """A sentence may name several lines, and other things with slashes."""
    words = f"“GET /jobs.py” was handed off at {A}, and `a/b` came from {B}: see https://a.b/c:80"
    assert Paths([words]).local(words) == (
        "“GET /jobs.py” was handed off at billing/jobs.py:4, and `a/b` came from "
        "mailing/jobs.py:4: see https://a.b/c:80"
    )


def test_files_are_named_from_where_the_user_is(tmp_path, monkeypatch):
    """Below the working directory by the way from there, in packages from the package on."""
    monkeypatch.chdir(tmp_path)
    paths = Paths([f"{tmp_path}/app/main.py:1", "/usr/lib/site-packages/celery/app.py:3"])
    assert paths.local(f"{tmp_path}/app/main.py:1") == os.path.join("app", "main.py:1")
    assert paths.local("/usr/lib/site-packages/celery/app.py:3") == "celery/app.py:3"


def test_in_the_root_directory_slashes_stay(monkeypatch):
    """Everything is below that, and nothing is shorter for it."""
    monkeypatch.chdir("/")
    assert Paths([A, B]).local(f"{A} and {B}") == "billing/jobs.py:4 and mailing/jobs.py:4"
