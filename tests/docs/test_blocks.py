"""What the pages show can be run, and is what it says."""

from __future__ import annotations

import ast
import importlib.util
import os
import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from pages import DOCS, FILES, PAGES, REPOSITORY, blocks, text

from otel_concurrency import _cli, environment_variables
from otel_concurrency._cli import demo, status, trace
from otel_concurrency._generators import monitoring

RUNNER = Path(__file__).with_name("run_block.py")

WAYS = {
    "by-hand": [("span",), ("library", "span")],
    "queues": [("library",)],
    "howto-failed-to-detach": [("library",)],
}
"""How blocks of a page are run, where that is not as they are: the page says so."""

PYTHON = blocks("python")


def needed(block):
    """Return the packages that a block imports, and that are not installed with the tests."""
    return block.mark.removeprefix("needs: ").split(", ") if block.mark[:6] == "needs:" else []


def is_run(block):
    """Whether the block is run by itself here: by its page's mark, and by what is installed.

    With ALL_DOCS set, as in the gate, what is missing is a failure.
    """
    if block.mark in ("ci: pytest", "not a program"):
        return False
    missing = [name for name in needed(block) if importlib.util.find_spec(name) is None]
    return not missing or "ALL_DOCS" in os.environ


RUN = [
    pytest.param(block, how, id=f"{block}-{'-'.join(how) or 'alone'}")
    for block in PYTHON
    if is_run(block)
    for how in WAYS.get(block.page, [()])
]


@pytest.mark.parametrize(("block", "how"), RUN)
def test_a_block_runs(block, how, tmp_path):
    """Each block of Python is a program that ends, logs nothing and leaves nothing attached."""
    if block.page in ("generators", "howto-failed-to-detach") and not monitoring.IS_THERE:
        pytest.skip("before CPython 3.12 a suspension is not heard of")
    file = tmp_path / "block.py"
    file.write_text(block.code, encoding="utf-8")
    ended = subprocess.run(
        [sys.executable, RUNNER, file, *how],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=tmp_path,
    )
    assert (ended.returncode, ended.stderr) == (0, "")


@pytest.mark.parametrize("block", PYTHON, ids=str)
def test_a_block_is_python(block):
    """A block that is not run, since it is part of a program, is Python all the same."""
    ast.parse(block.code)


def test_blocks_are_found():
    """The reader of blocks, on which this file rests, sees them on the pages that have many."""
    pages = [block.page for block in PYTHON]
    assert pages.count("by-hand") >= 5
    assert pages.count("queues") >= 5
    assert set(WAYS) <= PAGES.keys()


def commands():
    """Return the lines of shell on all pages, with the block that each stands in."""
    for block in blocks("sh", "console"):
        code = block.code.replace("\\\n", " ")
        for line in code.splitlines():
            if block.language == "console" and not line.startswith("$ "):
                continue  # what the command prints
            for part in re.split(r"&&|\|\|?|;", line.removeprefix("$ ")):
                words = shlex.split(part, comments=True)
                while words and re.match(r"\w+=", words[0]):
                    words.pop(0)
                if words:
                    yield block, words


OURS = [
    pytest.param(words, id=f"{block}-{' '.join(words)}")
    for block, words in commands()
    if words[0] == "otel-concurrency"
]


@pytest.mark.parametrize("words", OURS)
def test_a_command_is_understood(words, monkeypatch):
    """A command line of the library's that a page shows has only options that there are."""
    understood = []
    for verb in (demo, status, trace):
        monkeypatch.setattr(verb, "run", lambda arguments: understood.append(arguments) or 0)
    assert _cli.main(words[1:]) == 0
    assert understood


def test_files_of_commands_are_there():
    """A command of the pages runs files of the repository that there are, or one's own program."""
    named = {
        word
        for _, words in commands()
        for word in words
        if word.startswith(("tests/", "docs/", "examples/", "findings/", ".ci/"))
    }
    assert named
    if not (REPOSITORY / ".ci").exists():  # a source distribution is without the gate
        named = {name for name in named if not name.startswith(".ci/")}
    assert not {name for name in named if not (REPOSITORY / name).exists()}


@pytest.mark.parametrize("page", FILES)
def test_settings_are_spelled_right(page):
    """What looks like a setting, on any page, is one."""
    named = set(re.findall(r"OTEL_PYTHON_CONCURRENCY_[A-Z_]*[A-Z]", text(page)))
    assert not named - vars(environment_variables).keys()


@pytest.mark.parametrize("page", FILES)
def test_links_lead_somewhere(page):
    """A link inside the repository leads to a file, and to a heading that is in it."""
    content = re.sub(r"^```.*?^```", "", text(page), flags=re.MULTILINE | re.DOTALL)
    content = re.sub(r"`[^`\n]*`", "", content)
    for target in re.findall(r"\]\(([^)\s]+)\)", content):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        file = (FILES[page].parent / path).resolve() if path else FILES[page]
        assert file.exists(), target
        if anchor:
            assert anchor in anchors(file.read_text(encoding="utf-8")), target


def anchors(content):
    """Return the names by which the headings of a page are linked to, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", content, re.MULTILINE)
    return {
        re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-") for heading in headings
    }


def test_every_page_is_in_the_table_of_contents():
    """A page is found from the start page."""
    listed = re.findall(r"^([\w-]+)$", text("index"), re.MULTILINE)
    assert sorted(listed) == sorted(PAGES.keys() - {"index"})


def test_generated_parts_are_what_the_code_says():
    """`python docs/generate.py` would change nothing."""
    ended = subprocess.run(
        [sys.executable, DOCS / "generate.py", "--check"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")


def test_pictures_are_what_is_drawn():
    """The pictures of the kinds of hand-offs are those that `tests/pictures/kinds.py` draws."""
    file = REPOSITORY / "tests" / "pictures" / "kinds.py"
    names = runpy.run_path(str(file))
    drawn = {name: names["draw"](picture) for name, picture in names["KINDS"].items()}
    kept = {path.stem: path.read_text("utf-8") for path in (DOCS / "pictures").glob("*.svg")}
    assert drawn == kept
